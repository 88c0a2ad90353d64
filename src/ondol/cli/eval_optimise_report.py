"""What ``ondol eval optimise`` tells people: what was tried, what is sure of it, what to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ondol.cli.output import Output
    from ondol.core.chunking import Chunking
    from ondol.core.setting_sections import IngestSettings
    from ondol.services.evaluation.optimised import Optimised, Trial
    from ondol.services.evaluation.statistics import Difference

_FIGURES = ("ndcg_at_10", "recall_at_10")


def commands(found: Optimised, collection: str, ingest: IngestSettings) -> list[str]:
    """Return the command lines that cut ``collection`` as was found best; none where it stays."""
    chunking = found.cut.chunking
    if not found.recut or chunking is None:
        return []
    lengths = {
        "ingest.chunk_chars": (chunking.target, ingest.chunk_chars),
        "ingest.chunk_overlap": (chunking.overlap, ingest.chunk_overlap),
    }
    flags = [f" --set {key}={new}" for key, (new, set_now) in lengths.items() if new != set_now]
    return [
        f"ondol collections rechunk {collection} --chunking {chunking.strategy}{''.join(flags)}"
    ]


def show(output: Output, found: Optimised, lines: list[str]) -> None:
    """Write the tables and the advice; ``lines`` are the commands to run."""
    if len(found.cuts) > 1:
        _show_cuts(output, found)
    _show_trials(output, found)
    _show_depth(output, found)
    _say_how_sure(output, found)
    for line in lines:
        output.text(line)
    _show_settings(output, found)


def _show_cuts(output: Output, found: Optimised) -> None:
    output.table(
        ("CUT", "PASSAGES", "EMBEDDED", "SECONDS", "NDCG_AT_10", "RECALL_AT_10"),
        [
            (
                _cut(one.cut.chunking),
                one.cut.passages,
                one.cut.embedded,
                f"{one.cut.seconds:.1f}",
                *_figures(one),
            )
            for one in found.cuts
        ],
    )
    output.text()


def _show_trials(output: Output, found: Optimised) -> None:
    several = len(found.cuts) > 1
    rows = [one.as_json() for one in found.trials]
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("retrieval."))
    keys.pop("retrieval.top_k")  # is chosen from the hits of the best: every trial has the same
    output.table(
        (
            *(("CUT",) if several else ()),
            *(key.removeprefix("retrieval.").upper() for key in keys),
            "NDCG_AT_10",
            "RECALL_AT_10",
        ),
        [
            (
                *((_cut(trial.cut.chunking),) if several else ()),
                *(row.get(key, "") for key in keys),
                *_figures(trial),
            )
            for trial, row in zip(found.trials, rows, strict=True)
        ],
    )


def _show_depth(output: Output, found: Optimised) -> None:
    output.text()
    output.table(
        ("TOP_K", "RECALL", "TOKENS"),
        [(one.k, f"{one.recall:.4f}", f"{one.tokens:.0f}") for one in found.depth.curve],
    )


def _say_how_sure(output: Output, found: Optimised) -> None:
    gained = _gain(found.differences["ndcg_at_10"])
    output.note(f"on {found.held_out} questions that did not choose: nDCG@10 {gained}")
    if found.cut_alone is not None:
        output.note(f"the cut alone, with all settings as they are: {_gain(found.cut_alone)}")
    if found.chosen is found.trials[0]:
        output.note("nothing that was tried is better than what is set")
    elif found.unsure:
        output.note("this may be chance: more questions would tell")
    depth = found.depth
    if depth.wanted.k != depth.before.k:
        output.note(
            f"top_k {depth.wanted.k} on those questions: recall {depth.wanted.recall:.4f}, about "
            f"{depth.wanted.tokens:.0f} tokens to read; top_k {depth.before.k} as all is set now: "
            f"{depth.before.recall:.4f}, {depth.before.tokens:.0f}"
        )
        if not depth.adopted:
            output.note(f"top_k {depth.wanted.k} was not confirmed there")


def _show_settings(output: Output, found: Optimised) -> None:
    settings: dict[str, Any] = found.as_json()["settings"]
    if not found.adopted:
        if not found.depth.adopted:
            output.text("keep the settings as they are")
            return
        settings = {"retrieval.top_k": found.depth.k}
    output.text("[retrieval]")
    for key, value in settings.items():
        shown = f'"{value}"' if isinstance(value, str) else value
        output.text(f"{key.removeprefix('retrieval.')} = {shown}")


def _cut(chunking: Chunking | None) -> str:
    return "unrecorded" if chunking is None else f"{chunking.strategy} {chunking.target}"


def _gain(found: Difference) -> str:
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _figures(trial: Trial) -> list[str]:
    return [f"{getattr(trial, figure):.4f}" for figure in _FIGURES]
