"""Measure what the embedding cache costs on a miss and saves on a hit, for each of its tiers.

    python benchmarks/embedding_cache.py [--model all-minilm-l6-v2] [--form auto] [--rounds 60]

Texts go through the real service: keys, look-up, batcher, encoder. ``lone`` is one text a request,
``bulk`` 64 in the batch lane; the baseline of the same run is the service without a cache. Tiers take
turns on every text in changing order, and a difference is the median of its pairs, so that other work
on the machine falls on all alike. ``floor`` is the fake encoder, its vectors made beforehand and said
to have taken as long as the model: what the cache itself costs, without the model's noise. Its cost
on a miss over the model's time is ``miss_share``. Hits of SQLite and Redis (``durable``) are measured
with memory switched off. Redis is started here (``redis-server``; left out where it is missing).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import report, table
from texts import mixed

from ondol.backends.fake_encoder import FakeEmbedder
from ondol.backends.protocols import EncoderBackend, EncoderSpec
from ondol.core.events import Timing
from ondol.core.settings import load_settings
from ondol.core.types import Encoded, Pair
from ondol.models.library import ModelLibrary
from ondol.models.loading import load_encoder
from ondol.runtime.embedding_cache.cache_memory import EmbeddingCache, MemoryEmbeddingCache
from ondol.runtime.embedding_cache.cache_sqlite import SqliteEmbeddingCache
from ondol.runtime.embedding_cache.embedding_cache import FILE_NAME, CachedLane, CacheTiers
from ondol.runtime.encoders.batcher import Batcher, BatcherLimits, BatchResult
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.runtime.encoders.encoder_lane import EncoderLane

BULK = 64
MEMORY = 64 * 2**20
Service = EmbeddingService
Place = Callable[[], EmbeddingCache | None]


class Instant:
    """A lane that answers at once with one vector of the fake's, and says it took ``ms`` a text."""

    def __init__(self, *, ms: float) -> None:
        fake = FakeEmbedder(dimensions=384)
        (encoded,) = fake.tokenize(["온돌 floor"], truncate=True)
        assert isinstance(encoded, Encoded)
        self.spec: EncoderSpec = replace(fake.spec, fingerprint="bench")
        self._row = fake.run([encoded])[0]
        self._ms = ms

    async def submit(
        self,
        items: Sequence[str | Pair | Encoded],
        *,
        truncate: bool = False,
        urgent: bool = True,
        timing: Timing | None = None,
    ) -> BatchResult:
        if timing is not None:
            timing.inference_ms += self._ms * len(items)
        await asyncio.sleep(0)
        count = len(items)
        return BatchResult(values=[self._row] * count, tokens=[100] * count, spec=self.spec)


@contextmanager
def redis_url() -> Iterator[str]:
    """Run a Redis that keeps nothing; yields an empty string where there is none."""
    binary = shutil.which("redis-server")
    if binary is None:
        yield ""
        return
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "eady to accept connections" in line:
            break
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.communicate()


def places(home: Path, url: str) -> dict[str, Place]:
    """Return how each durable tier is opened."""

    def redis() -> EmbeddingCache:
        from ondol.runtime.embedding_cache.cache_redis import RedisEmbeddingCache

        return RedisEmbeddingCache(url, ttl_seconds=3600)

    found: dict[str, Place] = {
        "memory": lambda: None,
        "sqlite": lambda: SqliteEmbeddingCache(home / FILE_NAME, limit_bytes=2**30),
    }
    return found | ({"redis": redis} if url else {})


async def timed(service: Service, texts: Sequence[str]) -> tuple[float, float]:
    """Return wall and processor microseconds of one request, a text."""
    wall, cpu = time.perf_counter(), time.process_time()
    if len(texts) == 1:
        await service.embed(texts, role="query", truncate=True)
    else:
        await service.embed_each(texts, role="document")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall / len(texts) * 1e6, cpu / len(texts) * 1e6


async def rounds(
    services: dict[str, Service], requests: Sequence[Sequence[str]]
) -> dict[str, list[tuple[float, float]]]:
    """Time every request on every service, in an order that turns from request to request."""
    names = list(services)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn, request in enumerate(requests):
        first = turn % len(names)
        for name in [*names[first:], *names[:first]]:
            taken[name].append(await timed(services[name], request))
    return taken


def summary(taken: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Return per tier: median µs a text, and the median difference to ``off``, pair by pair."""
    base = taken["off"]
    off = statistics.median(wall for wall, _ in base)
    figures: dict[str, dict[str, float]] = {}
    for name, pairs in taken.items():
        wall = statistics.median(w for w, _ in pairs)
        added = statistics.median(w - b for (w, _), (b, _) in zip(pairs, base, strict=True))
        cpu = statistics.median(c - b for (_, c), (_, b) in zip(pairs, base, strict=True))
        figures[name] = {
            "us": round(wall, 1),
            "added_us": round(added, 1),
            "added_cpu_us": round(cpu, 1),
            "added_share": round(added / off, 4),
            "times_cheaper": round(off / wall, 1),
        }
    return figures


async def measure(
    lane: EncoderLane, opened: dict[str, Place], texts: Sequence[str], *, count: int
) -> dict[str, Any]:
    """Return miss and hit figures, lone and bulk, through services over one lane."""
    lone = [[text] for text in texts[:count]]
    bulk = [texts[n : n + BULK] for n in range(count, count + BULK * bulks(count), BULK)]
    figures: dict[str, Any] = {}
    for kind, near in (("miss", MEMORY), ("hit", MEMORY), ("durable", 0)):
        tiers = {
            name: CacheTiers(MemoryEmbeddingCache(limit_bytes=near), make())
            for name, make in opened.items()
            if name != "memory" or near
        }
        services = {"off": EmbeddingService(lane)} | {
            name: EmbeddingService(CachedLane(lane, tier)) for name, tier in tiers.items()
        }
        if kind == "miss":
            await rounds(services, [[f"warm {n}"] for n in range(12)])
        if kind == "hit":
            for name in tiers:
                for text in texts[: count + BULK * bulks(count)]:
                    await services[name].embed([text], role="query", truncate=True)
        figures[f"lone_{kind}"] = summary(await rounds(services, lone))
        figures[f"bulk_{kind}"] = summary(await rounds(services, bulk))
        for tier in tiers.values():
            tier.close()
    return figures


async def through_batcher(
    encoder: EncoderBackend, opened: dict[str, Place], texts: Sequence[str], *, count: int
) -> dict[str, Any]:
    batcher = Batcher(encoder, limits=BatcherLimits())
    try:
        return await measure(batcher, opened, texts, count=count)
    finally:
        await batcher.close()


def bulks(count: int) -> int:
    return max(1, count // 20)


def verdict(real: dict[str, Any], floor: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return per tier what a miss adds (µs and share of the model) and how much cheaper hits are."""
    figures: dict[str, dict[str, float]] = {}
    for tier in (name for name in real["lone_miss"] if name != "off"):
        row: dict[str, float] = {}
        for size in ("lone", "bulk"):
            model = real[f"{size}_miss"]["off"]["us"]
            added = floor[f"{size}_miss"][tier]["added_us"]
            row[f"{size}_miss_us"] = added
            row[f"{size}_miss_share"] = round(added / model, 4)
            for kind in ("hit", "durable"):
                if tier in real[f"{size}_{kind}"]:
                    taken = real[f"{size}_{kind}"][tier]["us"]
                    row[f"{size}_{kind}_us"] = taken
                    row[f"{size}_{kind}_times_cheaper"] = round(model / taken, 1)
        figures[tier] = row
    return figures


def show(title: str, figures: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}")
    names = list(dict.fromkeys(name for row in figures.values() for name in row))
    table(["", *figures], [[n, *(row.get(n, "") for row in figures.values())] for n in names])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="all-minilm-l6-v2")
    parser.add_argument("--form", default="auto")
    parser.add_argument("--rounds", type=int, default=60, help="lone texts; a 20th as many bulks")
    options = parser.parse_args()
    count = options.rounds
    texts = mixed(count + BULK * bulks(count))
    settings = load_settings()
    library = ModelLibrary(settings.home / "models", offline=True)
    threads = settings.models.threads or len(os.sched_getaffinity(0))
    encoder = load_encoder(library.files(options.model), form=options.form, threads=threads)
    with tempfile.TemporaryDirectory() as home, redis_url() as url:
        opened = places(Path(home), url)
        real = asyncio.run(through_batcher(encoder, opened, texts, count=count))
    with tempfile.TemporaryDirectory() as home, redis_url() as url:
        lane = Instant(ms=real["lone_miss"]["off"]["us"] / 1e3)
        many = mixed(20 * count + BULK * bulks(20 * count))
        floor = asyncio.run(measure(lane, places(Path(home), url), many, count=20 * count))
    result = verdict(real, floor)
    show(f"{options.model} {encoder.spec.form}: µs a text", result)
    without = {size: real[f"{size}_miss"]["off"]["us"] for size in ("lone", "bulk")}
    report(
        {"benchmark": "embedding_cache", "tiers": result, "without_cache_us": without,
         "model": real, "floor": floor, "baseline": "off"},
        settings={"model": options.model, "form": encoder.spec.form, "threads": threads,
                  "rounds": count, "bulk": BULK, "seed": 0},
    )  # fmt: skip


if __name__ == "__main__":
    main()
