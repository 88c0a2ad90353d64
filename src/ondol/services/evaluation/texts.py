"""Texts, rated pairs and rerank requests from files, in the shapes people have them in.

Texts: one a line, JSONL with ``text``, or one JSON list. Pairs: TSV with the columns ``score``,
``sentence1`` and ``sentence2`` (as STS-B and KorSTS have them). Requests: JSONL with ``query`` and
``documents``. Every error names the file and the line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.core.errors import InvalidInput, NotFound
from ondol.services.evaluation.datasets import read_jsonl

_PAIR_COLUMNS = ("score", "sentence1", "sentence2")


@dataclass(frozen=True, slots=True)
class RatedPair:
    """Two sentences and how alike people say they are (any scale, higher is more alike)."""

    left: str
    right: str
    score: float


@dataclass(frozen=True, slots=True)
class JudgedList:
    """A query and passages to rank for it; ``gains`` is empty where nobody judged them."""

    query: str
    documents: tuple[str, ...]
    gains: tuple[float, ...] = ()


def read_texts(path: Path) -> list[str]:
    """Return the texts of ``path``, blank ones left out.

    Raises ``NotFound``, or ``InvalidInput`` for a malformed file or one without a text.
    """
    if not path.is_file():
        raise NotFound(f"{path} does not exist", hint="check the path", param="texts")
    content = path.read_text("utf-8-sig")
    if path.suffix == ".jsonl" or _is_object(content):
        texts = [str(row["text"]) for row in read_jsonl(path, required=("text",))]
    elif content.lstrip().startswith("["):
        texts = _listed(path, content)
    else:
        texts = content.splitlines()
    found = [text for text in texts if text.strip()]
    if not found:
        raise InvalidInput(
            f"{path} holds no text",
            hint="one text a line, JSONL with 'text', or one JSON list",
            param="texts",
        )
    return found


def read_pairs(path: Path) -> list[RatedPair]:
    """Return the rated pairs of a TSV; raises ``NotFound`` or ``InvalidInput`` with the line."""
    if not path.is_file():
        raise NotFound(f"{path} does not exist", hint="check the path", param="sts")
    lines = path.read_text("utf-8-sig").splitlines()
    header = lines[0].split("\t") if lines else []
    missing = [column for column in _PAIR_COLUMNS if column not in header]
    if missing:
        raise InvalidInput(
            f"{path} has no column {missing[0]!r}",
            hint=f"the first line names the columns {', '.join(_PAIR_COLUMNS)}, tab separated",
            param="sts",
        )
    at = [header.index(column) for column in _PAIR_COLUMNS]
    pairs = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        try:
            score, left, right = (cells[column] for column in at)
            pairs.append(RatedPair(left, right, float(score)))
        except (IndexError, ValueError):
            raise InvalidInput(
                f"{path} line {number} is no rated pair: {line[:80]!r}",
                hint="every line needs a number and two sentences, tab separated",
                param="sts",
            ) from None
    return pairs


def read_requests(path: Path, *, query: str | None = None) -> list[JudgedList]:
    """Return the rerank requests of ``path``; with ``query`` its lines are that query's passages."""
    if query is not None:
        return [JudgedList(query, tuple(read_texts(path)))]
    rows = read_jsonl(path, required=("query", "documents"))
    found = [
        JudgedList(
            str(row["query"]),
            tuple(str(document) for document in row["documents"]),
            tuple(float(gain) for gain in row.get("gains", ())),
        )
        for row in rows
        if row["documents"]
    ]
    if not found:
        raise InvalidInput(
            f"{path} holds no request with documents",
            hint="JSONL with 'query' and 'documents', or lines of text and --query",
            param="texts",
        )
    return found


def _is_object(content: str) -> bool:
    first = content.lstrip().split("\n", 1)[0].strip()
    return first.startswith('{"') and first.endswith("}")


def _listed(path: Path, content: str) -> list[str]:
    try:
        items: Any = json.loads(content)
    except ValueError:
        return content.splitlines()  # lines of text, the first of which begins with a bracket
    if not isinstance(items, list):
        raise InvalidInput(f"{path} is no JSON list", hint="give a list of texts", param="texts")
    return [str(item["text"]) if isinstance(item, dict) else str(item) for item in items]
