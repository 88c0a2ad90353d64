"""What looking for better settings found: every trial, what the other half says, what to use.

Frozen values and their JSON; who tries is ``optimise``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ondol.core.setting_sections import RetrievalSettings
from ondol.services.evaluation.cuts import Cut
from ondol.services.evaluation.reading_depth import DepthChoice, HitLog
from ondol.services.evaluation.retrieval import RetrievalScores
from ondol.services.evaluation.statistics import Difference

KEYS = ("mode", "fusion", "dense_weight", "calibration", "candidates", "top_k", "rerank")


@dataclass(frozen=True, slots=True)
class Trial:
    """One choice of cut and settings, its nDCG@10 and Recall@10 on the half that chooses.

    ``seconds`` is how long asking took.
    """

    cut: Cut
    settings: RetrievalSettings
    ndcg_at_10: float
    recall_at_10: float
    seconds: float
    hits: HitLog = field(repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        return {
            **changed(self.settings),
            **self.cut.as_json(),
            "ndcg_at_10": self.ndcg_at_10,
            "recall_at_10": self.recall_at_10,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Optimised:
    """What was tried, what the held-out half says of the best, and what to use.

    ``adopted``: the best is better than what is set, as the collection is cut now, on questions that
    had no part in choosing it. ``settings`` and ``cut`` are those to use, with the depth to use.
    ``cut_alone`` is how much nDCG@10 of ``differences`` the cut brings at what is set, ``None`` where
    only one of the two was chosen.
    """

    trials: tuple[Trial, ...]
    chosen: Trial
    chosen_on: int
    held_out: int
    before: RetrievalScores
    after: RetrievalScores
    differences: dict[str, Difference]
    cut_alone: Difference | None
    adopted: bool
    depth: DepthChoice

    @property
    def settings(self) -> RetrievalSettings:
        used = self.chosen if self.adopted else self.trials[0]
        return used.settings.model_copy(update={"top_k": self.depth.k})

    @property
    def cut(self) -> Cut:
        return self.chosen.cut if self.adopted else self.trials[0].cut

    @property
    def recut(self) -> bool:
        """Whether the collection is to be cut anew."""
        return self.cut is not self.trials[0].cut

    @property
    def unsure(self) -> bool:
        """Whether the difference between what is set and the best may be chance."""
        gained = self.differences["ndcg_at_10"]
        return gained.low <= 0 <= gained.high

    @property
    def cuts(self) -> tuple[Trial, ...]:
        """The first trial on each cut: all at what is set."""
        first: dict[int, Trial] = {}
        for one in self.trials:
            first.setdefault(id(one.cut), one)
        return tuple(first.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "settings": changed(self.settings),
            "chunking": self.cut.as_json()["chunking"],
            "recut": self.recut,
            "adopted": self.adopted,
            "unsure": self.unsure,
            "chosen": {**changed(self.chosen.settings), **self.chosen.cut.as_json()},
            "chosen_on": self.chosen_on,
            "held_out": self.held_out,
            "before": self.before.figures(),
            "after": self.after.figures(),
            "differences": {figure: asdict(one) for figure, one in self.differences.items()},
            "cut_alone": None if self.cut_alone is None else asdict(self.cut_alone),
            "top_k": self.depth.as_json(),
            "trials": [trial.as_json() for trial in self.trials],
        }


def changed(settings: RetrievalSettings) -> dict[str, Any]:
    """Return the settings that optimising chooses, by their dotted keys."""
    keys = (*KEYS, "rerank_depth") if settings.rerank == "on" else KEYS
    return {f"retrieval.{key}": getattr(settings, key) for key in keys}
