"""Ingest of hundreds of PDFs: pages/s, memory of all processes, kills in the middle, a second time.

The PDFs are the shared ones repeated with altered text (``altered_pdfs.py``), the unreadable ones
among them as they are. The run is killed with ``kill -9`` at even shares of the way and started
again; then everything is ingested once more, unchanged. A sample is ingested undisturbed into a
second home: document by document its stored state must be the same. The embedding cache is off, so
that every chunk is embedded. Run: ``python benchmarks/many_pdfs.py [--count 900] [--kills 3]``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from altered_pdfs import altered_pdfs
from common import command, data_set, environment, report, table, working_home
from ingest import state
from process_tree import Peak, Watch

COLLECTION = "pdfs"
KINDS = ("ko_", "en_", "cjk_japanese", "huge_619p")
_POLL_SECONDS = 0.2
_LATE_SECONDS = 1.0
_TIMELINE = 8


def stored(home: Path) -> int:
    """Return how many documents are stored; none before there is a database."""
    try:
        with sqlite3.connect(f"file:{home / 'ondol.db'}?mode=ro", uri=True) as db:
            return int(db.execute("select count(*) from documents").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def ingest(
    home: Path, paths: list[Path], peak: Peak, *, kill_at: int = 0, late: float = 0.0
) -> dict[str, Any] | None:
    """Ingest; return the report, or ``None`` when killed ``late`` seconds after ``kill_at`` documents.

    The report carries the wall seconds of the whole command and the progress lines it wrote.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command("ingest", *map(str, paths), "-c", COLLECTION, "--json"),
            env={**environment(home), "ONDOL_CACHE_EMBEDDINGS": "off"},
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        with Watch(process.pid, peak):
            while process.poll() is None:
                if kill_at and stored(home) >= kill_at:
                    time.sleep(late)
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    return None
                time.sleep(_POLL_SECONDS)
        out.seek(0)
        err.seek(0)
        result: dict[str, Any] = json.loads(out.read())
        result["wall_seconds"] = time.monotonic() - started
        result["progress_lines"] = err.read().count(b"%)")
        return result


def finished(home: Path, paths: list[Path], peak: Peak) -> dict[str, Any]:
    """Ingest to the end and return the report."""
    result = ingest(home, paths, peak)
    if result is None:
        raise SystemExit("the last run was killed")
    return result


def pages_of(home: Path) -> int:
    """Return how many pages the stored documents have."""
    with sqlite3.connect(home / "ondol.db") as db:
        return int(db.execute("select sum(json_array_length(pages)) from documents").fetchone()[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=900)
    parser.add_argument("--pages", type=int, default=4, help="most pages of one copy")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--compare", type=int, default=30, help="copies ingested undisturbed too")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    shared = sorted(data_set("pdfs").glob("*.pdf"))
    sources = [path for path in shared if path.name.startswith(KINDS)]
    others = [path for path in shared if path not in sources]
    folder = Path(tempfile.mkdtemp(prefix="ondol-pdfs-"))
    try:
        copies = altered_pdfs(
            sources, folder, count=max(1, options.count - len(others)), pages=options.pages
        )
        measure(copies, others, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(copies: list[Path], others: list[Path], options: argparse.Namespace) -> None:
    """Ingest with kills, then again, then the sample undisturbed; print and report."""
    paths = sorted(copies + others)
    megabytes = sum(path.stat().st_size for path in paths) / 2**20
    print(f"{len(paths)} PDFs, {megabytes:.0f} MB, {len(others)} of them hostile or scanned")
    home, peak = working_home("many-pdfs"), Peak()
    chance = random.Random(options.seed)
    kept: list[int] = []
    started = time.monotonic()
    for kill in range(1, options.kills + 1):
        at = len(copies) * kill // (options.kills + 1)
        if ingest(home, paths, peak, kill_at=at, late=chance.uniform(0, _LATE_SECONDS)) is None:
            kept.append(stored(home))
            print(f"killed; stored so far: {kept[-1]}")
    first = finished(home, paths, peak)
    seconds = time.monotonic() - started
    again = finished(home, paths, Peak())
    pages = pages_of(home)
    with sqlite3.connect(home / "ondol.db") as db:
        chunks = int(db.execute("select count(*) from chunks").fetchone()[0])
    sample = sorted(random.Random(options.seed).sample(copies, min(options.compare, len(copies))))
    calm = working_home("many-pdfs-calm")
    finished(calm, sample, Peak())
    disturbed, undisturbed = state(home), state(calm)
    same = all(disturbed.get(name) == digest for name, digest in undisturbed.items())
    resumed = not kept or first["unchanged"] >= kept[-1]
    step = max(1, len(peak.samples) // _TIMELINE)
    print("MB over time:", [round(max(peak.samples[i : i + step])) for i in range(0, len(peak.samples), step)])  # fmt: skip
    table(
        ("what", "figure"),
        [
            ("documents", len(disturbed)),
            ("pages", pages),
            ("chunks", chunks),
            ("failed", len(first["failed"])),
            ("seconds, kills and restarts included", round(seconds)),
            ("pages/s", round(pages / seconds, 1)),
            ("chunks/s", round(chunks / seconds, 1)),
            ("peak MB, all processes", round(peak.tree)),
            ("peak MB, parent", round(peak.root)),
            ("peak MB, children", round(peak.children)),
            ("again: embedded chunks", again["chunks"]),
            ("again: seconds", round(again["seconds"], 1)),
            ("again: seconds with start-up", round(again["wall_seconds"], 1)),
            ("kept through the kills", resumed),
            (f"same state as undisturbed ({len(undisturbed)} documents)", same),
        ],
    )
    report(
        {
            "pdfs": len(paths),
            "documents": len(disturbed),
            "pages": pages,
            "chunks": chunks,
            "failed": len(first["failed"]),
            "seconds": seconds,
            "pages_per_second": pages / seconds,
            "chunks_per_second": chunks / seconds,
            "peak_pss_mb": peak.tree,
            "peak_parent_mb": peak.root,
            "peak_children_mb": peak.children,
            "unchanged_chunks_embedded": again["chunks"],
            "unchanged_documents": again["unchanged"],
            "unchanged_seconds": again["seconds"],
            "unchanged_wall_seconds": again["wall_seconds"],
            "progress_lines": first["progress_lines"],
            "kills": len(kept),
            "kept_through_kills": resumed,
            "compared": len(undisturbed),
            "same_state_after_kills": same,
        },
        settings={"count": options.count, "pages": options.pages, "seed": options.seed},
    )


if __name__ == "__main__":
    main()
