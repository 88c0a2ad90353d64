"""Memory of an encoder that serves texts of 10 to 500 tokens for a long time, and what it is made of.

Child processes of growing contents (Python and numpy, imports, tokenizer, the loaded model, the
served model) tell the parts apart; the last embeds 100,000 different Korean and English texts and
samples its memory every 1,000. ``given back`` is what malloc_trim could still free at the end.
Run: ``python benchmarks/encoder_memory.py [--texts 100000] [--forms onnx:int8,…] [--quick]``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import environment, report, table
from comparison import pin, say
from contestant import Contestant, ContestantFailed, claim_stdout, memory, serve
from contestant_ondol import forms_of, model_files
from passages import varied

MODEL = "multilingual-e5-small"
SAMPLE = 1_000
CLIENTS = 4
LARGEST_REQUEST = 32
WARM_SHARE = 0.2
"""The first part of the samples, in which arenas and caches fill, does not count for the slope."""

_BACKENDS = {
    "onnx": "ondol.backends.onnx_encoder",
    "openvino": "ondol.backends.openvino_encoder",
    "torch": "ondol.backends.torch_encoder",
    "native": "ondol.backends.native_encoder",
}


class Child:
    """Takes in one more thing at a time, and says how large it has become."""

    def __init__(self) -> None:
        self._encoder: Any = None
        self._kept: list[Any] = []

    def imports(self, *, form: str) -> Mapping[str, Any]:
        """Import what serving this form imports."""
        import importlib

        for name in ("ondol.runtime.encoders.batcher", "ondol.models.loading", "tokenizers"):
            importlib.import_module(name)
        importlib.import_module(_BACKENDS[form.partition(":")[0]])
        return memory()

    def tokenizer(self, *, path: str) -> Mapping[str, Any]:
        from tokenizers import Tokenizer

        self._kept.append(Tokenizer.from_file(path))
        return memory()

    def load(self, *, model: str, form: str, threads: int) -> Mapping[str, Any]:
        from ondol.models.loading import load_encoder

        started = time.perf_counter()
        self._encoder = load_encoder(model_files(model), form=form, threads=threads)
        self._encoder.run(self._encoder.tokenize(["warm up"], truncate=True))
        return {"seconds": time.perf_counter() - started, **memory(reset=True)}

    def serve(self, *, path: str, every: int, budget: int) -> Mapping[str, Any]:
        """Embed the texts of ``path`` for ``CLIENTS`` callers; a sample after ``every`` texts."""
        with open(path, encoding="utf-8") as lines:
            return asyncio.run(self._serve(lines, every, budget))

    async def _serve(self, lines: Iterable[str], every: int, budget: int) -> Mapping[str, Any]:
        from ondol.core.process import trim
        from ondol.runtime.encoders.batcher import Batcher, BatcherLimits

        batcher = Batcher(
            self._encoder, limits=BatcherLimits(token_budget=budget, queue_seconds=3600.0)
        )
        source = map(json.loads, lines)
        sizes = random.Random(0)
        done = tokens = 0
        samples: list[dict[str, float]] = []
        started = time.perf_counter()

        async def client() -> None:
            nonlocal done, tokens
            while batch := list(itertools.islice(source, sizes.randint(1, LARGEST_REQUEST))):
                result = await batcher.submit(batch, truncate=True)
                for value in result.values:
                    if isinstance(value, Exception):
                        raise value
                before, done = done // every, done + len(batch)
                tokens += sum(result.tokens)
                if done // every > before:
                    samples.append({"texts": done, **memory()})

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - started
        steady = memory()
        trim()
        return {
            "texts": done,
            "tokens": tokens,
            "seconds": seconds,
            "samples": samples,
            "given_back_mb": round(steady["rss_mb"] - memory()["rss_mb"], 1),
            **steady,
        }


def measure(form: str, texts: Path, options: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Return the parts and the course of one form's memory, in MB."""
    files = model_files(MODEL)
    say(f"{form}: making it where it is missing")
    _in_child(("load", {"model": MODEL, "form": form, "threads": threads}))
    say(f"{form}: the parts")
    bare = _in_child(("memory", {}))
    imports = _in_child(("imports", {"form": form}))
    path = str(_tokenizer_of(files.folder, form) or files.tokenizer_path)
    tokenizer = _in_child(("imports", {"form": form}), ("tokenizer", {"path": path}))
    say(f"{form}: {options.texts} texts")
    child = Contestant(form, [sys.executable, __file__, "--child"], env=environment())
    try:
        child.call("imports", form=form)
        loaded = child.call("load", model=MODEL, form=form, threads=threads)
        every = min(SAMPLE, max(1, options.texts // 20))
        served = child.call("serve", path=str(texts), every=every, budget=options.budget)
    finally:
        child.close()
    return {
        "bare_mb": bare["rss_mb"],
        "imports_mb": round(imports["rss_mb"] - bare["rss_mb"], 1),
        "tokenizer_mb": round(tokenizer["rss_mb"] - imports["rss_mb"], 1),
        "weights_mb": round(loaded["rss_mb"] - tokenizer["rss_mb"], 1),
        "loaded_mb": loaded["rss_mb"],
        "arena_mb": round(served["rss_mb"] - loaded["rss_mb"], 1),
        "steady_mb": served["rss_mb"],
        "given_back_mb": served["given_back_mb"],
        "anonymous_mb": served["anon_mb"],
        "file_backed_mb": served["file_mb"],
        "load_peak_mb": loaded["peak_mb"],
        "peak_mb": max(served["peak_mb"], loaded["rss_mb"]),
        **slope(served["samples"]),
        "texts": served["texts"],
        "tokens_mean": round(served["tokens"] / served["texts"], 1),
        "texts_per_second": round(served["texts"] / served["seconds"], 1),
        "samples_mb": [sample["rss_mb"] for sample in served["samples"]],
    }


def slope(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the growth in MB per 100,000 texts: the median of all pairs' slopes (Theil and Sen).

    ``slope_anonymous`` leaves out pages of files, which the kernel can drop at any time.
    """
    late = samples[int(len(samples) * WARM_SHARE) :]
    if len(late) < 3:
        return {}
    at = np.array([sample["texts"] for sample in late])
    first, second = np.triu_indices(len(late), 1)
    found = {}
    for name, key in (("slope_mb_per_100k", "rss_mb"), ("slope_anonymous_mb_per_100k", "anon_mb")):
        values = np.array([sample[key] for sample in late])
        rise = (values[second] - values[first]) / (at[second] - at[first])
        found[name] = round(float(np.median(rise)) * 1e5, 2)
    return found


def main() -> None:
    if "--child" in sys.argv:
        answers, child = claim_stdout(), Child()
        serve(
            {
                "memory": memory,
                "imports": child.imports,
                "tokenizer": child.tokenizer,
                "load": child.load,
                "serve": child.serve,
            },
            answers,
        )
        return
    options = _options()
    threads = pin(options.cores)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        texts = Path(scratch) / "texts.jsonl"
        with texts.open("w", encoding="utf-8") as out:
            for text in itertools.islice(varied(), options.texts):
                out.write(json.dumps(text, ensure_ascii=False) + "\n")
        for form in _wanted(options.forms):
            try:
                found[form] = measure(form, texts, options, threads)
            except ContestantFailed as error:
                say(f"  failed: {error}")
                found[form] = {"error": str(error)}
    _print(found, options.texts)
    report(
        {"benchmark": "encoder_memory", "baseline": "bare Python", "forms": found},
        settings={
            "model": MODEL,
            "texts": options.texts,
            "token_budget": options.budget,
            "threads": threads,
            "clients": CLIENTS,
            "largest_request": LARGEST_REQUEST,
            "seed": 0,
        },
    )


def _print(found: Mapping[str, Mapping[str, Any]], texts: int) -> None:
    parts = (
        "bare",
        "imports",
        "tokenizer",
        "weights",
        "arena",
        "steady",
        "given_back",
        "load_peak",
        "peak",
    )
    print(f"\n### {MODEL}: memory in MB, {texts} texts of 10 to 500 tokens\n")
    table(
        ("form", *parts, "slope / 100k", "of it anonymous", "texts/s"),
        [
            (
                form,
                *(figures.get(f"{part}_mb", "failed") for part in parts),
                figures.get("slope_mb_per_100k", "-"),
                figures.get("slope_anonymous_mb_per_100k", "-"),
                figures.get("texts_per_second", "-"),
            )
            for form, figures in found.items()
        ],
    )


def _in_child(*calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Run the calls in a fresh child and return the last one's answer."""
    child = Contestant("child", [sys.executable, __file__, "--child"], env=environment())
    try:
        answer: dict[str, Any] = {}
        for name, arguments in calls:
            answer = child.call(name, **arguments)
        return answer
    finally:
        child.close()


def _tokenizer_of(folder: Any, form: str) -> Any:
    """Return the cut tokenizer of a trimmed form, or ``None``."""
    if "+trimmed" not in form:
        return None
    found: Iterator[Any] = folder.rglob("*trimmed*tokenizer*.json")
    return next(itertools.chain(found, folder.rglob("*tokenizer*trimmed*.json")), None)


def _wanted(forms: str) -> list[str]:
    """Return the forms asked for, or the default one and its trimmed twin."""
    available = forms_of(MODEL)
    if forms == "all":
        return available
    if forms:
        return forms.split(",")
    trimmed = [form for form in available if form == f"{available[0]}+trimmed"]
    return [available[0], *trimmed]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--forms", default="", help="by comma, or all; else default and trimmed")
    parser.add_argument("--budget", type=int, default=2048, help="token budget of a batch")
    parser.add_argument("--cores", type=int, default=0, help="pin to so many cores (0: all)")
    parser.add_argument("--quick", action="store_true", help="300 texts: proves it works")
    options = parser.parse_args()
    if options.quick:
        options.texts = 300
    return options


if __name__ == "__main__":
    main()
