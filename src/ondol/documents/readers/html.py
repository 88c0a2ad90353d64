"""HTML: what a reader of the page would see, with block breaks; no script runs, no link is followed.

Headings become Markdown headings and list items bullets, so that chunking sees the structure;
tables of data become rows (``table_rows``), tables used for layout run on as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ondol.core.types import ReadDocument
from ondol.documents.readers.encoding import decode
from ondol.documents.readers.reader_contract import (
    DocumentSource,
    ReadItems,
    ReadLimits,
    no_text,
    too_many_chars,
)
from ondol.documents.readers.tables import CELL, Cell, spread, table_lines
from ondol.language.normalise import normalise

_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([A-Za-z0-9_\-]{2,40})", re.I)
_DROPPED = frozenset(
    [
        "script",
        "style",
        "noscript",
        "template",
        "svg",
        "math",
        "canvas",
        "iframe",
        "object",
        "embed",
        "head",
        "select",
        "button",
    ]
)
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "dd",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hr",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "tr",
        "ul",
    ]
)
_PARAGRAPHS = frozenset(
    ["p", "blockquote", "pre", "table", "ul", "ol", "dl", "section", "article", "figure"]
)
_HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
_CELLS = frozenset({"td", "th"})
_NOT_IN_DATA = "h1, h2, h3, h4, h5, h6, form, article, section"
_CELL_CHARS = 1000
_SPACES = re.compile(r"[^\S\n]*\n\s*|\s+")
_TRAILING = re.compile(r"[ \t\u00a0]+\n")
_GAPS = re.compile(r"\n{3,}")


def read_html(source: DocumentSource, *, limits: ReadLimits) -> ReadItems:
    """Yield the page as one document, or a failure: ``empty``, ``too_large``."""
    named = _CHARSET.search(source.data[:4096])
    declared = named[1].decode("ascii") if named else None
    decoded = decode(source.data, name=source.name, declared=declared)
    text, title = html_text(normalise(decoded.text))
    if len(text) > limits.max_chars:
        yield too_many_chars(source.name, len(text), limits)
    elif not text:
        yield no_text(source.name)
    else:
        yield ReadDocument(
            source=source.name,
            title=title or source.stem,
            text=text,
            media_type="text/html",
            warnings=decoded.warnings,
        )


def html_text(markup: str) -> tuple[str, str]:
    """Return what a reader of ``markup`` would see, in stored form, and the page's title or ``""``."""
    tree = LexborHTMLParser(markup)
    return normalise(_visible(tree)).strip(), _title(tree)


def _title(tree: LexborHTMLParser) -> str:
    for selector in ("title", "h1"):
        node = tree.css_first(selector)
        title = " ".join(node.text().split()) if node is not None else ""
        if title:
            return normalise(title[:300])
    return ""


def _visible(tree: LexborHTMLParser) -> str:
    root = tree.body or tree.root
    if root is None:
        return ""
    text = "".join(_pieces(root, _around_tables(tree)))
    return _GAPS.sub("\n\n", _TRAILING.sub("\n", text))


def _around_tables(tree: LexborHTMLParser) -> frozenset[int]:
    """Return the tables that hold another table: they lay out the page."""
    found: set[int] = set()
    for inner in tree.css("table table"):
        node = inner.parent
        while node is not None and node.tag != "table":
            node = node.parent
        if node is not None:
            found.add(node.mem_id)
    return frozenset(found)


def _pieces(root: LexborNode, layouts: frozenset[int] = frozenset()) -> Iterator[str]:
    """Walk the tree without recursion: pages nest deeper than Python's stack."""
    node: LexborNode | None = root
    depth = 0
    preformatted = 0
    while node is not None:
        tag = node.tag or ""
        if tag == "-text":
            yield _words(node.text_content or "", kept=preformatted > 0)
        elif tag == "table" and node.mem_id not in layouts and (lines := _data_table(node)):
            yield "\n\n" + "\n".join(lines) + "\n\n"
        elif tag not in _DROPPED:
            yield _before(tag)
            preformatted += tag == "pre"
            if node.first_child is not None:
                node, depth = node.first_child, depth + 1
                continue
            preformatted -= tag == "pre"
            yield _after(tag)
        while node is not None and depth > 0 and node.next is None:
            node, depth = node.parent, depth - 1
            closed = node.tag or "" if node is not None else ""
            preformatted -= closed == "pre"
            yield _after(closed)
        if node is None or depth == 0:
            return
        node = node.next


def _data_table(table: LexborNode) -> list[str]:
    """Return the lines of a table of data, or none where it only lays out the page."""
    if table.css_first(_NOT_IN_DATA) is not None:
        return []
    rows = [[_cell(node) for node in row.iter() if node.tag in _CELLS] for row in table.css("tr")]
    if sum(len(row) > 1 for row in rows) < 2:
        return []
    if any(len(cell.text) > _CELL_CHARS for row in rows for cell in row):
        return []
    first = table.css_first("tr")
    header = first is not None and all(
        node.tag == "th" for node in first.iter() if node.tag in _CELLS
    )
    caption = table.css_first("caption")
    named = " ".join(caption.text().split()) if caption is not None else ""
    lines = table_lines(spread(rows), header=header)
    return [named, *lines] if named else lines


def _cell(node: LexborNode) -> Cell:
    said = "".join(_pieces(node)).removesuffix(CELL)
    return Cell(
        " ".join(said.split()), down=_count(node, "rowspan"), across=_count(node, "colspan")
    )


def _count(node: LexborNode, name: str) -> int:
    value = (node.attributes.get(name) or "").strip()
    return int(value) if value.isdecimal() and len(value) < 5 else 1


def _words(text: str, *, kept: bool) -> str:
    return text if kept else _SPACES.sub(" ", text)


def _before(tag: str) -> str:
    if tag in _HEADINGS:
        return f"\n\n{_HEADINGS[tag]} "
    if tag == "li":
        return "\n- "
    if tag in _PARAGRAPHS:
        return "\n\n"
    return "\n" if tag in _BLOCKS or tag == "br" else ""


def _after(tag: str) -> str:
    if tag in _HEADINGS or tag in _PARAGRAPHS:
        return "\n\n"
    if tag in _CELLS:
        return CELL
    return "\n" if tag in _BLOCKS else ""
