"""HTML: what a reader of the page would see, with block breaks; no script runs, no link is followed.

Headings become Markdown headings and list items bullets, so that chunking sees the structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ondol.core.types import ReadDocument
from ondol.text.normalise import normalise
from ondol.text.readers.contract import ReadItems, ReadLimits, Source, no_text, too_many_chars
from ondol.text.readers.encoding import decode

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
_SPACES = re.compile(r"[^\S\n]*\n\s*|\s+")
_TRAILING = re.compile(r"[ \t\u00a0]+\n")
_GAPS = re.compile(r"\n{3,}")


def read_html(source: Source, *, limits: ReadLimits) -> ReadItems:
    """Yield the page as one document, or a failure: ``empty``, ``too_large``."""
    named = _CHARSET.search(source.data[:4096])
    declared = named[1].decode("ascii") if named else None
    decoded = decode(source.data, name=source.name, declared=declared)
    tree = LexborHTMLParser(normalise(decoded.text))
    text = normalise(_visible(tree)).strip()
    if len(text) > limits.max_chars:
        yield too_many_chars(source.name, len(text), limits)
    elif not text:
        yield no_text(source.name)
    else:
        yield ReadDocument(
            source=source.name,
            title=_title(tree) or source.stem,
            text=text,
            media_type="text/html",
            warnings=decoded.warnings,
        )


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
    text = "".join(_pieces(root))
    return _GAPS.sub("\n\n", _TRAILING.sub("\n", text))


def _pieces(root: LexborNode) -> Iterator[str]:
    """Walk the tree without recursion: pages nest deeper than Python's stack."""
    node: LexborNode | None = root
    depth = 0
    preformatted = 0
    while node is not None:
        tag = node.tag or ""
        if tag == "-text":
            yield _words(node.text_content or "", kept=preformatted > 0)
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
        return " | "
    return "\n" if tag in _BLOCKS else ""
