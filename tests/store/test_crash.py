"""Real processes: killed in mid-ingest, or writing while another one reads."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from tests.store.builders import DIMENSIONS, cosine, open_store, put, stored_vectors, units

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from pathlib import Path
from tests.store.builders import filled, put
home, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = filled(home)
for number in range(first, first + count):
    put(store, f"/{number % 40}.txt", f"문서 {number} " * 20, seed=number, digest=str(number),
        tokens=["공통", f"판{number}"])
    print(number, flush=True)
store.close()
"""


def writer(home: Path, *, first: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home), str(first), str(count)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
    )


def killed_after(process: subprocess.Popen[str], lines: int) -> list[int]:
    """Let it print ``lines`` numbers, kill it at once, and return every number it had printed."""
    assert process.stdout is not None
    printed = [int(process.stdout.readline()) for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    printed += [int(line) for line in process.stdout.read().split()]
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    return printed


def test_kill_9_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    random.seed(2)
    done = -1
    for _ in range(4):
        process = writer(tmp_path, first=done + 1, count=100_000)
        done = killed_after(process, random.randint(1, 45))[-1]
        with open_store(tmp_path) as store:
            report = store.check(deep=True)
            assert report.ok, str(report)
            newest = {f"/{n % 40}.txt": n for n in range(done + 1)}
            digests = {source: int(d) for source, d in store.digests("c").items()}
            # The document after the last one reported may have been committed just before.
            ahead = f"/{(done + 1) % 40}.txt"
            for source, number in newest.items():
                assert digests[source] in ((number, done + 1) if source == ahead else (number,))
            assert set(digests) <= {*newest, ahead}
            query = np.eye(1, DIMENSIONS, dtype=np.float32)[0]
            expected = []
            for source, number in digests.items():
                text = f"문서 {number} " * 20
                assert store.document("c", source.removeprefix("/")).text == text
                rows = units(-(-len(text) // 8), number)
                expected += [cosine(row, query) for row in rows]
                assert store.search_lexical("c", [f"판{number}"], limit=1)
            held = stored_vectors(store)
            assert sorted(held.values()) == sorted(expected)


def test_a_reader_sees_what_another_process_commits(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.create_collection("c", embedder="e5", dimensions=DIMENSIONS)
        process = writer(tmp_path, first=0, count=30)
        assert process.stdout is not None
        for line in process.stdout:
            number = int(line)
            text = f"문서 {number} " * 20
            rows = units(-(-len(text) // 8), number)
            ((chunk, score),) = store.search_vectors("c", rows[2], limit=1)
            assert score > 0.99
            (row,) = store.chunks("c", [chunk])
            assert (row.document, row.start) == (f"{number}.txt", 16)
            assert store.search_lexical("c", [f"판{number}"], limit=1)
        assert process.wait() == 0
        process.stdout.close()
        assert store.check(deep=True).ok


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.create_collection("c", embedder="e5", dimensions=DIMENSIONS)
        process = writer(tmp_path, first=0, count=30)
        for number in range(100, 130):
            put(store, f"/{number}.md", seed=number)
        assert process.stdout is not None
        assert len(process.stdout.read().split()) == 30
        assert process.wait() == 0
        process.stdout.close()
        assert store.collection("c").documents == 60
        assert store.check(deep=True).ok


def test_processes_may_open_a_new_home_at_once(tmp_path: Path) -> None:
    processes = [writer(tmp_path, first=100 * n, count=2) for n in range(3)]
    for process in processes:
        assert len(process.communicate()[0].split()) == 2
        assert process.returncode == 0
    with open_store(tmp_path) as store:
        assert store.check(deep=True).ok
        assert len(store.digests("c")) == len(
            {f"/{n % 40}.txt" for n in (0, 1, 100, 101, 200, 201)}
        )
