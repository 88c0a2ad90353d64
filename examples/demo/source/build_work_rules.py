"""Build examples/demo/work_rules_ko.pdf from work_rules_ko.txt.

Needs:  fpdf2 (2.8 or later; pip install fpdf2), and the files NanumGothic.ttf and
        NanumGothicBold.ttf (SIL OFL 1.1; Debian and Ubuntu: package fonts-nanum).
Run:    python build_work_rules.py --fonts FOLDER_WITH_THE_TTF_FILES

The fonts are embedded as subsets. The output depends only on the source text, the
fonts and the fpdf2 version: the creation date is fixed.
"""

from __future__ import annotations

import argparse
import logging
import re
from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF, XPos, YPos
from fpdf.fonts import FontFace

HERE = Path(__file__).resolve().parent
COMPANY, TITLE = "주식회사 여울마루", "취업규칙"
NAVY, TEAL, GREY, INK = (27, 52, 89), (38, 122, 128), (120, 126, 134), (34, 36, 40)
LEFT, RIGHT, TOP, BOTTOM = 24, 24, 26, 23
BODY, LINE = 10.0, 5.5
ARTICLE = re.compile(r"^제(\d+)조")


class Book(FPDF):
    plain = True  # no header and footer (title page)

    def header(self) -> None:
        if self.plain:
            return
        self.set_font("nanum", size=8)
        self.set_text_color(*GREY)
        self.set_xy(LEFT, 13)
        self.cell(80, 5, f"{COMPANY} {TITLE}")
        self.set_xy(-RIGHT - 80, 13)
        self.cell(80, 5, "2025년 3월 17일 시행", align="R")
        self.set_draw_color(*TEAL)
        self.set_line_width(0.3)
        self.line(LEFT, 19, self.w - RIGHT, 19)
        self.set_y(TOP)

    def footer(self) -> None:
        if self.plain:
            return
        self.set_y(-16)
        self.set_font("nanum", size=8)
        self.set_text_color(*GREY)
        self.cell(0, 5, f"{self.page_no()} / {{nb}}", align="C")

    # --- blocks -----------------------------------------------------------
    def room(self, height: float) -> None:
        if self.y + height > self.page_break_trigger:
            self.add_page()

    def text_block(
        self,
        text: str,
        indent: float = 0.0,
        hang: float = 0.0,
        size: float = BODY,
        line: float = LINE,
    ) -> None:
        """A paragraph with a hanging marker; lines break only between words."""
        self.set_font("nanum", size=size)
        self.set_text_color(*INK)
        width = self.w - LEFT - RIGHT - indent - hang
        marker, rest = text.split(" ", 1) if hang else ("", text)
        lines = self.multi_cell(width, line, rest, align="L", dry_run=True, output="LINES")
        if len(lines) <= 3:
            self.room(len(lines) * line)
        else:
            self.room(2 * line)
        for number, part in enumerate(lines):
            self.room(line)
            self.set_x(LEFT + indent)
            if hang and number == 0:
                self.cell(hang, line, marker)
            self.set_x(LEFT + indent + hang)
            self.cell(width, line, part, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.y += 0.6

    def chapter(self, title: str, toc: list) -> None:
        self.room(34)
        if self.y > TOP + 1:
            self.y += 5
        toc.append({"title": title, "page": self.page_no(), "articles": []})
        self.start_section(title)
        self.set_font("nanum", "B", 14)
        self.set_text_color(*NAVY)
        self.cell(0, 8, title, align="C", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.set_draw_color(*TEAL)
        self.set_line_width(0.5)
        self.line(self.w / 2 - 9, self.y + 1, self.w / 2 + 9, self.y + 1)
        self.y += 4

    def article(self, title: str, toc: list) -> None:
        self.room(2.2 + LINE * 3)
        self.y += 2.2
        found = ARTICLE.match(title)
        if found and toc and toc[-1]["title"].startswith("제"):
            toc[-1]["articles"].append(int(found.group(1)))
        self.set_font("nanum", "B", BODY + 0.4)
        self.set_text_color(*NAVY)
        self.cell(0, LINE + 0.6, title, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def grid(self, widths: list[int], rows: list[list[str]]) -> None:
        self.room(min(len(rows), 6) * 6.0 + 2)
        self.y += 1.5
        self.set_font("nanum", size=9.4)
        self.set_text_color(*INK)
        self.set_draw_color(176, 186, 196)
        self.set_fill_color(255, 255, 255)
        self.set_line_width(0.2)
        head = FontFace(emphasis="BOLD", color=NAVY, fill_color=(228, 239, 240))
        with self.table(
            rows,
            col_widths=widths,
            text_align=["LEFT"] + ["CENTER"] * (len(widths) - 1),
            headings_style=head,
            line_height=5.2,
            padding=(0.4, 2.2),
            width=self.w - LEFT - RIGHT,
        ):
            pass
        self.set_x(LEFT)
        self.y += 2


def title_page(pdf: Book) -> None:
    pdf.add_page()
    pdf.set_fill_color(*NAVY)
    pdf.rect(0, 0, pdf.w, 9, "F")
    pdf.set_fill_color(*TEAL)
    pdf.rect(0, 9, pdf.w, 2, "F")
    pdf.set_y(86)
    pdf.set_text_color(*TEAL)
    pdf.set_font("nanum", size=15)
    pdf.cell(0, 10, COMPANY, align="C", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.y += 3
    pdf.set_text_color(*NAVY)
    pdf.set_font("nanum", "B", 38)
    pdf.cell(0, 20, TITLE, align="C", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.set_draw_color(*TEAL)
    pdf.set_line_width(0.8)
    pdf.line(pdf.w / 2 - 20, pdf.y + 5, pdf.w / 2 + 20, pdf.y + 5)
    pdf.y += 70
    pdf.set_font("nanum", size=10)
    rows = [
        ["문서 번호", "피플-규정-001"],
        ["제정", "2011년 9월 12일"],
        ["최근 개정", "2025년 2월 24일 (제9차)"],
        ["시행", "2025년 3월 17일"],
        ["담당 부서", "피플팀"],
    ]
    pdf.set_text_color(*INK)
    pdf.set_draw_color(176, 186, 196)
    pdf.set_fill_color(255, 255, 255)
    pdf.set_line_width(0.2)
    with pdf.table(
        rows,
        col_widths=[35, 65],
        width=96,
        align="C",
        first_row_as_headings=False,
        line_height=5.6,
        padding=(1.4, 3),
        text_align=["CENTER", "LEFT"],
    ):
        pass
    pdf.set_y(-34)
    pdf.set_font("nanum", size=8.5)
    pdf.set_text_color(*GREY)
    pdf.cell(0, 5, "이 문서의 회사와 내용은 시연을 위하여 지어낸 것입니다.", align="C")


def contents_page(pdf: Book, toc: list) -> None:
    pdf.plain = True
    pdf.add_page()
    pdf.plain = False
    pdf.header()
    pdf.set_font("nanum", "B", 18)
    pdf.set_text_color(*NAVY)
    pdf.cell(0, 12, "목차", align="C", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.y += 6
    for entry in toc:
        chapter = entry["title"].startswith("제")
        pdf.set_font("nanum", size=10.6)
        pdf.set_text_color(*INK)
        y, label = pdf.y, entry["title"]
        pdf.set_x(LEFT)
        pdf.cell(0, 10, label)
        end = LEFT + pdf.get_string_width(label) + 3
        if chapter and entry["articles"]:
            span = f"제{entry['articles'][0]}조~제{entry['articles'][-1]}조"
            pdf.set_font("nanum", size=8.6)
            pdf.set_text_color(*GREY)
            pdf.set_xy(end, y)
            pdf.cell(40, 10, span)
            end += pdf.get_string_width(span) + 3
        pdf.set_font("nanum", size=10.6)
        pdf.set_text_color(*INK)
        pdf.set_xy(pdf.w - RIGHT - 14, y)
        pdf.cell(14, 10, str(entry["page"]), align="R")
        pdf.set_draw_color(190, 196, 202)
        pdf.set_line_width(0.2)
        pdf.set_dash_pattern(dash=0.3, gap=1.2)
        pdf.line(end, y + 6.4, pdf.w - RIGHT - 7, y + 6.4)
        pdf.set_dash_pattern()
        pdf.set_xy(LEFT, y + 10)


def render(source: str, fonts: Path, toc_in: list) -> tuple[Book, list]:
    pdf = Book(format="A4")
    pdf.set_margins(LEFT, TOP, RIGHT)
    pdf.set_auto_page_break(True, BOTTOM)
    pdf.c_margin = 0
    pdf.add_font("nanum", "", fonts / "NanumGothic.ttf")
    pdf.add_font("nanum", "B", fonts / "NanumGothicBold.ttf")
    pdf.set_title(f"{COMPANY} {TITLE}")
    pdf.set_author(COMPANY)
    pdf.set_lang("ko-KR")
    pdf.set_creation_date(datetime(2025, 3, 17, tzinfo=UTC))
    title_page(pdf)
    contents_page(pdf, toc_in)
    pdf.add_page()

    toc: list = []
    lines = [ln.rstrip() for ln in source.splitlines() if ln.strip() and not ln.startswith("%")]
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("|w"):
            widths = [int(w) for w in line[2:].split(",")]
            rows = []
            while at + 1 < len(lines) and lines[at + 1].startswith("| "):
                at += 1
                rows.append([cell.strip() for cell in lines[at][2:].split("|")])
            pdf.grid(widths, rows)
        elif line == "@page":
            pdf.add_page()
        elif line.startswith("@need "):
            pdf.room(float(line[6:]))
        elif line.startswith("# "):
            pdf.chapter(line[2:], toc)
        elif line.startswith("#! "):
            name = line[3:]
            if name.startswith("별표"):
                pdf.room(44)
                pdf.y += 3 if pdf.y > TOP + 1 else 0
                pdf.start_section(name)
                toc.append({"title": name, "page": pdf.page_no(), "articles": []})
                pdf.set_font("nanum", "B", 11.4)
                pdf.set_text_color(*NAVY)
                pdf.cell(0, 8, name, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
            else:
                pdf.chapter(name, toc)
        elif line.startswith("## "):
            pdf.article(line[3:], toc)
        elif line.startswith("> "):
            pdf.text_block(line[2:], size=9, line=5.4)
        elif re.match(r"^\d+\. ", line):
            pdf.text_block(line, indent=6, hang=5.5)
        elif line[0] in "①②③④⑤⑥⑦⑧⑨":
            pdf.text_block(line, hang=6)
        else:
            pdf.text_block(line)
        at += 1
    return pdf, toc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts/truetype/nanum"))
    parser.add_argument("--out", type=Path, default=HERE.parent / "work_rules_ko.pdf")
    args = parser.parse_args()
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    source = (HERE / "work_rules_ko.txt").read_text(encoding="utf-8")
    _, toc = render(source, args.fonts, [])  # first pass: page numbers for the contents
    pdf, again = render(source, args.fonts, toc)
    assert [e["page"] for e in toc] == [e["page"] for e in again]
    pdf.output(str(args.out))
    print(f"{args.out.name}: {pdf.page_no()} pages, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
