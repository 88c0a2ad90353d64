"""One candidate's figures, or why it has none; and the same as a row of JSON.

The staged search: all forms, then thread splits, then batching of the best ones.

Decides what is measured next and keeps what was; a ``Measurer`` measures. A later round's figures
replace an earlier one's, because its candidates ran side by side with their rivals.

What ``ondol tune`` tries: engines (form x thread split) and candidates (engine x batching).

The search goes in rounds so that it stays affordable: every form as it comes, then thread splits,
then budgets and length policies of the best ones only. Pure; knows no model and no process.

Which candidate wins for which purpose, and why each of the others lost: a pure function.

Only candidates within the loss that may be chosen by itself, whose outputs do not depend on batch
mates, take part. Bulk goes by throughput, queries by the median of a lone one; near ties go to the
one that takes less memory. A second loaded encoder must earn its memory by more than 15 %.

What an interrupted search had measured, so that the next one goes on from there.

One JSON file a model under ``ONDOL_HOME/tune``; it counts only for the same key and the same plan.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ondol.core.errors import GateFailed
from ondol.models.profile import Chosen, LengthPolicy, ProfileKey, Purpose

Round = Literal["forms", "threads", "budgets"]
ROUNDS: tuple[Round, ...] = ("forms", "threads", "budgets")

DEFAULT_BUDGET = 2048
BUDGETS = (512, 1024, 2048, 4096)

SERVED_POLICIES: tuple[LengthPolicy, ...] = ("nearest",)
"""What the engine's scheduler does; other policies are measured to show what that brings."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """A loaded form: ``streams`` encoders side by side, each with ``threads`` threads."""

    form: str
    threads: int
    streams: int = 1

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.form}, {f'{self.streams} x ' if self.streams > 1 else ''}{threads}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine and how its batches are made; ``token_budget`` bounds one batch."""

    engine: EngineSettings
    token_budget: int = DEFAULT_BUDGET
    policy: LengthPolicy = "nearest"

    @property
    def form(self) -> str:
        return self.engine.form

    def __str__(self) -> str:
        return f"{self.engine}, {self.token_budget} tokens, {self.policy}"

    def as_chosen(self) -> Chosen:
        """Return the candidate as the profile has it."""
        return Chosen(
            form=self.engine.form,
            threads=self.engine.threads,
            token_budget=self.token_budget,
            policy=self.policy,
            streams=self.engine.streams,
        )


def form_round(forms: Sequence[str], *, cores: int) -> list[Candidate]:
    """Return every form with all cores and the default batching."""
    return [Candidate(EngineSettings(form, cores)) for form in dict.fromkeys(forms)]


def thread_round(
    engines: Sequence[EngineSettings], *, cores: int, streams: bool = False
) -> list[Candidate]:
    """Return the engines again, and each with one thread, and (``streams``) as two half ones."""
    found: list[Candidate] = []
    for engine in engines:
        splits = [engine, EngineSettings(engine.form, 1)]
        if streams and cores >= 2:
            splits.append(EngineSettings(engine.form, max(1, cores // 2), streams=2))
        found += [Candidate(split) for split in dict.fromkeys(splits)]
    return list(dict.fromkeys(found)) if cores > 1 else []


def budget_round(engines: Sequence[EngineSettings]) -> list[Candidate]:
    """Return the engines with every token budget, smallest first, and with batches as they come."""
    return [
        candidate
        for engine in dict.fromkeys(engines)
        for candidate in (
            *(Candidate(engine, budget) for budget in BUDGETS),
            Candidate(engine, policy="arrival"),
        )
    ]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. Memory in MB (10^6 bytes); energy ``None`` where it cannot be read."""

    texts_per_second: float
    tokens_per_second: float
    p50_ms: float
    p99_ms: float
    peak_rss_mb: float
    steady_rss_mb: float
    load_seconds: float
    joules_per_1000_texts: float | None = None


@dataclass(frozen=True, slots=True)
class MeasuredForm:
    """A candidate after its measurement: ``figures`` and ``loss``, or ``failure`` in one sentence.

    ``fidelity`` holds the gate's figures as JSON.
    """

    candidate: Candidate
    figures: Figures | None = None
    loss: float | None = None
    batch_invariant: bool = True
    fidelity: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""

    def eligible(self, max_loss: float) -> bool:
        """Whether it may be chosen by itself: measured, close enough, free of batch mates, served."""
        return (
            self.figures is not None
            and self.candidate.policy in SERVED_POLICIES
            and self.loss is not None
            and self.loss <= max_loss
            and self.batch_invariant
        )

    def as_row(self) -> dict[str, Any]:
        """Return this as one flat row of JSON."""
        candidate = self.candidate
        row: dict[str, Any] = {
            **asdict(candidate.engine),
            "token_budget": candidate.token_budget,
            "policy": candidate.policy,
            "loss": self.loss,
            "batch_invariant": self.batch_invariant,
        }
        row |= asdict(self.figures) if self.figures else {"failure": self.failure}
        return {**row, "fidelity": dict(self.fidelity)}


def from_row(row: Mapping[str, Any]) -> MeasuredForm:
    """Return what ``as_row`` wrote; raises ``KeyError`` or ``TypeError`` where it did not."""
    engine = EngineSettings(row["form"], row["threads"], row["streams"])
    figures = None
    if "failure" not in row:
        figures = Figures(**{name: row[name] for name in Figures.__slots__})
    return MeasuredForm(
        candidate=Candidate(engine, row["token_budget"], row["policy"]),
        figures=figures,
        loss=row["loss"],
        batch_invariant=row["batch_invariant"],
        fidelity=row["fidelity"],
        failure=row.get("failure", ""),
    )


TIE = 0.05
SECOND_ENGINE_GAIN = 0.15


@dataclass(frozen=True, slots=True)
class FormChoiceResult:
    """The winners by purpose, and one sentence on every candidate."""

    winners: dict[Purpose, MeasuredForm]
    verdicts: dict[Candidate, str]


def choose(measured: Sequence[MeasuredForm], *, max_loss: float) -> FormChoiceResult:
    """Return the winners among ``measured``. Raises ``GateFailed`` when none may be chosen."""
    able = [one for one in measured if one.eligible(max_loss)]
    if not able:
        reasons = "; ".join(f"{one.candidate}: {_unable(one, max_loss)}" for one in measured)
        raise GateFailed(
            f"no form within a loss of {max_loss:.2%}: {reasons or 'nothing was measured'}",
            hint="raise fidelity.default_max_loss, or name a form with models.form",
        )
    bulk, query = _fastest(able, _throughput), _fastest(able, _quickness)
    if bulk.candidate.engine != query.candidate.engine:
        bulk, query = _shared_or_two(able, bulk, query)
    else:
        query = bulk  # one encoder, one queue, one budget
    winners: dict[Purpose, MeasuredForm] = {"query": query, "bulk": bulk}
    verdicts = {one.candidate: _verdict(one, winners, max_loss) for one in measured}
    return FormChoiceResult(winners, verdicts)


def leaders(
    measured: Sequence[MeasuredForm], *, max_loss: float, count: int
) -> list[EngineSettings]:
    """Return the engines worth another round: the best ``count`` in bulk, and the quickest."""
    able = [one for one in measured if one.eligible(max_loss)]
    by_bulk = sorted(able, key=_throughput, reverse=True)
    engines = list(dict.fromkeys(one.candidate.engine for one in by_bulk))[:count]
    if able:
        engines.append(max(able, key=_quickness).candidate.engine)
    return list(dict.fromkeys(engines))


def _shared_or_two(
    able: Sequence[MeasuredForm], bulk: MeasuredForm, query: MeasuredForm
) -> tuple[MeasuredForm, MeasuredForm]:
    """Return both winners, or one that does both where two would gain too little."""

    def together(engine: EngineSettings) -> float:
        best = _of(able, engine)
        return _throughput(best) / _throughput(bulk) * (_quickness(best) / _quickness(query))

    engines = dict.fromkeys(one.candidate.engine for one in able)
    shared = _of(able, max(engines, key=together))
    gain = max(_throughput(bulk) / _throughput(shared), _quickness(query) / _quickness(shared))
    if gain > 1 + SECOND_ENGINE_GAIN:
        return bulk, _of(able, query.candidate.engine)
    return shared, shared


def _of(able: Sequence[MeasuredForm], engine: EngineSettings) -> MeasuredForm:
    """Return the engine's best batching."""
    return _fastest([one for one in able if one.candidate.engine == engine], _throughput)


def _fastest(able: Sequence[MeasuredForm], speed: Callable[[MeasuredForm], float]) -> MeasuredForm:
    best = max(speed(one) for one in able)
    near = [one for one in able if speed(one) >= best * (1 - TIE)]
    return min(near, key=lambda one: (_figures(one).peak_rss_mb, -speed(one)))


def _verdict(one: MeasuredForm, winners: dict[Purpose, MeasuredForm], max_loss: float) -> str:
    won = [purpose for purpose, winner in winners.items() if winner.candidate == one.candidate]
    if won:
        return f"chosen for {' and '.join(won)}"
    if not one.eligible(max_loss):
        return _unable(one, max_loss)
    return f"{_against_bulk(one, winners['bulk'])}; {_against_query(one, winners['query'])}"


def _unable(one: MeasuredForm, max_loss: float) -> str:
    if one.figures is None:
        return f"failed: {one.failure}"
    if one.loss is None:
        return "its fidelity was not measured"
    if one.loss > max_loss:
        return f"loses {one.loss:.2%}, {max_loss:.2%} is allowed"
    if one.candidate.policy not in SERVED_POLICIES:
        return "for comparison only: the engine batches by nearest length"
    return f"its outputs depend on batch mates (cosine {one.fidelity.get('batch_mates', 0):.4f})"


def _against_bulk(one: MeasuredForm, winner: MeasuredForm) -> str:
    ratio = _throughput(one) / _throughput(winner)
    more = _figures(one).peak_rss_mb - _figures(winner).peak_rss_mb
    if ratio >= 1 - TIE and more > 0:
        return f"bulk: as fast within {TIE:.0%}, but {more:.0f} MB more"
    return f"bulk: {ratio:.2f} of the winner's throughput"


def _against_query(one: MeasuredForm, winner: MeasuredForm) -> str:
    return f"query: p50 {_figures(one).p50_ms:.2f} ms, the winner's {_figures(winner).p50_ms:.2f}"


def _throughput(one: MeasuredForm) -> float:
    return _figures(one).texts_per_second


def _quickness(one: MeasuredForm) -> float:
    return 1000.0 / max(_figures(one).p50_ms, 1e-6)


def _figures(one: MeasuredForm) -> Figures:
    if one.figures is None:
        raise ValueError(f"{one.candidate} was not measured")
    return one.figures


class SearchState:
    """The rounds so far. ``plan`` is what else must be the same: texts, repeats, quickness."""

    def __init__(self, path: Path, *, key: ProfileKey, plan: str) -> None:
        self._path = path
        self._head: dict[str, Any] = {"key": asdict(key), "plan": plan}
        self._rounds: dict[str, dict[Candidate, MeasuredForm]] = _read(path, self._head)

    @property
    def count(self) -> int:
        """How many measurements there are."""
        return sum(len(found) for found in self._rounds.values())

    def known(self, name: Round) -> Mapping[Candidate, MeasuredForm]:
        """Return what the round has measured."""
        return self._rounds.get(name, {})

    def add(self, name: Round, one: MeasuredForm) -> None:
        """Remember a measurement, on disk too. A failure is forgotten: the next run tries again."""
        self._rounds.setdefault(name, {})[one.candidate] = one
        rounds = {
            name: [one.as_row() for one in found.values() if one.figures is not None]
            for name, found in self._rounds.items()
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.part")
        part.write_text(json.dumps({**self._head, "rounds": rounds}, ensure_ascii=False), "utf-8")
        os.replace(part, self._path)

    def discard(self) -> None:
        """Remove the file: the search has ended."""
        self._path.unlink(missing_ok=True)


def _read(path: Path, head: Mapping[str, Any]) -> dict[str, dict[Candidate, MeasuredForm]]:
    try:
        data = json.loads(path.read_text("utf-8"))
        if any(data[name] != value for name, value in head.items()):
            return {}
        return {
            name: {one.candidate: one for one in map(from_row, rows)}
            for name, rows in data["rounds"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


LEADERS = 2


class Measurer(Protocol):
    """Measures candidates side by side and yields each as soon as its figures stand."""

    def measure(self, candidates: Sequence[Candidate]) -> Iterator[MeasuredForm]: ...


def search(
    forms: Sequence[str],
    *,
    cores: int,
    measurer: Measurer,
    state: SearchState,
    max_loss: float,
    quick: bool = False,
    streams: bool = False,
) -> list[MeasuredForm]:
    """Return every candidate with its latest figures; ``quick`` stops after the forms.

    What ``state`` knows already is not measured again. An interruption loses the group under way.
    """
    found: dict[Candidate, MeasuredForm] = {}
    _play("forms", form_round(forms, cores=cores), measurer, state, found)
    if quick:
        return list(found.values())
    engines = leaders(list(found.values()), max_loss=max_loss, count=LEADERS)
    splits = thread_round(engines, cores=cores, streams=streams)
    _play("threads", splits, measurer, state, found)
    engines = leaders(list(found.values()), max_loss=max_loss, count=LEADERS)
    _play("budgets", budget_round(engines), measurer, state, found)
    return list(found.values())


def _play(
    name: Round,
    candidates: Sequence[Candidate],
    measurer: Measurer,
    state: SearchState,
    found: dict[Candidate, MeasuredForm],
) -> None:
    known = dict(state.known(name))
    left = [candidate for candidate in candidates if candidate not in known]
    if left:
        for one in measurer.measure(left):
            state.add(name, one)
            known[one.candidate] = one
    found.update({c: known[c] for c in candidates if c in known})
