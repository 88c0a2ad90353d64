"""Encoders against their peers: every form against sentence-transformers and plain ONNX Runtime.

``make bench-peers`` runs it. Throughput on mixed texts, lone queries, agreement with float32 and
peak memory, each contestant in a process of its own, in interleaved rounds. Run alone:
``python benchmarks/encoders.py [--only minilm,e5,rerank] [--rounds 5] [--cores 2] [--quick]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import environment, report, table
from comparison import (
    HERE,
    Entry,
    Material,
    Result,
    agreement,
    compare,
    default_peers,
    milliseconds,
    ours,
    pin,
    ratio,
    say,
    score_agreement,
    scratch_of,
    theirs,
)
from contestant import Contestant, ContestantFailed
from passages import passages
from peer_folders import write_folder
from texts import english, korean

MINILM = "all-minilm-l6-v2"
E5 = "multilingual-e5-small"
RERANKER = "ms-marco-minilm-l12-v2"

PEER = "sentence-transformers fp32"
PLAIN = "ORT fp32, arrival order"
SORTED = "ORT fp32, sorted"
DYNAMIC = "ORT dynamic int8, sorted"
SHIPPED = "ORT loop, arrival order"
ALONE = "ORT, one at a time"
SERVED = "ondol as served"
BATCH = 32

QUERY = "What are the effects of vitamin D on bone density in older adults?"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    only: frozenset[str]
    rounds: int
    texts: int
    threads: int
    budget: int
    forms: frozenset[str]
    peers: Path
    peer: bool
    quick: bool


def main() -> None:
    options = _options()
    figures: dict[str, Any] = {"benchmark": "encoders"}
    if "minilm" in options.only:
        figures["minilm"] = embedder(MINILM, english(options.texts), options)
    if "e5" in options.only:
        figures["e5"] = embedder(E5, korean(options.texts), options, prefix="passage: ")
    if "rerank" in options.only:
        figures["rerank"] = reranker(options)
    report(
        figures,
        settings={
            "threads": options.threads,
            "rounds": options.rounds,
            "texts": options.texts,
            "token_budget": options.budget,
            "batch_of_peers": BATCH,
            "seed": 0,
            "quick": options.quick,
        },
    )


def embedder(
    model: str, texts: Sequence[str], options: Options, *, prefix: str = ""
) -> dict[str, Any]:
    """Compare all ways to embed ``texts`` with ``model``; print the table, return the figures."""
    scratch = scratch_of(options.peers)
    graph, tokenizer, most = _reference_graph(model)
    dynamic = _dynamic(graph, scratch / f"{model}.dynamic.onnx")
    entries = _peer_entries(model, options, scratch)
    entries += [
        _plain(name, path, tokenizer, most, options, ordered=ordered)
        for name, path, ordered in (
            (PLAIN, graph, False),
            (SORTED, graph, True),
            ("ORT dynamic int8, arrival order", dynamic, False),
            (DYNAMIC, dynamic, True),
        )
    ]
    entries += _form_entries(model, options)
    queries = sorted(texts, key=len)[: max(8, len(texts) // 4)][-60:]
    mixed = texts[:60]
    if options.quick:
        queries, mixed = queries[:4], mixed[:4]
    results = compare(
        entries,
        Material(
            bulk={"plain": [prefix + text for text in texts], "raw": texts},
            lone={
                name: {"plain": [prefix + text for text in some], "raw": some}
                for name, some in (("query", queries), ("mixed", mixed))
            },
            reference=entries[0].name,
            rounds=options.rounds,
        ),
        threads=options.threads,
        scratch=scratch,
    )
    baseline = PEER if model == MINILM and options.peer else PLAIN
    return _embedder_figures(model, results, len(texts), baseline, entries[0].name)


def reranker(options: Options) -> dict[str, Any]:
    """Compare ways to rerank 100 and 30 passages of about 100 tokens; print and return figures."""
    graph, tokenizer, most = _shipped_graph(RERANKER)
    found: dict[str, Any] = {}
    for count in (16, 8) if options.quick else (100, 30):
        pairs = [[QUERY, passage] for passage in passages(count)]
        entries = [
            _plain(SHIPPED, graph, tokenizer, most, options, ordered=False, lone=False),
            _plain("ORT loop, sorted", graph, tokenizer, most, options, ordered=True, lone=False),
            _plain(ALONE, graph, tokenizer, most, options, ordered=False, batch=1, lone=False),
            *_form_entries(RERANKER, options, reranker=True),
        ]
        results = compare(
            entries,
            Material(
                bulk={"plain": pairs, "raw": pairs},
                lone={},
                reference=ALONE,
                rounds=options.rounds,
            ),
            threads=options.threads,
            scratch=scratch_of(options.peers),
        )
        found[str(count)] = _reranker_figures(results, count)
    return found


def _embedder_figures(
    model: str, results: Sequence[Result], count: int, baseline: str, reference: str
) -> dict[str, Any]:
    by_name = {result.name: result for result in results}
    rows: list[tuple[Any, ...]] = []
    figures: dict[str, Any] = {}
    for result in results:
        if result.error:
            figures[result.name] = {"error": result.error}
            rows.append((result.name, "failed", *[""] * 10))
            continue
        best, median = result.per_second(count)
        found: dict[str, Any] = {
            "form": result.form,
            "texts_per_second": round(median, 1),
            "best": round(best, 1),
            "ratio": round(ratio(result, by_name[baseline]), 2),
            "ratio_to_ort_fp32": round(ratio(result, by_name[PLAIN]), 2),
            "ratio_to_ort_fp32_sorted": round(ratio(result, by_name[SORTED]), 2),
            **agreement(result, by_name[reference]),
            "loaded_mb": result.loaded_mb,
            "peak_mb": result.peak_mb,
            "load_seconds": round(result.load_seconds, 2),
            "lone": {name: milliseconds(taken) for name, taken in result.lone.items()},
        }
        figures[result.name] = found
        rows.append(_embedder_row(result, found))
    print(f"\n### {model}: {count} texts; ratio to {baseline}, cosine to {reference}\n")
    table(
        (
            "contestant",
            "texts/s",
            "best",
            "ratio",
            "× ORT fp32",
            "× sorted",
            "cosine mean",
            "p1",
            "min",
            "query p50 / p99 ms",
            "mixed p50 / p99 ms",
            "peak MB",
        ),
        rows,
    )
    tokens = {"baseline": baseline, "reference": reference, "texts": count}
    return {**tokens, "contestants": figures}


def _embedder_row(result: Result, found: dict[str, Any]) -> tuple[Any, ...]:
    name = f"{result.name} ({result.form})" if result.name == SERVED else result.name
    lone = [
        f"{found['lone'][kind]['p50_ms']} / {found['lone'][kind]['p99_ms']}"
        if kind in found["lone"]
        else ""
        for kind in ("query", "mixed")
    ]
    return (
        name,
        found["texts_per_second"],
        found["best"],
        found["ratio"],
        found["ratio_to_ort_fp32"],
        found["ratio_to_ort_fp32_sorted"],
        *(f"{found.get(key, 0):.4f}" for key in ("cosine_mean", "cosine_p1", "cosine_min")),
        *lone,
        round(found["peak_mb"]),
    )


def _reranker_figures(results: Sequence[Result], count: int) -> dict[str, Any]:
    by_name = {result.name: result for result in results}
    reference = by_name[ALONE].rows
    rows: list[tuple[Any, ...]] = []
    figures: dict[str, Any] = {}
    for result in results:
        if result.error or result.rows is None or reference is None:
            figures[result.name] = {"error": result.error}
            rows.append((result.name, "failed", *[""] * 7))
            continue
        found: dict[str, Any] = {
            "form": result.form,
            "ms": round(statistics.median(result.seconds) * 1e3, 1),
            "best_ms": round(min(result.seconds) * 1e3, 1),
            "ratio": round(ratio(result, by_name[SHIPPED]), 2),
            **score_agreement(result.rows, reference),
            "peak_mb": result.peak_mb,
        }
        figures[result.name] = found
        name = f"{result.name} ({result.form})" if result.name == SERVED else result.name
        rows.append((name, *(found[key] for key in list(found)[1:])))
    print(f"\n### {RERANKER}: {count} passages; ratio to {SHIPPED}, scores to {ALONE}\n")
    table(("contestant", "ms", "best", "ratio", "cosine", "logit r", "τ", "top-1", "peak MB"), rows)
    return {"baseline": SHIPPED, "reference": ALONE, "contestants": figures}


def _peer_entries(model: str, options: Options, scratch: Path) -> list[Entry]:
    if not options.peer:
        return []
    folder = write_folder(model, scratch / model)
    load = {"folder": str(folder), "threads": options.threads, "batch": BATCH}
    return [Entry(PEER, theirs("contestant_peer.py", options.peers), load)]


def _plain(
    name: str,
    graph: Path,
    tokenizer: Path,
    most: int,
    options: Options,
    *,
    ordered: bool,
    batch: int = BATCH,
    lone: bool = True,
) -> Entry:
    load = {
        "graph": str(graph),
        "tokenizer": str(tokenizer),
        "threads": options.threads,
        "batch": batch,
        "most": most,
        "ordered": ordered,
    }
    return Entry(name, ours("contestant_plain.py"), load, lone=lone)


def _form_entries(model: str, options: Options, *, reranker: bool = False) -> list[Entry]:
    """Return one entry a form, the default form in order of arrival, and what a server would run."""
    argv = ours("contestant_ondol.py")
    listed = subprocess.run(
        [*argv, "--list", model], env=environment(), capture_output=True, text=True, check=False
    )
    if listed.returncode:
        raise SystemExit(f"the forms of {model} cannot be listed: {listed.stderr[-2000:]}")
    forms = [
        form
        for form in json.loads(listed.stdout.splitlines()[-1])
        if not options.forms or form in options.forms
    ]
    shared = {"model": model, "threads": options.threads, "reranker": reranker}
    for form in forms:
        _make(argv, {**shared, "form": form})
    entries = [
        Entry(
            f"ondol {form}",
            argv,
            {**shared, "form": form, "budget": options.budget},
            lone=not reranker,
        )
        for form in forms
    ]
    if forms:
        first = {**shared, "form": forms[0], "arrival": True}
        entries.append(Entry(f"{forms[0]}, arrival order, batches of 32", argv, first, lone=False))
    served = {**shared, "form": "served"}
    return [*entries, Entry(SERVED, argv, served, texts="raw", lone=not reranker)]


def _make(argv: Sequence[str], load: dict[str, Any]) -> None:
    """Load a form once and forget it: making it for the first time must not count as its memory."""
    maker = Contestant("making", argv, env=environment())
    try:
        maker.call("load", **load)
    except ContestantFailed as error:
        say(f"{load['form']}: {error}")
    finally:
        maker.close()


def _reference_graph(model: str) -> tuple[Path, Path, int]:
    """Return the float32 graph, the tokenizer and the longest input of an embedder."""
    from contestant_ondol import model_files

    from ondol.models.loading import load_encoder

    files = model_files(model)
    load_encoder(files, form="onnx:fp32", threads=1).close()
    found = sorted(files.folder.glob("*fp32*.onnx"))
    if not found or files.tokenizer_path is None:
        raise SystemExit(f"{model} has no float32 graph in {files.folder}")
    return found[0], files.tokenizer_path, files.entry.max_tokens


def _shipped_graph(model: str) -> tuple[Path, Path, int]:
    from contestant_ondol import model_files

    files = model_files(model)
    if files.tokenizer_path is None:
        raise SystemExit(f"{model} has no tokenizer")
    return files.folder / files.entry.weights.name, files.tokenizer_path, files.entry.max_tokens


def _dynamic(graph: Path, target: Path) -> Path:
    """Return ``graph`` quantised as a recipe does; kept while it is newer than ``graph``."""
    if target.exists() and target.stat().st_mtime > graph.stat().st_mtime:
        return target
    say(f"quantising {graph.name} as a recipe does")
    target.parent.mkdir(parents=True, exist_ok=True)
    worker = Contestant("quantize_dynamic", [sys.executable, str(HERE / "contestant_plain.py")])
    try:
        worker.call("quantise", graph=str(graph), target=str(target))
    finally:
        worker.close()
    return target


def _options() -> Options:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="minilm,e5,rerank", help="parts to run, by comma")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved repeats")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--cores", type=int, default=0, help="pin to so many cores (0: all)")
    parser.add_argument("--budget", type=int, default=2048, help="token budget of a named form")
    parser.add_argument("--forms", default="", help="only these forms, by comma")
    parser.add_argument("--peers", type=Path, default=default_peers(), help="their environment")
    parser.add_argument("--no-peer", action="store_true", help="without sentence-transformers")
    parser.add_argument("--quick", action="store_true", help="24 texts, one round: proves it works")
    given = parser.parse_args()
    return Options(
        only=frozenset(given.only.split(",")),
        rounds=1 if given.quick else given.rounds,
        texts=24 if given.quick else given.texts,
        threads=pin(given.cores),
        budget=given.budget,
        forms=frozenset(filter(None, given.forms.split(","))),
        peers=given.peers,
        peer=not given.no_peer,
        quick=given.quick,
    )


if __name__ == "__main__":
    main()
