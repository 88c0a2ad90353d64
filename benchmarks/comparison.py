"""Runs contestants against each other: same texts, same cores, one at a time, interleaved.

Every round runs each contestant once, beginning with another one each time; a ratio is the median
over rounds of the two contestants' times in the same round. Cosines are to one named contestant.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, environment
from contestant import Contestant, ContestantFailed, Field
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant to be: its name, what runs it, and what it is told to load.

    ``texts`` names the variant of the texts it gets (``plain`` or ``raw``, see ``Material``).
    """

    name: str
    argv: Sequence[str]
    load: Mapping[str, Any]
    texts: str = "plain"
    lone: bool = True


@dataclass(frozen=True, slots=True)
class Material:
    """What everyone runs: ``bulk`` and ``lone`` items by variant, and the reference's name.

    ``raw`` items get their role prefix from the contestant, ``plain`` ones carry it.
    """

    bulk: Mapping[str, Sequence[Any]]
    lone: Mapping[str, Mapping[str, Sequence[Any]]]
    reference: str
    rounds: int


@dataclass(slots=True)
class Result:
    """What one contestant did. ``seconds`` has one value a round, ``lone`` one a text."""

    name: str
    form: str = ""
    error: str = ""
    load_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    lone: dict[str, list[float]] = field(default_factory=dict)
    loaded_mb: float = 0.0
    peak_mb: float = 0.0
    rows: NDArray[np.float32] | None = None

    def per_second(self, count: int) -> tuple[float, float]:
        """Return the best and the median texts per second."""
        return count / min(self.seconds), count / statistics.median(self.seconds)


def ours(script: str) -> list[str]:
    """Return the command of a contestant in this environment."""
    return [sys.executable, str(HERE / script)]


def theirs(script: str, peers: Path) -> list[str]:
    """Return the command of a contestant in the peers' environment."""
    python = peers / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"no peers in {peers}: run `make peers`, or name another with --peers")
    return [str(python), str(HERE / script)]


def compare(
    entries: Sequence[Entry], material: Material, *, threads: int, scratch: Path
) -> list[Result]:
    """Run every entry; one that fails says why in ``error`` and the rest go on."""
    scratch.mkdir(parents=True, exist_ok=True)
    field_of_all = Field()
    running: list[tuple[Entry, Contestant, Result]] = []
    results: list[Result] = []
    try:
        for entry in entries:
            say(f"loading {entry.name}")
            result = Result(entry.name)
            results.append(result)
            contestant = Contestant(entry.name, entry.argv, env=_threads(threads))
            field_of_all.enter(contestant)
            try:
                _prepare(field_of_all, contestant, entry, result, material, scratch)
                running.append((entry, contestant, result))
            except ContestantFailed as error:
                result.error = str(error)
                say(f"  failed: {error}")
        for number in range(material.rounds):
            say(f"round {number + 1} of {material.rounds}")
            turn = number % len(running)
            for entry, contestant, result in running[turn:] + running[:turn]:
                _hand(field_of_all, contestant, material.bulk[entry.texts], scratch)
                result.seconds.append(float(field_of_all.call(contestant, "bulk")["seconds"]))
        for entry, contestant, result in running:
            _finish(field_of_all, contestant, entry, result, material, scratch)
    finally:
        field_of_all.close()
    return results


def ratio(result: Result, baseline: Result) -> float:
    """Return how many times as fast as ``baseline`` it was: the median over the rounds."""
    if not baseline.seconds:
        raise SystemExit(f"the baseline failed, so there is nothing to compare: {baseline.error}")
    pairs = zip(baseline.seconds, result.seconds, strict=True)
    return statistics.median(base / own for base, own in pairs)


def agreement(result: Result, reference: Result) -> dict[str, float]:
    """Return mean, first percentile and least cosine of the rows to the reference's."""
    if result.rows is None or reference.rows is None:
        return {}
    same = np.sum(result.rows * reference.rows, axis=1)
    return {
        "cosine_mean": round(float(same.mean()), 5),
        "cosine_p1": round(float(np.percentile(same, 1)), 5),
        "cosine_min": round(float(same.min()), 5),
    }


def score_agreement(rows: Any, reference: Any) -> dict[str, float]:
    """Return the cosine of the 0…1 scores, the logits' correlation, Kendall's τ, top-1 agreement."""
    own, other = rows.ravel().astype(float), reference.ravel().astype(float)
    a, b = 1 / (1 + np.exp(-own)), 1 / (1 + np.exp(-other))
    upper = np.triu_indices(len(own), 1)
    order = np.sign(own[:, None] - own)[upper] * np.sign(other[:, None] - other)[upper]
    return {
        "cosine": round(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), 5),
        "correlation": round(float(np.corrcoef(own, other)[0, 1]), 5),
        "kendall": round(float(order.mean()), 4),
        "top_1": float(own.argmax() == other.argmax()),
    }


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50 and p99 in ms."""
    p50, p99 = np.percentile(np.asarray(seconds) * 1e3, (50, 99))
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def pin(cores: int) -> int:
    """Keep this process and all its children on the first ``cores`` of its cores (0: all)."""
    here = sorted(os.sched_getaffinity(0))
    if cores:
        os.sched_setaffinity(0, here[:cores])
    return min(cores, len(here)) or len(here)


def scratch_of(peers: Path) -> Path:
    """Return where folders for peers and other large files are kept between runs."""
    return peers / "models"


def default_peers() -> Path:
    """Return the peers' environment that ``make peers`` builds, or ``PEERS``."""
    return Path(os.environ.get("PEERS", ROOT / ".peers"))


def say(line: str) -> None:
    """Print progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def _prepare(
    everyone: Field,
    contestant: Contestant,
    entry: Entry,
    result: Result,
    material: Material,
    scratch: Path,
) -> None:
    """Load, and run the bulk items once: warm-up, rows and memory are all taken here."""
    loaded = everyone.call(contestant, "load", **entry.load)
    result.form = str(loaded.get("form", ""))
    result.load_seconds = float(loaded["seconds"])
    result.loaded_mb = float(loaded["rss_mb"])
    _hand(everyone, contestant, material.bulk[entry.texts], scratch)
    everyone.call(contestant, "bulk")
    rows = scratch / "rows.npy"
    everyone.call(contestant, "save", path=str(rows))
    result.rows = np.load(rows)


def _finish(
    everyone: Field,
    contestant: Contestant,
    entry: Entry,
    result: Result,
    material: Material,
    scratch: Path,
) -> None:
    result.peak_mb = float(everyone.call(contestant, "memory")["peak_mb"])
    if not entry.lone:
        return
    for name, variants in material.lone.items():
        items = variants[entry.texts]
        _hand(everyone, contestant, items[:5], scratch)
        everyone.call(contestant, "lone")
        _hand(everyone, contestant, items, scratch)
        result.lone[name] = everyone.call(contestant, "lone")["seconds"]


def _hand(everyone: Field, contestant: Contestant, items: Sequence[Any], scratch: Path) -> None:
    path = scratch / "items.json"
    path.write_text(json.dumps(list(items)), "utf-8")
    everyone.call(contestant, "texts", path=str(path))


def _threads(threads: int) -> dict[str, str]:
    """Return an environment in which no library takes more threads than it is given."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return {**environment(), **{name: str(threads) for name in names}}
