"""What ``ondol eval retrieval`` shows: one JSON document, or tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondol.cli.output import Output

if TYPE_CHECKING:
    from ondol.core.types import SearchMode
    from ondol.services.evaluation.gate import Verdict
    from ondol.services.evaluation.retrieval import RetrievalEvaluation, RetrievalScores

FIGURES = ("ndcg_at_10", "recall_at_1", "recall_at_5", "recall_at_10", "mrr_at_10")


def show(
    output: Output,
    found: RetrievalEvaluation,
    mode: SearchMode,
    verdict: Verdict | None,
    *,
    items: bool,
) -> None:
    if output.as_json:
        data = found.as_json(mode, items=items)
        if verdict is not None:
            data["gate"] = verdict.as_json()
        output.data(data)
        return
    head = ("MODE", *(figure.upper() for figure in FIGURES), "SECONDS")
    output.table(head, [_row(name, scores) for name, scores in found.modes.items()])
    _show_types(output, found.modes[mode])
    if found.against is not None:
        _show_against(output, found)
    if items:
        output.table(
            ("QUERY", "KIND", "NDCG_AT_10", "RECALL_AT_10", "FIRST"),
            [
                (
                    q.id,
                    q.type,
                    f"{q.ndcg_at_10:.4f}",
                    f"{q.recall_at_10:.4f}",
                    (q.ranked or ("",))[0],
                )
                for q in found.modes[mode].queries
            ],
        )
    output.note(f"{found.dataset}: {found.queries} queries, {found.documents} documents")


def _row(name: str, scores: RetrievalScores) -> tuple[str, ...]:
    figures = scores.figures()
    return name, *(f"{figures[figure]:.4f}" for figure in FIGURES), f"{scores.seconds:.1f}"


def _show_types(output: Output, scores: RetrievalScores) -> None:
    output.text()
    output.table(
        ("FIGURE", "MEAN", "95 % INTERVAL"),
        [
            (figure, f"{one.mean:.4f}", f"{one.low:.4f} – {one.high:.4f}")
            for figure, one in scores.intervals().items()
        ],
    )
    output.text()
    output.table(
        ("KIND", "QUERIES", *(figure.upper() for figure in FIGURES)),
        [
            (kind, int(figures["queries"]), *(f"{figures[figure]:.4f}" for figure in FIGURES))
            for kind, figures in scores.by_type().items()
        ],
    )


def _show_against(output: Output, found: RetrievalEvaluation) -> None:
    output.text()
    output.text("against " + ", ".join(f"{k}={v}" for k, v in (found.changed or {}).items()))
    output.table(
        ("FIGURE", "DIFFERENCE", "95 % INTERVAL", "BETTER IN RESAMPLES"),
        [
            (
                figure,
                f"{one.mean:+.4f}",
                f"{one.low:+.4f} – {one.high:+.4f}",
                f"{one.share_better:.0%}",
            )
            for figure, one in found.differences().items()
        ],
    )
