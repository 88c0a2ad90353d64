"""Tunes one generator: measures, chooses, and writes the profile.

Does nothing where the profile's key is this machine's own. Every measurement is kept under
``ONDOL_HOME/tune`` as soon as it is made, and an interrupted tuning goes on from there.

Measures one way to run a generator: started, asked, timed, closed.

Times are the engine's own where it gives them, and the best of some repeats, which other work on
the machine disturbed least. Greedy answers are compared with the reference's. Chooses nothing.

What ``ondol tune`` tries of a generator, and how it chooses. Pure; knows no model and no process.

The search goes in rounds: every form as it comes, then fewer threads and other chunks of the best.
Prefill and decode are measured apart, because lanes weigh them differently: ``chat`` wants a first
token soon and short waits between chunks, ``batch`` the most tokens a second.
"""

from __future__ import annotations

import json
import os
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from ondol.backends.protocols import Generator
from ondol.core.cancel import CancelToken
from ondol.core.clock import Clock
from ondol.core.errors import GateFailed, OndolError
from ondol.core.machine import Machine
from ondol.core.settings.sections import GenerationSettings
from ondol.core.types import DoneEvent, GenerationRequest, Message, OnNote, TokenEvent, Usage
from ondol.lab.tune.tuning import Tuned, TuneOptions
from ondol.models.generator_form import (
    CHUNK_SECONDS,
    SMALLEST,
    GeneratorForm,
    chunk_tokens,
    estimated_rate,
    generator_key,
)
from ondol.models.library import ModelFiles
from ondol.models.profile import (
    Chosen,
    ModelProfile,
    ProfileKey,
    Purpose,
    read_profile,
    write_profile,
)
from ondol.runtime.generation.generator_assembly import (
    GeneratorBuild,
    builds_folder,
    make_generator,
    native_builds,
    offered_forms,
)

GeneratorPurpose = Literal["chat", "batch"]
LEAST_AGREEMENT = 0.5
"""Greedy texts that begin like the reference's: near ties fall otherwise with other arithmetic, so
whole agreement cannot be asked for; weights that differ agree far less."""

_CHAT = (400, 100)
_BATCH = (300, 100)
"""Prompt and answer tokens of a typical request of either shape."""
_PATIENCE = 1.5
"""How far a chunk may exceed ``CHUNK_SECONDS``: speeds vary that much on a shared machine."""
_BATCH_CHUNKS = (128, 512)


@dataclass(frozen=True, slots=True)
class GeneratorCandidate:
    """A way to run a generator; ``token_budget`` is its prefill chunk."""

    form: str
    threads: int
    token_budget: int

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.form}, {threads}, chunks of {self.token_budget}"


@dataclass(frozen=True, slots=True)
class GeneratorFigures:
    """What was measured: tokens a second, memory in MB (10^6 bytes), ``agreement`` as a share.

    ``streams_tokens_per_second`` is decoding of all slots together.
    """

    prefill_tokens_per_second: float
    prefill_short_tokens_per_second: float
    decode_tokens_per_second: float
    streams_tokens_per_second: float
    peak_rss_mb: float
    load_seconds: float
    agreement: float

    @property
    def chat_seconds(self) -> float:
        """How long a typical chat request takes alone."""
        prompt, answer = _CHAT
        return prompt / self.prefill_tokens_per_second + answer / self.decode_tokens_per_second

    @property
    def batch_rate(self) -> float:
        """Tokens a second, prompt and answer, with every slot busy."""
        prompt, answer = _BATCH
        seconds = prompt / self.prefill_tokens_per_second + answer / self.streams_tokens_per_second
        return (prompt + answer) / seconds


@dataclass(frozen=True, slots=True)
class MeasuredGenerator:
    """A candidate after its measurement: ``figures``, or ``failure`` in one sentence."""

    candidate: GeneratorCandidate
    figures: GeneratorFigures | None = None
    failure: str = ""

    @property
    def eligible(self) -> bool:
        """Whether it may be chosen by itself."""
        return self.figures is not None and self.figures.agreement >= LEAST_AGREEMENT

    def as_row(self) -> dict[str, Any]:
        """Return this as one flat row of JSON."""
        figures = asdict(self.figures) if self.figures else {"failure": self.failure}
        return {**asdict(self.candidate), **figures}


def from_row(row: Mapping[str, Any]) -> MeasuredGenerator:
    """Return what ``as_row`` wrote; raises ``KeyError`` or ``TypeError`` where it did not."""
    names = GeneratorFigures.__slots__
    return MeasuredGenerator(
        GeneratorCandidate(row["form"], int(row["threads"]), int(row["token_budget"])),
        figures=None if "failure" in row else GeneratorFigures(**{n: row[n] for n in names}),
        failure=row.get("failure", ""),
    )


def form_round(forms: Sequence[str], *, cores: int, chunk: int) -> list[GeneratorCandidate]:
    """Return every form with all cores and the estimated chunk, the reference first."""
    return [GeneratorCandidate(form, cores, chunk) for form in dict.fromkeys(forms)]


def detail_round(measured: Sequence[MeasuredGenerator], *, cores: int) -> list[GeneratorCandidate]:
    """Return the best form of each purpose with fewer threads, and with other chunks."""
    found: list[GeneratorCandidate] = []
    for winner in {_chat_winner(measured), _batch_winner(measured)} - {None}:
        if winner is None or winner.figures is None:
            continue
        form = winner.candidate.form
        fits = chunk_tokens(winner.figures.prefill_tokens_per_second)
        fewer = {max(1, cores // 2), max(1, cores - 1)} - {cores}
        found += [GeneratorCandidate(form, n, winner.candidate.token_budget) for n in fewer]
        found += [GeneratorCandidate(form, cores, chunk) for chunk in (fits, *_BATCH_CHUNKS)]
    known = {one.candidate for one in measured}
    return [one for one in dict.fromkeys(found) if one not in known]


def choose_generators(
    measured: Sequence[MeasuredGenerator], *, slots: int
) -> dict[Purpose, Chosen]:
    """Return the choice for each purpose; raises ``GateFailed`` when nothing may be chosen."""
    winners = {"chat": _chat_winner(measured), "batch": _batch_winner(measured)}
    chosen: dict[Purpose, Chosen] = {}
    for purpose in ("chat", "batch"):
        winner = winners[purpose]
        if winner is None:
            raise GateFailed(
                f"no form of the generator ran and agreed with the reference in "
                f"{LEAST_AGREEMENT:.0%} of its text",
                hint="see `ondol tune --json` for why; name a form with generation.form",
            )
        one = winner.candidate
        chosen[purpose] = Chosen(one.form, one.threads, one.token_budget, streams=slots)
    return chosen


def verdict(one: MeasuredGenerator, chosen: Mapping[Purpose, Chosen]) -> str:
    """Return in a few words how ``one`` ended."""
    mine = one.candidate
    won = [
        purpose
        for purpose, best in chosen.items()
        if (best.form, best.threads, best.token_budget)
        == (mine.form, mine.threads, mine.token_budget)
    ]
    if won:
        return f"chosen for {' and '.join(won)}"
    if one.figures is None:
        return one.failure
    return "slower" if one.eligible else "its text differs too much from the reference's"


def _chat_winner(measured: Sequence[MeasuredGenerator]) -> MeasuredGenerator | None:
    """The least time of a request among those whose chunk nobody waits for too long."""
    eligible = [one for one in measured if one.eligible]
    prompt = [one for one in eligible if _waits_little(one)] or eligible
    return min(prompt, key=lambda one: one.figures.chat_seconds if one.figures else 0, default=None)


def _batch_winner(measured: Sequence[MeasuredGenerator]) -> MeasuredGenerator | None:
    eligible = [one for one in measured if one.eligible]
    return max(eligible, key=lambda one: one.figures.batch_rate if one.figures else 0, default=None)


def _waits_little(one: MeasuredGenerator) -> bool:
    if one.figures is None:
        return False
    seconds = one.candidate.token_budget / one.figures.prefill_tokens_per_second
    return one.candidate.token_budget <= SMALLEST or seconds <= _PATIENCE * CHUNK_SECONDS


_MB = 1e6
_SENTENCE = "The tenant pays the rent on the first day of every month; see section {n}. "
_TOKENS_A_SENTENCE = 18
_QUESTIONS = (
    "Why is the sky blue?",
    "Write one sentence about a heated floor.",
    "온돌이 무엇인지 한 문장으로 설명하세요.",
    "Name the four seasons in order.",
    "What is the capital of Korea, and which river crosses it?",
    "계약서에서 임대료가 무엇을 뜻하나요?",
    "List three uses of copper.",
    "Explain what a queue is to a child.",
)


@dataclass(frozen=True, slots=True)
class Dose:
    """How much is asked: tokens of the two prompts and the answers, repeats, texts compared."""

    long: int = 700
    short: int = 64
    answer: int = 48
    repeats: int = 3
    questions: int = 8
    compared: int = 24


QUICK = Dose(long=200, answer=12, repeats=2, questions=2, compared=12)


@dataclass(slots=True)
class GeneratorMeasurer:
    """Measures candidates with ``start``; the first that runs is the reference of agreement."""

    start: Callable[[GeneratorCandidate], Generator]
    slots: int
    dose: Dose
    clock: Clock
    reference: list[list[str]] = field(default_factory=list)

    def measure(self, candidate: GeneratorCandidate) -> MeasuredGenerator:
        """Return the candidate's figures, or the failure it met."""
        try:
            before, began = _family(os.getpid()), self.clock.monotonic()
            generator = self.start(candidate)
            load = self.clock.monotonic() - began
            try:
                figures = self._figures(generator, load, before)
            finally:
                generator.close()
        except OndolError as error:
            return MeasuredGenerator(candidate, failure=error.message)
        return MeasuredGenerator(candidate, figures=figures)

    def _figures(self, generator: Generator, load: float, before: set[int]) -> GeneratorFigures:
        dose = self.dose
        _run(generator, "warm up", tokens=4)
        texts = [_run(generator, text, tokens=dose.compared)[0] for text in self._questions()]
        self.reference = self.reference or texts
        return GeneratorFigures(
            prefill_tokens_per_second=self._prefill(generator, dose.long, dose.repeats),
            prefill_short_tokens_per_second=self._prefill(generator, dose.short, dose.repeats),
            decode_tokens_per_second=max(
                _decode(_run(generator, f"Tell story {n}.", tokens=dose.answer)[1])
                for n in range(dose.repeats)
            ),
            streams_tokens_per_second=self._streams(generator),
            peak_rss_mb=sum(map(_peak_of, _family(os.getpid()) - before)) / _MB,
            load_seconds=load,
            agreement=_agreement(texts, self.reference),
        )

    def _questions(self) -> Sequence[str]:
        return _QUESTIONS[: self.dose.questions]

    def _prefill(self, generator: Generator, tokens: int, repeats: int) -> float:
        """Return prompt tokens a second; every prompt differs from its first word on."""
        rates: list[float] = []
        for n in range(repeats):
            count = max(1, tokens // _TOKENS_A_SENTENCE)
            text = "".join(_SENTENCE.format(n=f"{tokens}-{n}-{i}") for i in range(count))
            done = _run(generator, f"{n} of {tokens}. {text}", tokens=1, salt=f"{tokens}-{n}")[1]
            read = done.usage.prompt_tokens - done.usage.cached_tokens
            rates.append(read / max(done.prefill_ms, 1e-3) * 1e3)
        return max(rates)

    def _streams(self, generator: Generator) -> float:
        """Return decoded tokens a second of all slots together."""
        ends: list[DoneEvent] = []

        def work(n: int) -> None:
            try:
                ends.append(_run(generator, f"Tell story {n}.", tokens=self.dose.answer)[1])
            except OndolError as error:
                failures.append(error)

        failures: list[OndolError] = []
        threads = [threading.Thread(target=work, args=(n,)) for n in range(self.slots)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        longest = max(end.decode_ms for end in ends)
        return sum(end.usage.completion_tokens for end in ends) / max(longest, 1e-3) * 1e3


def _run(
    generator: Generator, text: str, *, tokens: int, salt: str = ""
) -> tuple[list[str], DoneEvent]:
    request = GenerationRequest([Message("user", text)], max_tokens=tokens, cache_salt=salt)
    pieces: list[str] = []
    done = DoneEvent("stop", usage=Usage())
    for event in generator.generate(request, cancel=CancelToken()):
        if isinstance(event, TokenEvent):
            pieces.append(event.text)
        elif isinstance(event, DoneEvent):
            done = event
    return pieces, done


def _decode(done: DoneEvent) -> float:
    return done.usage.completion_tokens / max(done.decode_ms, 1e-3) * 1e3


def _agreement(texts: Sequence[list[str]], reference: Sequence[list[str]]) -> float:
    """Return the mean share of characters at the beginning that are the reference's."""
    shares: list[float] = []
    for pieces, wanted in zip(texts, reference, strict=True):
        text, right = "".join(pieces), "".join(wanted)
        same = next((n for n in range(len(right)) if text[: n + 1] != right[: n + 1]), len(right))
        shares.append(same / len(right) if right else 1.0)
    return statistics.mean(shares) if shares else 1.0


def _family(pid: int) -> set[int]:
    """Return ``pid`` and the processes it and its threads have started; empty where not on Linux."""
    inner = {
        int(child)
        for page in Path(f"/proc/{pid}/task").glob("*/children")
        for child in _read(page).split()
    }
    return {pid, *(one for child in inner for one in _family(child))}


def _read(page: Path) -> str:
    try:
        return page.read_text()
    except OSError:  # it has just ended
        return ""


def _peak_of(pid: int) -> int:
    lines = _read(Path(f"/proc/{pid}/status")).splitlines()
    line = next((line for line in lines if line.startswith("VmHWM:")), "VmHWM: 0")
    return int(line.split()[1]) * 1024


class Measures(Protocol):
    """Measures one candidate after the other; ``reference`` is what the first that ran said."""

    reference: list[list[str]]

    def measure(self, candidate: GeneratorCandidate) -> MeasuredGenerator: ...


@dataclass(slots=True)
class Kept:
    """Measurements that survive an interruption; they count only under the same ``head``."""

    path: Path
    head: Mapping[str, Any]
    rows: dict[GeneratorCandidate, MeasuredGenerator] = field(default_factory=dict)
    reference: list[list[str]] = field(default_factory=list)

    def read(self) -> None:
        """Take in what an earlier run left, if it was this search."""
        try:
            data = json.loads(self.path.read_text("utf-8"))
            if data["head"] == json.loads(json.dumps(self.head)):
                found = [from_row(row) for row in data["rows"]]
                self.rows = {one.candidate: one for one in found}
                self.reference = data["reference"]
        except (OSError, ValueError, KeyError, TypeError):
            return

    def add(self, one: MeasuredGenerator) -> None:
        """Keep a measurement, on disk too; a failure is tried again the next time."""
        self.rows[one.candidate] = one
        rows = [row.as_row() for row in self.rows.values() if row.figures is not None]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.part")
        data = {"head": self.head, "reference": self.reference, "rows": rows}
        part.write_text(json.dumps(data), "utf-8")
        os.replace(part, self.path)


class GeneratorTuneService:
    """Tunes generators for ``machine`` and keeps the results under ``home``."""

    def __init__(
        self,
        home: Path,
        *,
        machine: Machine,
        settings: GenerationSettings,
        clock: Clock,
        forms: Sequence[str] | None = None,
        measurer: Measures | None = None,
    ) -> None:
        self._home = home
        self._machine = machine
        self._settings = settings
        self._clock = clock
        self._forms = offered_forms(home) if forms is None else tuple(forms)
        self._measurer = measurer

    def tune(self, files: ModelFiles, *, wish: TuneOptions, note: OnNote) -> Tuned:
        """Measure and choose; ``note`` hears what is being done. Raises ``GateFailed``."""
        builds = native_builds(self._home)
        key = generator_key(files, machine=self._machine, builds=builds)
        known = read_profile(self._home).models.get(files.entry.id)
        stale = known is None or known.key != key or (known.quick and not wish.quick)
        if known is not None and not stale and not wish.force:
            return Tuned(known, fresh=False)
        measured = self._search(files, key, wish, note)
        return Tuned(self._write(files, key, measured, wish), fresh=True)

    def steps(self, *, wish: TuneOptions) -> int:
        """Return about how many notes a tuning gives, for a progress bar."""
        return len(self._forms) + (0 if wish.quick else 6)

    def _search(
        self, files: ModelFiles, key: ProfileKey, wish: TuneOptions, note: OnNote
    ) -> list[MeasuredGenerator]:
        dose = QUICK if wish.quick else Dose()
        head = {"key": asdict(key), "dose": asdict(dose), "slots": self._settings.slots}
        kept = Kept(self._home / "tune" / f"{files.entry.id}.json", head)
        if not wish.force:
            kept.read()
        measurer = self._measurer or GeneratorMeasurer(
            start=lambda candidate: self._start(files, candidate),
            slots=self._settings.slots,
            dose=dose,
            clock=self._clock,
        )
        measurer.reference = kept.reference
        until = self._clock.monotonic() + wish.seconds if wish.quick else None
        size = files.model_path.stat().st_size
        chunk = chunk_tokens(estimated_rate(size, cores=self._machine.cores))
        first = form_round(self._forms, cores=self._machine.cores, chunk=chunk)
        measured = self._measure(first, measurer, kept, note, until)
        if not wish.quick:
            more = detail_round(measured, cores=self._machine.cores)
            measured += self._measure(more, measurer, kept, note, until)
        kept.path.unlink(missing_ok=True)
        return measured

    def _measure(
        self,
        candidates: Sequence[GeneratorCandidate],
        measurer: Measures,
        kept: Kept,
        note: OnNote,
        until: float | None,
    ) -> list[MeasuredGenerator]:
        found: list[MeasuredGenerator] = []
        for number, candidate in enumerate(candidates):
            if until is not None and number > 0 and self._clock.monotonic() > until:
                late = "there was no time left for it; run without --quick"
                found.append(MeasuredGenerator(candidate, failure=late))
                continue
            if candidate not in kept.rows or kept.rows[candidate].figures is None:
                note(str(candidate))
                one = measurer.measure(candidate)
                kept.reference = measurer.reference
                kept.add(one)
            found.append(kept.rows[candidate])
        return found

    def _start(self, files: ModelFiles, candidate: GeneratorCandidate) -> Any:
        plan = GeneratorForm(
            form=candidate.form,
            reason="being measured",
            threads=candidate.threads,
            batch_tokens=candidate.token_budget,
            prefill_rate=0.0,
        )
        settings = self._settings.model_copy(update={"adapters": (), "context_tokens": 2048})
        return make_generator(GeneratorBuild(plan, files, settings, builds_folder(self._home)))

    def _write(
        self,
        files: ModelFiles,
        key: ProfileKey,
        measured: Sequence[MeasuredGenerator],
        wish: TuneOptions,
    ) -> ModelProfile:
        chosen = choose_generators(measured, slots=self._settings.slots)
        rows = sorted(
            ({**one.as_row(), "verdict": verdict(one, chosen)} for one in measured),
            key=lambda row: -row.get("prefill_tokens_per_second", 0.0),
        )
        tuned = ModelProfile(
            model=files.entry.id,
            key=key,
            tuned=datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="seconds"),
            chosen=chosen,
            evidence=tuple(rows),
            quick=wish.quick,
        )
        write_profile(self._home, read_profile(self._home).with_model(tuned))
        return tuned
