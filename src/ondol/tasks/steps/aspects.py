"""``aspects``: counts, over all entries, which aspect is praised and which blamed.

Words of the pack's lexicon name the aspect clause by clause; words of praise and blame decide its
polarity, and where they do not, the classifier reads the clause. Fills ``aspects`` and the groups that
``represent`` and ``generate`` work by. Parameters: ``lexicon`` (a TOML of the pack), ``classifier``,
``groups`` (how many aspects are worded), ``least`` (mentions from which one is), ``polarity`` (only
groups of this polarity: praise for strengths), ``evidence`` (ids listed per aspect).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import Field

from ondol.core.errors import NotFound
from ondol.packs.reviews.aspect_lexicon import AspectLexicon, ReviewClause
from ondol.tasks.step_context import StepContext
from ondol.tasks.steps.step import Parameters
from ondol.tasks.task_run import Entry, Group, Mention, TaskRun

Polarity = Literal["positive", "negative", "mixed"]
_WORDS = {1: "positive", -1: "negative", 0: "mixed"}
_LEAN = 0.25


class AspectsParameters(Parameters):
    """See the module."""

    lexicon: str = "lexicons/aspects.toml"
    classifier: str = ""
    groups: int = Field(5, ge=0, le=20)
    least: int = Field(2, ge=1)
    polarity: Literal["", "positive", "negative"] = ""
    evidence: int = Field(5, ge=1, le=50)

    def needs(self) -> list[tuple[str, str, str]]:
        files = [("lexicon", "lexicon", self.lexicon)]
        if self.classifier:
            files.append(("classifier", "classifier", self.classifier))
        return files


@dataclass(slots=True)
class _Count:
    polarities: Counter[str] = field(default_factory=Counter)
    members: dict[str, list[int]] = field(default_factory=dict)

    @property
    def mentions(self) -> int:
        return sum(self.polarities.values())

    @property
    def leading(self) -> str:
        praised, blamed = self.polarities["positive"], self.polarities["negative"]
        return "positive" if praised >= blamed and praised else "negative" if blamed else "mixed"


class Aspects:
    """The step."""

    def __init__(self, parameters: AspectsParameters, bench: StepContext) -> None:
        self._parameters = parameters
        self._bench = bench

    async def run(self, run: TaskRun) -> TaskRun:
        """Count the aspects of ``run``'s entries."""
        lexicon = self._bench.lexicon(run.task, self._parameters.lexicon)
        entries = mentioned(run.entries, lexicon, self._unsure(run))
        counts = counted(entries)
        rows = [self._row(run, lexicon, key, count, entries) for key, count in counts.items()]
        rows.sort(key=lambda row: (-row["mentions"], row["aspect"]))
        run = replace(run, entries=tuple(entries), groups=self._groups(run, lexicon, counts))
        return run.telling(aspects="; ".join(told_aspect(row) for row in rows)).adding(aspects=rows)

    def _unsure(self, run: TaskRun) -> ClauseJudge:
        name = self._parameters.classifier
        try:
            classifier = self._bench.classifier(run.task, name, run.language) if name else None
        except NotFound:
            classifier = None
        return ClauseJudge(classifier)

    def _row(
        self,
        run: TaskRun,
        lexicon: AspectLexicon,
        key: str,
        count: _Count,
        entries: Sequence[Entry],
    ) -> dict[str, Any]:
        shown = [
            i for kind in ("positive", "negative", "mixed") for i in count.members.get(kind, [])
        ]
        shown = sorted(dict.fromkeys(shown), key=lambda i: (abs(len(entries[i].text) - 60), i))
        return {
            "aspect": key,
            "title": lexicon.title(key, run.language),
            "mentions": count.mentions,
            "positive": count.polarities["positive"],
            "negative": count.polarities["negative"],
            "mixed": count.polarities["mixed"],
            "share": round(count.mentions / max(len(entries), 1), 4),
            "evidence": [entries[i].id for i in shown[: self._parameters.evidence]],
        }

    def _groups(
        self, run: TaskRun, lexicon: AspectLexicon, counts: Mapping[str, _Count]
    ) -> tuple[Group, ...]:
        wanted = self._parameters.polarity
        found: list[tuple[int, Group]] = []
        for key, count in counts.items():
            polarity = wanted or count.leading
            weight = count.polarities[wanted] if wanted else count.mentions
            members = tuple(count.members.get(polarity, []))
            if weight < min(self._parameters.least, len(run.entries)) or not members:
                continue
            title = lexicon.title(key, run.language)
            group = Group(key, title, polarity, (), members)
            found.append((weight, group))
        found.sort(key=lambda one: (-one[0], one[1].key))
        return tuple(group for _, group in found[: self._parameters.groups])


class ClauseJudge:
    """Decides the clauses that words do not, by the classifier's letters; else the entry's label."""

    def __init__(self, classifier: Any) -> None:
        self._classifier = classifier

    def polarities(self, clauses: Sequence[tuple[ReviewClause, str]]) -> list[str]:
        """Return the polarity of each (clause, label of its entry)."""
        found = [_WORDS[clause.polarity] if clause.polarity else label for clause, label in clauses]
        open_ones = [i for i, (clause, _) in enumerate(clauses) if not clause.polarity]
        if self._classifier is None or not open_ones:
            return [one if one in ("positive", "negative") else "mixed" for one in found]
        labels = self._classifier.labels
        chances = self._classifier.predict([clauses[i][0].text for i in open_ones], None)
        praised, blamed = (
            labels.index(name) if name in labels else None for name in ("positive", "negative")
        )
        for i, row in zip(open_ones, chances, strict=True):
            lean = (row[praised] if praised is not None else 0) - (
                row[blamed] if blamed is not None else 0
            )
            label = clauses[i][1]
            if (label == "positive" and lean > -_LEAN) or (label == "negative" and lean < _LEAN):
                found[i] = label
            else:
                found[i] = "positive" if lean > _LEAN else "negative" if lean < -_LEAN else "mixed"
        return [one if one in ("positive", "negative") else "mixed" for one in found]


def mentioned(entries: Sequence[Entry], lexicon: AspectLexicon, judge: ClauseJudge) -> list[Entry]:
    """Return ``entries`` with their mentions: one per aspect, mixed where its clauses disagree."""
    clauses: list[tuple[ReviewClause, str]] = []
    owners: list[int] = []
    for place, entry in enumerate(entries):
        for clause in lexicon.clauses(entry.text):
            if clause.aspects:
                clauses.append((clause, entry.label))
                owners.append(place)
    said: dict[int, dict[str, dict[str, str]]] = {}
    for owner, (clause, _), polarity in zip(
        owners, clauses, judge.polarities(clauses), strict=True
    ):
        for aspect in clause.aspects:
            said.setdefault(owner, {}).setdefault(aspect, {})[clause.text] = polarity
    return [
        replace(entry, mentions=tuple(_mention(*one) for one in said.get(i, {}).items()))
        for i, entry in enumerate(entries)
    ]


def _mention(aspect: str, clauses: Mapping[str, str]) -> Mention:
    return Mention(aspect, _joined(set(clauses.values())), " ".join(clauses))


def counted(entries: Sequence[Entry]) -> dict[str, _Count]:
    """Return what is said of each aspect, and by which entries."""
    counts: dict[str, _Count] = {}
    for place, entry in enumerate(entries):
        for mention in entry.mentions:
            count = counts.setdefault(mention.aspect, _Count())
            count.polarities[mention.polarity] += 1
            count.members.setdefault(mention.polarity, []).append(place)
    return counts


def told_aspect(row: Mapping[str, Any]) -> str:
    """Return one aspect in a few words, for templates."""
    return f"{row['title']} {row['mentions']} (+{row['positive']}/-{row['negative']})"


def _joined(polarities: set[str]) -> str:
    plain = polarities - {"mixed"}
    return plain.pop() if len(plain) == 1 else "mixed"
