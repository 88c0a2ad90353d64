"""The server against the encoder it serves: what HTTP costs a lone request, and many clients.

Many keep-alive clients with one text each, then one client, against ``ondol serve`` with a real
model; before and after, the same encoder alone in a process of its own, in batches of the same
sizes. Run: ``python benchmarks/serve_embeddings.py [--model NAME] [--form FORM] [--seconds 10]``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import command, environment, report, table, working_home
from contestant import Contestant, claim_stdout, serve
from texts import english, korean, mixed

SAMPLES: dict[str, Callable[..., list[str]]] = {
    "english": english,
    "korean": korean,
    "mixed": mixed,
}
WARM_SECONDS = 1.0
LONE_CHARS = 120
"""A lone request is a question: the sample's texts up to this long."""


class Bare:
    """The child: one encoder, fed as a server's queue of so many clients would feed it."""

    def __init__(self) -> None:
        self._encoder: Any = None

    def load(self, *, home: str, model: str, form: str, threads: int) -> Mapping[str, Any]:
        from ondol.models.library import ModelLibrary
        from ondol.models.loading import load_encoder

        files = ModelLibrary(Path(home) / "models", offline=True).files(model)
        self._encoder = load_encoder(files, form=form, threads=threads)
        self._prefixes = (files.entry.query_prefix, files.entry.document_prefix)
        return {"form": self._encoder.spec.form}

    def many(
        self, *, texts: list[str], clients: int, seconds: float, budget: int
    ) -> Mapping[str, Any]:
        """Keep ``clients`` texts waiting, run ``next_batch`` of them, put as many new ones in."""
        from ondol.runtime.encoders.batching import Budget, next_batch

        spec = self._encoder.spec
        limit = Budget(tokens=budget, items=64, padded=spec.padded, buckets=spec.buckets)
        source = itertools.cycle(texts)
        waiting: list[Any] = []
        items = batches = 0
        started, cpu = time.perf_counter(), time.process_time()
        while (now := time.perf_counter()) - started < seconds:
            fresh = [self._prefixes[1] + next(source) for _ in range(clients - len(waiting))]
            waiting += [_Waiting(e) for e in self._encoder.tokenize(fresh, truncate=True)]
            chosen = next_batch(waiting, limit, now=now)
            self._encoder.run([waiting[i].encoded for i in chosen])
            waiting = [item for i, item in enumerate(waiting) if i not in set(chosen)]
            items += len(chosen)
            batches += 1
        taken = time.perf_counter() - started
        return {
            "per_second": items / taken,
            "batch": items / batches,
            "cpu_ms": (time.process_time() - cpu) * 1e3 / items,
        }

    def lone(self, *, texts: list[str], seconds: float) -> Mapping[str, Any]:
        """Tokenise and run one text at a time."""
        times = []
        cpu = time.process_time()
        until = time.perf_counter() + seconds
        for text in itertools.cycle(texts):
            started = time.perf_counter()
            self._encoder.run(self._encoder.tokenize([self._prefixes[0] + text], truncate=True))
            times.append(time.perf_counter() - started)
            if started > until:
                break
        return {**_quantiles(times), "cpu_ms": (time.process_time() - cpu) * 1e3 / len(times)}


@dataclass(frozen=True)
class _Waiting:
    encoded: Any
    urgent: bool = True
    arrived: float = 0.0

    @property
    def tokens(self) -> int:
        return int(self.encoded.tokens)


@dataclass
class Load:
    """What clients saw: seconds per answered request, statuses other than 200."""

    times: list[float] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0.0


async def client(
    port: int, bodies: Iterator[bytes], load: Load, begin: float, until: float
) -> None:
    """Send one request after the other on one connection; count those that start in the window."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while (started := time.perf_counter()) < until:
            body = next(bodies)
            writer.write(
                b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n"
                b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            answer = await reader.readexactly(length)
            if not head.startswith(b"http/1.1 200") or b'"embedding"' not in answer:
                load.errors += 1
            elif started >= begin:
                load.times.append(time.perf_counter() - started)
    finally:
        writer.close()


async def _clients(port: int, bodies: Sequence[bytes], count: int, seconds: float) -> Load:
    load = Load(seconds=seconds)
    begin = time.perf_counter() + WARM_SECONDS
    source = itertools.cycle(bodies)
    await asyncio.gather(
        *(client(port, source, load, begin, begin + seconds) for _ in range(count))
    )
    return load


class Server:
    """``ondol serve`` with this model and nothing else that thinks."""

    def __init__(self, options: argparse.Namespace) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        home = working_home("serve-embeddings")
        env = environment(home) | {
            "ONDOL_MODELS_EMBEDDER": options.model,
            "ONDOL_MODELS_FORM": options.form,
            "ONDOL_MODELS_RERANKER": "none",
            "ONDOL_MODELS_TOKEN_BUDGET": str(options.budget),
            "ONDOL_GENERATION_MODEL": "none",
            "ONDOL_CACHE_EMBEDDINGS": "off",
        }
        env |= dict(pair.split("=", 1) for pair in options.env)
        self._log = (home / "server.log").open("wb")
        self._process = subprocess.Popen(
            command("serve", "--port", str(self.port)), env=env, stderr=self._log
        )

    def wait(self) -> None:
        """Return once it answers; leaves with its log where it does not."""
        if not asyncio.run(self._ready()):
            log = Path(self._log.name).read_text(errors="replace")
            raise SystemExit(f"the server is not ready: {log[-2000:]}")

    async def _ready(self) -> bool:
        for _ in range(600):
            if self._process.poll() is not None:
                break
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
                line = await reader.readline()
                writer.close()
                if b" 200 " in line:
                    return True
            except OSError:
                pass
            await asyncio.sleep(0.1)
        return False

    def load(self, bodies: Sequence[bytes], *, clients: int, seconds: float) -> Mapping[str, Any]:
        cpu, own = self._cpu(), time.process_time()
        load = asyncio.run(_clients(self.port, bodies, clients, seconds))
        whole = (WARM_SECONDS + seconds) / seconds
        done = max(1, len(load.times))
        return {
            "per_second": len(load.times) / seconds,
            "errors": load.errors,
            "cpu_ms": (self._cpu() - cpu) * 1e3 / done / whole,
            "client_cpu_ms": (time.process_time() - own) * 1e3 / done / whole,
            **_quantiles(load.times),
        }

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.resume()
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def _cpu(self) -> float:
        """Return the processor seconds the server has used."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {"p50_ms": 0.0, "p99_ms": 0.0}
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3}


def bodies(options: argparse.Namespace, texts: Sequence[str], *, role: str) -> list[bytes]:
    return [
        json.dumps(
            {
                "model": options.model,
                "input": text,
                "input_type": role,
                "truncate": True,
                "encoding_format": options.encoding,
            }
        ).encode()
        for text in texts
    ]


def measure(options: argparse.Namespace, bare: Contestant, server: Server) -> dict[str, Any]:
    """Run bare, served, bare; one process at a time has the processor."""
    texts = SAMPLES[options.sample](options.texts)
    random.Random(1).shuffle(texts)
    lone = [text for text in texts if len(text) <= LONE_CHARS][:200]
    half = options.seconds / 2
    asked: dict[str, Any] = {"texts": texts, "clients": options.clients, "budget": options.budget}
    found: dict[str, list[Mapping[str, Any]]] = {"bare": [], "bare lone": []}
    server.pause()
    for turn in range(2):
        found["bare"].append(bare.call("many", seconds=half, **asked))
        found["bare lone"].append(bare.call("lone", texts=lone, seconds=half / 2))
        if turn == 0:
            server.resume()
            served = server.load(
                bodies(options, texts, role="document"),
                clients=options.clients,
                seconds=options.seconds,
            )
            alone = server.load(
                bodies(options, lone, role="query"), clients=1, seconds=options.seconds / 2
            )
            server.pause()
    mean = {
        name: {key: statistics.fmean(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }
    return {"bare": mean["bare"], "served": served, "bare lone": mean["bare lone"], "lone": alone}


def main() -> None:
    if "--bare" in sys.argv:
        child = Bare()
        serve({"load": child.load, "many": child.many, "lone": child.lone}, claim_stdout())
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="all-minilm-l6-v2")
    parser.add_argument("--form", default="onnx:int8")
    parser.add_argument("--sample", choices=SAMPLES, default="english")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--encoding", choices=("float", "base64"), default="float")
    parser.add_argument("--env", action="append", default=[], help="NAME=VALUE for the server")
    options = parser.parse_args()
    bare = Contestant("bare", [sys.executable, __file__, "--bare"])
    server = Server(options)
    try:
        server.wait()
        home = os.environ.get("ONDOL_HOME", str(Path.home() / ".local/share/ondol"))
        cores = len(os.sched_getaffinity(0))
        bare.call("load", home=home, model=options.model, form=options.form, threads=cores)
        runs = measure(options, bare, server)
    finally:
        server.close()
        bare.close()
    names = ("per_second", "batch", "p50_ms", "p99_ms", "cpu_ms", "client_cpu_ms", "errors")
    table(
        ("run", *names),
        [
            (run, *(f"{figures[name]:.2f}" if name in figures else "-" for name in names))
            for run, figures in runs.items()
        ],
    )
    many, alone = runs["served"], runs["lone"]
    report(
        {
            "bare_per_second": round(runs["bare"]["per_second"], 1),
            "served_per_second": round(many["per_second"], 1),
            "overhead": round(1 - many["per_second"] / runs["bare"]["per_second"], 4),
            "served_p50_ms": round(many["p50_ms"], 2),
            "served_p99_ms": round(many["p99_ms"], 2),
            "server_cpu_ms_over_bare": round(many["cpu_ms"] - runs["bare"]["cpu_ms"], 3),
            "client_cpu_ms": round(many["client_cpu_ms"], 3),
            "bare_lone_p50_ms": round(runs["bare lone"]["p50_ms"], 3),
            "lone_p50_ms": round(alone["p50_ms"], 3),
            "lone_overhead_ms": round(alone["p50_ms"] - runs["bare lone"]["p50_ms"], 3),
            "errors": many["errors"] + alone["errors"],
        },
        settings=vars(options),
    )


if __name__ == "__main__":
    main()
