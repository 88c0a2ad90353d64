"""``ondol bench embed|rerank``: one form through the engine's own batcher, beside a plain loop.

The form and the baseline (the reference form, batches of 32 as they come) run in turn, each in a
process of its own, over the same items. Lone requests give the latency. Fidelity is taken last, so
that it adds nothing to the peak memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondol.core.types import FloatMatrix
from ondol.models.fidelity import compare_embeddings, compare_scores
from ondol.models.library import ModelFiles
from ondol.models.profile import Chosen
from ondol.services.evaluation.fidelity import figures
from ondol.services.evaluation.statistics import percentile
from ondol.services.evaluation.texts import JudgedList
from ondol.services.probe.child import Probe
from ondol.services.probe.subject import Subject, is_made, pair_items

MAX_BATCH = 64
LONE_REQUESTS = 300
FIDELITY_ITEMS = 200
MATES = 24
MEGABYTE = 1e6

Note = Callable[[str], None]


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
class Plan:
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
    plan: Plan,
    *,
    cores: int,
    note: Note,
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
    subject: Subject, files: ModelFiles | None, form: str, *, threads: int, note: Note
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
    measured: Probe, baseline: Probe, folder: Path, plan: Plan, reference: str, note: Note
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
    note: Note,
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
