"""Ingest of the shared statutes, precedents and PDFs: speed, memory, and ``kill -9`` in the middle.

The undisturbed run is the baseline: after three kills and a last run the stored state must be the
same, document by document and chunk by chunk. Run: ``python benchmarks/ingest.py [--kills N]``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import command, data_set, environment, report, table, working_home

from ondol.app.store_assembly import open_documents
from ondol.core.clock import SystemClock
from ondol.store.documents import DocumentStore
from ondol.store.records import StoredDocument


def measured(home: Path, collection: str, *paths: Path) -> dict[str, Any]:
    """Ingest to the end; return the report with peak memory in MB (parent and its children)."""
    process = subprocess.Popen(
        command("ingest", *map(str, paths), "-c", collection, "--json"),
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    out = process.stdout.read() if process.stdout else b""
    _, _, usage = os.wait4(process.pid, 0)
    result: dict[str, Any] = json.loads(out)
    result["peak_rss_mb"] = round(usage.ru_maxrss / 1024)
    return result


def killed(home: Path, collection: str, after: float, *paths: Path) -> None:
    """Ingest and ``kill -9`` the process after ``after`` seconds."""
    process = subprocess.Popen(
        command("ingest", *map(str, paths), "-c", collection),
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def state(home: Path) -> dict[str, str]:
    """Return a digest per document over its text, chunks and vectors."""
    found: dict[str, str] = {}
    with open_documents(home, clock=SystemClock()) as store:
        if not store.check(deep=True).ok:
            raise SystemExit(f"{home}: {store.check(deep=True)}")
        names = {c.name: [d.document for d in listed(store, c.name)] for c in store.collections()}
        texts = {(c, n): store.document(c, n).text for c, all_ in names.items() for n in all_}
    with sqlite3.connect(home / "ondol.db") as db:
        for (collection, name), text in texts.items():
            digest = hashlib.sha256(text.encode())
            for row in db.execute(
                "select k.start, k.stop, k.page, k.heading, k.vector from chunks k join documents d "
                "on d.id = k.document_id join collections c on c.id = d.collection_id "
                "where c.name = ? and d.name = ? order by k.start, k.stop",
                (collection, name),
            ):
                digest.update(repr(row).encode())
            found[f"{collection}/{name}"] = digest.hexdigest()
    return found


def listed(store: DocumentStore, collection: str) -> Iterator[StoredDocument]:
    """Yield every document of a collection, page by page."""
    after: str | None = None
    while page := store.documents(collection, limit=1000, after=after):
        yield from page
        after = page[-1].document


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    laws = [data_set(name) / "corpus.jsonl" for name in ("ko_law_statutes", "ko_law_precedents")]
    pdfs = data_set("pdfs")
    plain = working_home("ingest-plain")
    records = measured(plain, "laws", *laws)
    again = measured(plain, "laws", *laws)
    files = measured(plain, "pdfs", *sorted(pdfs.glob("*.pdf")))
    with sqlite3.connect(plain / "ondol.db") as db:
        (pages,) = db.execute(
            "select sum(json_array_length(pages)) from documents where media_type = 'application/pdf'"
        ).fetchone()
    disturbed = working_home("ingest-killed")
    chance = random.Random(options.seed)
    moments = [chance.uniform(0.15, 0.6) * records["seconds"] for _ in range(options.kills)]
    for moment in moments:
        killed(disturbed, "laws", moment, *laws)
        with sqlite3.connect(disturbed / "ondol.db") as db:
            print(
                "killed; stored so far:", db.execute("select count(*) from documents").fetchone()[0]
            )
    measured(disturbed, "laws", *laws)
    measured(disturbed, "pdfs", *sorted(pdfs.glob("*.pdf")))
    before, after = state(plain), state(disturbed)
    taken = records["added"]
    table(
        ("what", "documents", "chunks", "failed", "seconds", "documents/s", "peak MB"),
        [
            (
                "records",
                taken,
                records["chunks"],
                len(records["failed"]),
                round(records["seconds"], 1),
                round(taken / records["seconds"], 1),
                records["peak_rss_mb"],
            ),
            (
                "records again",
                again["unchanged"],
                again["chunks"],
                len(again["failed"]),
                round(again["seconds"], 1),
                round(again["unchanged"] / again["seconds"], 1),
                again["peak_rss_mb"],
            ),
            (
                f"pdfs ({pages} pages)",
                files["added"],
                files["chunks"],
                len(files["failed"]),
                round(files["seconds"], 1),
                round(files["added"] / files["seconds"], 2),
                files["peak_rss_mb"],
            ),
        ],
    )
    for failure in files["failed"]:
        print(f"  {Path(failure['source']).name}: {failure['code']}")
    report(
        {
            "records_per_second": taken / records["seconds"],
            "chunks_per_second": records["chunks"] / records["seconds"],
            "records_peak_rss_mb": records["peak_rss_mb"],
            "unchanged_chunks_embedded": again["chunks"],
            "unchanged_seconds": again["seconds"],
            "pdf_pages_per_second": pages / files["seconds"],
            "pdf_pages": pages,
            "pdf_files": files["added"],
            "pdf_failed": {Path(f["source"]).name: f["code"] for f in files["failed"]},
            "pdf_peak_rss_mb": files["peak_rss_mb"],
            "kills": options.kills,
            "same_state_after_kills": before == after,
            "documents": len(before),
        },
        settings={"seed": options.seed},
    )


if __name__ == "__main__":
    main()
