"""``contrast``: what is said of this one more often than of its peers.

For every aspect: the share of entries that praise it here, the mean share among the peers, and whether
the difference is more than chance (a two-proportion z of at least 1.96). Peers come with the input:
their reviews, or shares worked out before. Fills ``distinctive``; claims about an aspect get
``distinctive`` true or false. Parameters: ``peers`` (the input's field), ``lexicon``, ``claims``,
``least`` (share from which an aspect counts).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from ondol.packs.reviews.aspect_lexicon import AspectLexicon
from ondol.tasks.step_context import StepContext
from ondol.tasks.steps.aspects import AspectsParameters, ClauseJudge, mentioned
from ondol.tasks.steps.step import Parameters
from ondol.tasks.task_run import Entry, TaskRun

_CHANCE = 1.96
_USUAL = 30  # reviews of a peer that gives shares without their number
_TOLD = {
    "ko": "{title}{object} 좋게 말한 리뷰가 {here:.0%}로, 비교 대상 {peers}곳의 {there:.0%}보다 많습니다.",
    "en": "{here:.0%} of the reviews praise {title}, against {there:.0%} at {peers} peers.",
}


class ContrastParameters(Parameters):
    """See the module."""

    peers: str = "peers"
    lexicon: str = AspectsParameters().lexicon
    claims: str = ""
    least: float = Field(0.05, ge=0, le=1)

    def needs(self) -> list[tuple[str, str, str]]:
        return [("lexicon", "lexicon", self.lexicon)]


@dataclass(frozen=True, slots=True)
class _Peer:
    praised: Mapping[str, float]
    reviews: int


class Contrast:
    """The step."""

    def __init__(self, parameters: ContrastParameters, bench: StepContext) -> None:
        self._parameters = parameters
        self._bench = bench

    async def run(self, run: TaskRun) -> TaskRun:
        """Compare ``run``'s entries with its peers'."""
        lexicon = self._bench.lexicon(run.task, self._parameters.lexicon)
        peers = [_peer(one, lexicon) for one in run.input.get(self._parameters.peers, ())]
        peers = [peer for peer in peers if peer.reviews]
        if not peers or not run.entries:
            return self._claims(run.adding(distinctive=[], peers=0), frozenset())
        here = shares_of(run.entries)
        rows = [
            row
            for aspect, share in here.items()
            if (row := self._row(run, lexicon, aspect, share, peers)) is not None
        ]
        rows.sort(key=lambda row: (-row["lift"], row["aspect"]))
        run = run.adding(distinctive=rows, peers=len(peers))
        run = run.telling(distinctive=", ".join(row["title"] for row in rows))
        return self._claims(run, frozenset(row["aspect"] for row in rows))

    def _row(
        self,
        run: TaskRun,
        lexicon: AspectLexicon,
        aspect: str,
        share: float,
        peers: Sequence[_Peer],
    ) -> dict[str, Any] | None:
        """Return the aspect as distinctive, or ``None`` where peers have it as often."""
        reviews = sum(peer.reviews for peer in peers)
        there = sum(peer.praised.get(aspect, 0.0) for peer in peers) / len(peers)
        if share < self._parameters.least:
            return None
        if z_of(share, len(run.entries), there, reviews) < _CHANCE:
            return None
        title = lexicon.title(aspect, run.language)
        told = _TOLD[run.language].format(
            title=title, object=object_particle(title), here=share, there=there, peers=len(peers)
        )
        praising = [
            e.id
            for e in run.entries
            if any(m.aspect == aspect and m.polarity == "positive" for m in e.mentions)
        ]
        return {
            "aspect": aspect,
            "title": title,
            "text": told,
            "share": round(share, 4),
            "peers_share": round(there, 4),
            "lift": round(share / max(there, 0.01), 2),
            "evidence": praising[:5],
        }

    def _claims(self, run: TaskRun, distinctive: frozenset[str]) -> TaskRun:
        name = self._parameters.claims
        if not name:
            return run
        rows = [
            {**row, "distinctive": row.get("aspect") in distinctive}
            for row in run.result.get(name, ())
        ]
        rows.sort(key=lambda row: not row["distinctive"])
        return run.adding(**{name: rows})


def object_particle(word: str) -> str:
    """Return the object particle of a Korean word: 을 behind a final consonant, else 를."""
    last = word[-1:] or " "
    closed = "가" <= last <= "힣" and (ord(last) - ord("가")) % 28 > 0
    return "을" if closed else "를"


def shares_of(entries: Sequence[Entry]) -> dict[str, float]:
    """Return, by aspect, the share of ``entries`` that praise it."""
    praised = Counter(
        mention.aspect
        for entry in entries
        for mention in entry.mentions
        if mention.polarity == "positive"
    )
    return {aspect: count / len(entries) for aspect, count in praised.items()}


def z_of(share: float, count: int, other: float, others: int) -> float:
    """Return how many standard errors ``share`` of ``count`` is above ``other`` of ``others``."""
    pooled = (share * count + other * others) / (count + others)
    error = math.sqrt(max(pooled * (1 - pooled), 1e-9) * (1 / count + 1 / others))
    return (share - other) / error


def _peer(given: Mapping[str, Any], lexicon: AspectLexicon) -> _Peer:
    """Return a peer's shares: as given, or worked out from its reviews by words alone."""
    if "praised" in given:
        shares = {str(key): float(value) for key, value in given["praised"].items()}
        return _Peer(shares, int(given.get("count", _USUAL)))
    entries = [
        Entry(id=str(at), text=str(row["text"]), marker="")
        for at, row in enumerate(given.get("reviews", ()))
    ]
    if not entries:
        return _Peer({}, 0)
    return _Peer(shares_of(mentioned(entries, lexicon, ClauseJudge(None))), len(entries))
