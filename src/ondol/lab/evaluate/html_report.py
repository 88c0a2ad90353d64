"""An evaluation as one HTML page that needs nothing else: no script, no style, no font from afar.

Pure: figures in, text out. Everything that comes from data is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ondol.core.types import SearchMode
from ondol.lab.evaluate.answer_evaluation import FIGURES, QueryScore
from ondol.lab.evaluate.retrieval_evaluation import RetrievalEvaluation, RetrievalScores
from ondol.lab.evaluate.statistics import Difference, Interval

NAMES = {
    "ndcg_at_10": "nDCG@10",
    "recall_at_1": "Recall@1",
    "recall_at_5": "Recall@5",
    "recall_at_10": "Recall@10",
    "mrr_at_10": "MRR@10",
}
_SHOWN = 50  # queries in each list
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}th,td{padding:.25rem .6rem;text-align:right;
border-bottom:1px solid #ddd;vertical-align:top}th:first-child,td:first-child,td.text{text-align:left}
th{font-weight:600;background:#f6f6f6}.up{color:#06702c}.down{color:#a8071a}.note{color:#666}
svg{vertical-align:middle}
@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}th{background:#222}
th,td{border-color:#333}.up{color:#5cc98a}.down{color:#ff8a8a}.note{color:#999}}
"""


def html_report(
    evaluation: RetrievalEvaluation,
    mode: SearchMode,
    *,
    moment: str,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Return the page; ``moment`` is when it was measured, ``settings`` those it was measured under."""
    scores = evaluation.modes[mode]
    parts = [
        f"<h1>Retrieval: {escape(evaluation.dataset)}</h1>",
        f'<p class="note">{evaluation.queries} queries, {evaluation.documents} documents, '
        f"mode {escape(mode)}, {escape(moment)}</p>",
        _section("Figures, with 95 % intervals", _figures(scores.intervals())),
    ]
    if evaluation.against is not None:
        parts.append(_side_by_side(evaluation, scores, evaluation.against))
    parts.append(_section("By kind of query", _types(scores)))
    if len(evaluation.modes) > 1:
        parts.append(_section("By mode", _modes(evaluation.modes)))
    parts.append(_section("Queries that score least", _queries(_worst(scores.queries))))
    if settings:
        rows = [[escape(str(key)), escape(str(value))] for key, value in settings.items()]
        parts.append(_section("Settings", _table(("setting", "value"), rows)))
    title = escape(f"Retrieval: {evaluation.dataset}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{''.join(parts)}\n</body></html>\n"
    )


def _figures(found: Mapping[str, Interval]) -> str:
    rows = [
        [NAMES[figure], f"{one.mean:.4f}", f"{one.low:.4f} – {one.high:.4f}", _bar(one)]
        for figure, one in found.items()
    ]
    return _table(("figure", "mean", "95 % interval", ""), rows)


def _bar(one: Interval) -> str:
    """Draw the mean as a bar and the interval as a line over it, on a scale of 0 to 1."""
    width, low, high = one.mean * 300, one.low * 300, one.high * 300
    return (
        '<svg width="300" height="14" role="img" aria-hidden="true">'
        f'<rect width="{width:.1f}" height="14" fill="#7aa6d8"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="7" y2="7" stroke="#123" stroke-width="2"/></svg>'
    )


def _side_by_side(
    evaluation: RetrievalEvaluation, base: RetrievalScores, other: RetrievalScores
) -> str:
    said = ", ".join(f"{key} = {value}" for key, value in (evaluation.changed or {}).items())
    ours, theirs = base.figures(), other.figures()
    rows = [
        [
            NAMES[figure],
            f"{ours[figure]:.4f}",
            f"{theirs[figure]:.4f}",
            _signed(one),
            f"{one.low:+.4f} – {one.high:+.4f}",
            f"{one.share_better:.0%}",
        ]
        for figure, one in evaluation.differences().items()
    ]
    head = ("figure", "as set", "against", "difference", "95 % interval", "better in resamples")
    moved = sorted(
        zip(base.queries, other.queries, strict=True),
        key=lambda pair: (-abs(pair[1].ndcg_at_10 - pair[0].ndcg_at_10), pair[0].id),
    )
    lines = [
        [escape(a.id), _text(a.text), f"{a.ndcg_at_10:.3f}", f"{b.ndcg_at_10:.3f}"]
        for a, b in moved[:_SHOWN]
        if a.ndcg_at_10 != b.ndcg_at_10
    ]
    return _section(f"Against {said}", _table(head, rows)) + _section(
        "Queries that differ most", _table(("query", "", "as set", "against"), lines)
    )


def _types(scores: RetrievalScores) -> str:
    rows = [
        [kind, str(int(found["queries"])), *(f"{found[figure]:.4f}" for figure in FIGURES)]
        for kind, found in scores.by_type().items()
    ]
    return _table(("kind", "queries", *NAMES.values()), rows)


def _modes(modes: Mapping[str, RetrievalScores]) -> str:
    rows = [
        [name, *(f"{value:.4f}" for value in scores.figures().values()), f"{scores.seconds:.1f}"]
        for name, scores in modes.items()
    ]
    return _table(("mode", *NAMES.values(), "seconds"), rows)


def _worst(queries: Sequence[QueryScore]) -> list[QueryScore]:
    return sorted(queries, key=lambda one: (one.ndcg_at_10, one.recall_at_10, one.id))[:_SHOWN]


def _queries(queries: Iterable[QueryScore]) -> str:
    rows = [
        [
            escape(one.id),
            _text(one.text),
            one.type,
            f"{one.ndcg_at_10:.3f}",
            _text(", ".join(one.ranked[:3])),
        ]
        for one in queries
    ]
    return _table(("query", "", "kind", "nDCG@10", "found first"), rows)


def _text(text: str) -> str:
    return escape(text if len(text) <= 160 else text[:159] + "…")


def _signed(one: Difference) -> str:
    kind = "up" if one.low > 0 else "down" if one.high < 0 else ""
    return f'<span class="{kind}">{one.mean:+.4f}</span>'


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>{body}\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are HTML already."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table>"
