"""The gate before a tuned model may be used: held-back questions, asked of both models.

Both search the same collection with the same keywords and settings; only the vectors differ. A model
passes when nDCG@10 is not lower than the base's, by vectors alone and as search is set. Pure but for
the asking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ondol.core.errors import GateFailed
from ondol.core.types import OnProgress, SearchMode
from ondol.lab.evaluate.answer_evaluation import values
from ondol.lab.evaluate.datasets import Query
from ondol.lab.evaluate.retrieval_evaluation import RetrievalScores, ask_all
from ondol.lab.evaluate.statistics import Difference, difference
from ondol.search.retrieval import RetrievalService

FIGURE = "ndcg_at_10"


@dataclass(frozen=True, slots=True)
class ModeVerdict:
    """One mode of search: the figures of both models, and the paired difference of nDCG@10."""

    base: Mapping[str, float]
    tuned: Mapping[str, float]
    difference: Difference

    @property
    def passed(self) -> bool:
        """Whether the tuned model's nDCG@10 is not lower."""
        return self.difference.mean >= 0


@dataclass(frozen=True, slots=True)
class ExamVerdict:
    """What ``questions`` held-back questions say, by mode of search."""

    questions: int
    modes: Mapping[str, ModeVerdict]

    @property
    def passed(self) -> bool:
        return all(mode.passed for mode in self.modes.values())

    @property
    def certain(self) -> bool:
        """Whether the gain is more than chance (95 %) in at least one mode."""
        return any(mode.difference.low > 0 for mode in self.modes.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "questions": self.questions,
            "passed": self.passed,
            "certain": self.certain,
            "modes": {
                name: {
                    "base": dict(mode.base),
                    "tuned": dict(mode.tuned),
                    "difference": asdict(mode.difference),
                    "passed": mode.passed,
                }
                for name, mode in self.modes.items()
            },
        }

    def enforce(self) -> None:
        """Raise ``GateFailed`` naming the modes in which the tuned model fell short."""
        if self.passed:
            return
        fell = "; ".join(
            f"{name} {mode.base[FIGURE]:.4f} to {mode.tuned[FIGURE]:.4f}"
            for name, mode in self.modes.items()
            if not mode.passed
        )
        raise GateFailed(
            f"the tuned model finds less on {self.questions} held-back questions: nDCG@10 {fell}",
            hint="it was not added; give more or better pairs, or a lower --rate or fewer --epochs",
        )


def modes_of(wanted: SearchMode) -> tuple[SearchMode, ...]:
    """Return the modes that count where search is set to ``wanted``: vectors alone always do."""
    return ("dense", "hybrid") if wanted != "dense" else ("dense",)


async def examine(
    base: RetrievalService,
    tuned: RetrievalService,
    collection: str,
    queries: Sequence[Query],
    *,
    modes: Sequence[SearchMode],
    now: Callable[[], float],
    told: OnProgress | None = None,
) -> ExamVerdict:
    """Ask both models every query in every mode; ``told`` hears (done, total)."""
    total, done = 2 * len(modes) * len(queries), 0
    found: dict[str, ModeVerdict] = {}
    for mode in modes:
        sides: list[RetrievalScores] = []
        for service in (base, tuned):
            before = done

            def asked(count: int, _all: int, before: int = before) -> None:
                if told is not None:
                    told(before + count, total)

            sides.append(
                await ask_all(
                    service,
                    collection,
                    queries,
                    mode=mode,
                    rerank=False,
                    now=now,
                    querying=asked,
                )
            )
            done += len(queries)
        found[mode] = ModeVerdict(
            base=sides[0].figures(),
            tuned=sides[1].figures(),
            difference=difference(
                values(sides[0].queries, FIGURE), values(sides[1].queries, FIGURE)
            ),
        )
    return ExamVerdict(len(queries), found)
