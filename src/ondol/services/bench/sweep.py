"""``ondol bench … --sweep batch``: which token budget suits the form on this machine.

One process, budgets rising, so that each budget's first run shows its own peak memory; then all of
them in turn. The smallest budget near the best throughput is recommended: it answers sooner and
takes less memory.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from ondol.models.library import ModelFiles
from ondol.models.profile import Chosen
from ondol.services.bench.encoders import MEGABYTE, Note, Workload, bulk, load, make, rates
from ondol.services.probe.child import Probe
from ondol.services.probe.subject import Subject

BUDGETS = (256, 512, 1024, 2048, 4096, 8192)
NEAR = 0.03


def sweep(
    subject: Subject,
    files: ModelFiles | None,
    work: Workload,
    chosen: Chosen,
    *,
    repeats: int,
    note: Note,
) -> dict[str, Any]:
    """Return ``sweep`` (a row a budget) and ``recommended``. Raises ``ProbeFailed``."""
    make(subject, files, chosen.form, threads=chosen.threads, note=note)
    with tempfile.TemporaryDirectory(prefix="ondol-bench-") as folder, Probe() as probe:
        load(subject, probe, chosen)
        items = Path(folder) / "bulk.json"
        items.write_text(json.dumps(list(work.bulk)), "utf-8")
        probe.ask("items", path=str(items))
        runs: dict[int, list[dict[str, Any]]] = {budget: [] for budget in BUDGETS}
        for turn in range(repeats + 1):
            for budget in BUDGETS:
                note(f"{budget} tokens: run {turn} of {repeats}")
                runs[budget].append(bulk(probe, chosen, token_budget=budget))
    rows = [_row(budget, found) for budget, found in runs.items()]
    return {
        "model": subject.model,
        "form": chosen.form,
        "threads": chosen.threads,
        "sweep": rows,
        "recommended": recommended(rows),
        "setting": "models.token_budget",
    }


def recommended(rows: list[dict[str, Any]]) -> int:
    """Return the smallest budget whose throughput is within ``NEAR`` of the best."""
    best = max(float(row["texts_per_second"]) for row in rows)
    near = [row for row in rows if float(row["texts_per_second"]) >= best * (1 - NEAR)]
    return min(int(row["token_budget"]) for row in near)


def _row(budget: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    first, timed = runs[0], runs[1:]
    return {
        "token_budget": budget,
        **rates(timed),
        "peak_rss_mb": first["peak_bytes"] / MEGABYTE,
        "batches": timed[0]["batches"],
        "padding": timed[0]["padded_tokens"] / max(1, timed[0]["tokens"]) - 1.0,
    }
