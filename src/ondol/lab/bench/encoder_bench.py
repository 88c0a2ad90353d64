"""``ondol bench embed|rerank``: one form through the engine's own batcher, beside a plain loop.

The form and the baseline (the reference form, batches of 32 as they come) run in turn, each in a
process of its own, over the same items. Lone requests give the latency. Fidelity is taken last, so
that it adds nothing to the peak memory.

Which form a bench runs, chosen as the server chooses: settings, profile, catalogue.

``ondol bench … --sweep batch``: which token budget suits the form on this machine.

One process, budgets rising, so that each budget's first run shows its own peak memory; then all of
them in turn. The smallest budget near the best throughput is recommended: it answers sooner and
takes less memory.

``ondol bench roofline``: the machine's matrix-multiply peak, and each form's share of it.

A form's rate counts the multiplications of its linear layers only (two operations a weight and
token), over texts of exactly 128 tokens; tokenising, attention, softmax and the rest are overhead.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondol.backends.protocols import as_model_error
from ondol.core.errors import BackendError
from ondol.core.machine import Machine
from ondol.core.settings import Settings
from ondol.core.types import FloatMatrix, OnNote
from ondol.kernels.gemm_peaks import Gemm, measure_gemms, peaks
from ondol.lab.evaluate.datasets import JudgedList
from ondol.lab.evaluate.fidelity import compare_embeddings, compare_scores
from ondol.lab.evaluate.form_fidelity import figures
from ondol.lab.evaluate.statistics import percentile
from ondol.lab.probe.operations import Subject, is_made, pair_items
from ondol.lab.probe.probe_child import Probe
from ondol.models.form_choice import FormChoice, choose_form
from ondol.models.library import ModelFiles
from ondol.models.manifest import read_weights
from ondol.models.profile import Chosen, Purpose, chosen, key_of, read_profile

MAX_BATCH = 64
LONE_REQUESTS = 300
FIDELITY_ITEMS = 200
MATES = 24
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Workload:
    """What runs: ``bulk`` items in order; ``lone`` ones, ``groups`` of them to a request.

    ``lists`` are the sizes of a reranker's lists at the head of ``bulk``, which fidelity compares.
    """

    bulk: tuple[Any, ...]
    lone: tuple[Any, ...]
    groups: tuple[int, ...]
    lists: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """How it runs: ``bulk`` in one form, and lone ones too unless ``query`` names another."""

    bulk: Chosen
    query: Chosen | None = None
    repeats: int = 3


def embedding_work(subject: Subject, texts: Sequence[str]) -> Workload:
    """Return the workload of ``texts``: as documents in bulk, as queries one at a time."""
    lone = subject.text_items(spread(texts, LONE_REQUESTS), role="query")
    return Workload(tuple(subject.text_items(texts)), tuple(lone), (1,) * len(lone))


def reranking_work(lists: Sequence[JudgedList]) -> Workload:
    """Return the workload of ``lists``: all pairs in bulk, one list a request alone."""
    pairs = tuple([pair.query, pair.document] for pair in pair_items(lists))
    groups = tuple(len(one.documents) for one in lists[:LONE_REQUESTS])
    compared: list[int] = []
    for one in lists:
        if compared and sum(compared) + len(one.documents) > FIDELITY_ITEMS:
            break
        compared.append(len(one.documents))
    return Workload(pairs, pairs[: sum(groups)], groups, tuple(compared))


def run(
    subject: Subject,
    files: ModelFiles | None,
    work: Workload,
    plan: BenchPlan,
    *,
    cores: int,
    note: OnNote,
) -> dict[str, Any]:
    """Return the contract's keys of ``bench embed`` and ``bench rerank``. Raises ``ProbeFailed``."""
    with tempfile.TemporaryDirectory(prefix="ondol-bench-") as name:
        folder = Path(name)
        for form in dict.fromkeys([plan.bulk.form, subject.reference]):
            make(subject, files, form, threads=cores, note=note)
        _write(folder / "bulk.json", work.bulk)
        _write(folder / "lone.json", work.lone)
        with Probe() as measured, Probe() as baseline:
            note(f"loading {plan.bulk.form} and {subject.reference}")
            loaded = load(subject, measured, plan.bulk)
            subject.load(baseline, form=subject.reference, threads=cores)
            found = _in_turn(measured, baseline, folder, plan, subject.reference, note)
            found |= {"load_seconds": loaded["load_seconds"]}
            note("one request at a time")
            found |= _latency(measured, folder, plan.bulk, work.groups)
            note("fidelity")
            found |= _fidelity(measured, baseline, folder, work, plan.bulk)
        if plan.query is not None:
            found |= _query_form(subject, files, folder, work, plan.query, note)
    return {
        "model": subject.model,
        "form": plan.bulk.form,
        "threads": plan.bulk.threads,
        "token_budget": plan.bulk.token_budget,
        **found,
    }


def load(subject: Subject, probe: Probe, chosen: Chosen) -> dict[str, Any]:
    """Make ``probe`` load what was chosen. Raises ``ProbeFailed``."""
    return subject.load(probe, form=chosen.form, threads=chosen.threads, streams=chosen.streams)


def make(
    subject: Subject, files: ModelFiles | None, form: str, *, threads: int, note: OnNote
) -> None:
    """Make the files of ``form`` where they are not there, in a process of its own.

    Without ``files`` there is nothing to make.
    """
    if files is None or is_made(files, form):
        return
    note(f"making {form}")
    with Probe() as probe:
        subject.load(probe, form=form, threads=threads)


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most ``count`` of ``items``, evenly spaced."""
    if len(items) <= count:
        return list(items)
    return [items[int(at * len(items) / count)] for at in range(count)]


def bulk(probe: Probe, chosen: Chosen, *, token_budget: int | None = None) -> dict[str, Any]:
    """Run the items that ``probe`` holds through the batcher. Raises ``ProbeFailed``."""
    return probe.ask(
        "bulk",
        token_budget=token_budget or chosen.token_budget,
        max_batch=MAX_BATCH,
        policy=chosen.policy,
    )


def rates(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return texts and tokens per second, of several runs the median."""
    return {
        f"{unit}_per_second": percentile([run[unit] / run["seconds"] for run in runs], 0.5)
        for unit in ("texts", "tokens")
    }


def _in_turn(
    measured: Probe, baseline: Probe, folder: Path, plan: BenchPlan, reference: str, note: OnNote
) -> dict[str, Any]:
    """Run both ``repeats`` times in turn, after a warm-up on a few items."""
    few = json.loads((folder / "bulk.json").read_text("utf-8"))
    _write(folder / "few.json", spread(few, 64))
    for probe in (measured, baseline):
        probe.ask("items", path=str(folder / "few.json"))
    bulk(measured, plan.bulk)
    baseline.ask("plain")
    for probe in (measured, baseline):
        probe.ask("items", path=str(folder / "bulk.json"))
    runs, plain = [], []
    for turn in range(1, plan.repeats + 1):
        note(f"run {turn} of {plan.repeats}")
        runs.append(bulk(measured, plan.bulk))
        plain.append(baseline.ask("plain"))
    ours, theirs = rates(runs), rates(plain)
    return {
        "texts": runs[0]["texts"],
        "failed": runs[0]["failed"],
        **ours,
        "peak_rss_mb": runs[-1]["peak_bytes"] / MEGABYTE,
        "steady_rss_mb": runs[-1]["steady_bytes"] / MEGABYTE,
        "batches": runs[-1]["batches"],
        "padding": runs[-1]["padded_tokens"] / max(1, runs[-1]["tokens"]) - 1.0,
        "baseline": {
            "what": "the reference form in a plain loop, batches of 32 in order of arrival",
            "form": reference,
            **theirs,
            "peak_rss_mb": plain[-1]["peak_bytes"] / MEGABYTE,
        },
        "ratio": ours["texts_per_second"] / theirs["texts_per_second"],
    }


def _latency(probe: Probe, folder: Path, chosen: Chosen, groups: Sequence[int]) -> dict[str, Any]:
    probe.ask("items", path=str(folder / "lone.json"))
    answer = probe.ask("lone", token_budget=chosen.token_budget, groups=list(groups))
    seconds = answer["seconds"]
    return {
        "p50_ms": percentile(seconds, 0.5) * 1e3,
        "p99_ms": percentile(seconds, 0.99) * 1e3,
        "lone_requests": len(seconds),
    }


def _fidelity(
    measured: Probe, baseline: Probe, folder: Path, work: Workload, chosen: Chosen
) -> dict[str, Any]:
    reranks = bool(work.lists)
    some = work.bulk[: sum(work.lists)] if reranks else spread(work.bulk, FIDELITY_ITEMS)
    _write(folder / "some.json", some)
    rows: list[FloatMatrix] = []
    for probe in (baseline, measured):
        probe.ask("items", path=str(folder / "some.json"))
        probe.ask("outputs", path=str(folder / "rows.npy"), token_budget=chosen.token_budget)
        rows.append(np.load(folder / "rows.npy"))
    if reranks:
        ends = np.cumsum(work.lists)[:-1]
        found = figures(
            compare_scores(np.split(rows[0][:, 0], ends), np.split(rows[1][:, 0], ends))
        )
    else:
        found = figures(compare_embeddings(rows[0], rows[1]))
    _write(folder / "mates.json", spread(work.bulk, MATES))
    measured.ask("items", path=str(folder / "mates.json"))
    mates = float(measured.ask("mates")["cosine"])
    kept = {k: v for k, v in found.items() if v is not None and k != "batch_invariant"}
    return {"fidelity": kept, "batch_mates": mates}


def _query_form(
    subject: Subject,
    files: ModelFiles | None,
    folder: Path,
    work: Workload,
    chosen: Chosen,
    note: OnNote,
) -> dict[str, Any]:
    """Return the latency of the form that answers queries, which has a process of its own."""
    make(subject, files, chosen.form, threads=chosen.threads, note=note)
    note(f"one request at a time, {chosen.form}")
    with Probe() as probe:
        loaded = load(subject, probe, chosen)
        found = _latency(probe, folder, chosen, work.groups)
        return {
            **found,
            "query": {
                "form": chosen.form,
                "threads": chosen.threads,
                "steady_rss_mb": loaded["steady_bytes"] / MEGABYTE,
            },
        }


def _write(path: Path, items: Sequence[Any]) -> None:
    path.write_text(json.dumps(list(items)), "utf-8")


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan, and why this form."""

    plan: BenchPlan
    reason: str


def planned(
    subject: Subject,
    files: ModelFiles,
    settings: Settings,
    machine: Machine,
    *,
    form: str = "auto",
    threads: int = 0,
    token_budget: int = 0,
    repeats: int = 3,
) -> Planned:
    """Return how ``subject`` runs here; a form, threads or budget that is named has the last word."""
    profile, key = read_profile(settings.home), key_of(files, machine=machine)

    def choice(purpose: Purpose) -> FormChoice:
        return choose_form(
            subject.forms,
            reference=subject.reference,
            wanted=form,
            optimize=settings.models.optimize,
            measured=chosen(profile, subject.model, purpose, key),
        )

    def concrete(found: FormChoice) -> Chosen:
        return Chosen(
            form=found.form,
            threads=threads or found.threads or settings.models.threads or machine.cores,
            token_budget=token_budget or found.token_budget or settings.models.token_budget,
        )

    found = choice("bulk")
    bulk, query = concrete(found), concrete(choice("query"))
    same = (bulk.form, bulk.threads) == (query.form, query.threads)
    return Planned(BenchPlan(bulk, None if same else query, repeats), found.reason)


BUDGETS = (256, 512, 1024, 2048, 4096, 8192)
NEAR = 0.03


def sweep(
    subject: Subject,
    files: ModelFiles | None,
    work: Workload,
    chosen: Chosen,
    *,
    repeats: int,
    note: OnNote,
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


TOKENS = 128
ITEMS = 64
TOKEN_BUDGET = 2048
REPEATS = 4


def roofline(
    subject: Subject, files: ModelFiles, forms: Sequence[str], *, threads: int, note: OnNote
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
