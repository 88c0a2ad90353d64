"""``kill -9`` at random points of random work: nothing reported is lost, and nothing is orphaned.

Six kills on every run; ``ONDOL_TEST_KILLS=500`` for a long one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tests.store.random_writer import applied, keys_of, opened, text_of

from ondol.store.documents import DocumentStore

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("ONDOL_TEST_KILLS", "6"))
MOST_OPERATIONS = 15
LATEST_SECONDS = 0.006

Model = dict[str, dict[str, dict[str, Any]]]


class Family:
    """The process whose forks are killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.random_writer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "OPENBLAS_NUM_THREADS": "1"},
        )

    def work(self, home: Path, seed: int, chance: random.Random) -> list[dict[str, Any]]:
        """Let a fork work, kill it at a random moment, and return everything that it said."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{home} {seed}\n".encode())
        self._process.stdin.flush()
        said: list[dict[str, Any]] = []
        victim = 0
        after = chance.randint(1, MOST_OPERATIONS)
        while not victim or sum("begin" in line for line in said) < after:
            line = self._line()
            victim = line.get("process", victim)
            said.append(line)
        # The moment falls anywhere in the operation under way, not only at its beginning.
        select.select([], [], [], chance.uniform(0, LATEST_SECONDS))
        os.kill(victim, signal.SIGKILL)
        while "ended" not in said[-1]:
            said.append(self._line())
        return said

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line: dict[str, Any] = json.loads(self._process.stdout.readline())
        return line


@pytest.fixture
def family() -> Iterator[Family]:
    started = Family()
    with contextlib.closing(started):
        yield started


def stands(store: DocumentStore, model: Model) -> bool:
    """Whether the store holds just the documents of ``model``, each under its last digest."""
    held = {found.name: store.digests(found.name) for found in store.collections()}
    wanted = {
        name: {source: one["digest"] for source, one in documents.items()}
        for name, documents in model.items()
        if documents or name in held
    }
    return {name: digests for name, digests in held.items() if digests or name in wanted} == wanted


def prove_whole(store: DocumentStore, home: Path, model: Model) -> None:
    """Check texts, chunks, vectors and look-up keys of ``model``, and count every row there is."""
    report = store.check(deep=True)
    assert report.ok, str(report)
    chunks = 0
    for name, documents in model.items():
        names = store.names(name)
        here: set[int] = set()
        for source, one in documents.items():
            found = store.document(name, names[source])
            assert found.text == text_of(one["number"], one["size"])
            for key in keys_of(one["number"])[1:]:
                hits = {chunk for chunk, _ in store.search_lexical(name, [key], limit=10_000)}
                assert len(hits) == found.chunks, (source, key)
                here |= hits
            chunks += found.chunks
        if name in {one.name for one in store.collections()}:
            common = store.search_lexical(name, ["공통"], limit=10_000)
            assert {chunk for chunk, _ in common} == here
    assert sum(held.rows for held in store.mirror_vectors()) == chunks
    with sqlite3.connect(home / "ondol.db") as db:
        (rows,) = db.execute("SELECT count(*) FROM chunks").fetchone()
        (texts,) = db.execute("SELECT count(DISTINCT document_id) FROM texts").fetchone()
        tables = db.execute("SELECT name FROM sqlite_master WHERE name GLOB 'lexical_*_docsize'")
        tokens = sum(
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for (table,) in tables
        )
    db.close()
    assert (rows, tokens) == (chunks, chunks)
    assert texts == sum(map(len, model.values()))


def test_random_work_survives_random_kills(tmp_path: Path, family: Family) -> None:
    model: Model = {}
    chance = random.Random(5)
    unsure = 0
    for seed in range(KILLS):
        said = family.work(tmp_path, seed, chance)
        done = {line["done"] for line in said if "done" in line}
        plans = [line["begin"] for line in said if "begin" in line]
        for plan in plans:
            if plan["number"] in done:
                applied(plan, model)
        last = plans[-1]
        with opened(tmp_path) as store:
            if last["number"] not in done:
                unsure += 1
                maybe = deepcopy(model)
                applied(last, maybe)
                if not stands(store, model):
                    model = maybe
            assert stands(store, model), (seed, last)
            prove_whole(store, tmp_path, model)
    assert unsure, "no kill fell into an operation"
