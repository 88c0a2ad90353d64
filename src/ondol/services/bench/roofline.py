"""``ondol bench roofline``: the machine's matrix-multiply peak, and each form's share of it.

A form's rate counts the multiplications of its linear layers only (two operations a weight and
token), over texts of exactly 128 tokens; tokenising, attention, softmax and the rest are overhead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ondol.backends.failures import as_model_error
from ondol.core.errors import BackendError
from ondol.kernels.gemm_peaks import Gemm, measure_gemms, peaks
from ondol.models.library import ModelFiles
from ondol.models.weights import read_weights
from ondol.services.bench.encoders import MAX_BATCH, Note
from ondol.services.evaluation.statistics import percentile
from ondol.services.probe.child import Probe
from ondol.services.probe.subject import Subject

TOKENS = 128
ITEMS = 64
TOKEN_BUDGET = 2048
REPEATS = 4


def roofline(
    subject: Subject, files: ModelFiles, forms: Sequence[str], *, threads: int, note: Note
) -> dict[str, Any]:
    """Return ``gemms``, ``peak_gflops`` per kind, and ``forms`` with their share of the int8 peak."""
    gemms: list[Gemm] = []
    with as_model_error():
        for gemm in measure_gemms(threads=threads):
            note(f"{gemm.library} {gemm.kind}, {gemm.m} x {gemm.k} x {gemm.n}")
            gemms.append(gemm)
    peak = peaks(gemms)
    weights = linear_weights(files)
    rows = []
    for form in forms:
        note(f"{form}: {ITEMS} texts of {TOKENS} tokens")
        rows.append(_form_row(subject, form, threads, weights, peak))
    return {
        "model": subject.model,
        "threads": threads,
        "linear_weights": weights,
        "peak_gflops": peak,
        "gemms": [asdict(gemm) for gemm in gemms],
        "forms": rows,
    }


def linear_weights(files: ModelFiles) -> int:
    """Return how many weights the linear layers of all blocks have: what one token passes through."""
    shape = read_weights(files.entry, files.folder).shape
    return shape.layers * (4 * shape.hidden**2 + 2 * shape.hidden * shape.ffn)


def _form_row(
    subject: Subject, form: str, threads: int, weights: int, peak: dict[Any, float]
) -> dict[str, Any]:
    try:
        with Probe() as probe:
            subject.load(probe, form=form, threads=threads)
            probe.ask("items", count=ITEMS, tokens=TOKENS)
            runs = [
                probe.ask("bulk", token_budget=TOKEN_BUDGET, max_batch=MAX_BATCH)
                for _ in range(REPEATS + 1)
            ]
    except BackendError as error:
        return {"form": form, "failure": error.message}
    seconds = percentile([run["seconds"] for run in runs[1:]], 0.5)
    gflops = 2.0 * weights * ITEMS * TOKENS / seconds / 1e9
    row = {
        "form": form,
        "tokens_per_second": ITEMS * TOKENS / seconds,
        "gflops": gflops,
    }
    for kind, value in peak.items():
        row[f"share_of_{kind}_peak"] = gflops / value
    return row
