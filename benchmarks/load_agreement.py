"""Does an independent load generator see what ``bench serve``'s client sees? guidellm, same server.

Both ask one ``ondol serve`` (a generator only, four slots) for prompts of the same lengths, other
texts, in turn: one at a time, four at a time, and at a fixed rate whatever became of the others. It
agrees where TTFT, time per token and tokens a second differ by 10 % at most. guidellm runs in an
environment of its own, offline: it takes the texts and the server's token counts as they are. One core
is left to the clients: where the engine wants them all, the client that needs more slows the server.
Run: ``python benchmarks/load_agreement.py --install`` once, then without.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ROOT, environment, report, table

from ondol.core.settings import load_settings
from ondol.lab.bench.load_figures import Promise, figures
from ondol.lab.bench.load_measuring import capacity, shots_now, yardstick_of
from ondol.lab.bench.load_plan import Manner, Shot, Target, ask
from ondol.lab.bench.load_prompts import PromptMaker
from ondol.lab.bench.request_trace import Row, rows_of_sizes
from ondol.lab.bench.server_child import ServedChild

GUIDELLM = "guidellm==0.3.1"
"""The last version without torch among its needs."""
TOLERANCE = 0.10
SLOTS = 4
FIXED_LOAD = 0.6
KEYS = ("ttft_p50_ms", "tpot_p50_ms", "output_tokens_per_second")
SHAPES = ("one at a time", "four at a time", "fixed rate")


@dataclass(frozen=True, slots=True)
class Asked:
    """One turn of one client: the shape, the rows, and the rate where it is fixed."""

    shape: str
    rows: tuple[Row, ...]
    rate: float = 0.0


def main() -> None:
    options = _options()
    binary = options.peer / "bin" / "guidellm"
    if options.install:
        _install(options.peer)
    if not binary.exists():
        raise SystemExit(f"no guidellm in {options.peer}: run this with --install once")
    rows = rows_of_sizes(options.sizes, count=options.requests, seed=options.seed)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with _server(options.model, options.url, threads=options.threads) as target:
        maker = PromptMaker(yardstick_of(target), seed=options.seed)
        turns = Turns(target, maker, binary)
        turns.ours(Asked("four at a time", rows[:SLOTS]))
        rps = capacity(target, turns.shots(rows), slots=SLOTS, counted=len(rows) - SLOTS)
        for turn in range(options.rounds):
            for shape in SHAPES:
                asked = Asked(shape, rows, FIXED_LOAD * rps if shape == "fixed rate" else 0.0)
                sides = {"ondol": turns.ours, "guidellm": turns.theirs}
                for name in sorted(sides, reverse=bool(turn % 2)):
                    print(f"round {turn + 1}: {shape}, {name}", file=sys.stderr)
                    before = _children_seconds()
                    figures_of = sides[name](asked)
                    figures_of["client_cpu_seconds"] = _children_seconds() - before
                    found.setdefault((shape, name), []).append(figures_of)
    _report(found, options)


class Turns:
    """Asks the same server as either client, with texts that no one asked before."""

    def __init__(self, target: Target, maker: PromptMaker, binary: Path) -> None:
        self._target = target
        self._maker = maker
        self._binary = binary
        self._number = 0

    def shots(self, rows: Sequence[Row]) -> list[Shot]:
        """Return ``rows`` with new texts, each one user message: guidellm sends no other."""
        self._number += len(rows)
        made = shots_now(self._maker, rows, first=self._number)
        return [Shot(0.0, shot.row, shot.messages[1:]) for shot in made]

    def ours(self, asked: Asked) -> dict[str, float]:
        """Ask with the client of ``bench serve``."""
        shots = self.shots(asked.rows)
        manner = Manner(concurrency=_concurrency(asked))
        if asked.rate:
            times = _constant(len(shots), asked.rate)
            shots = [Shot(at, one.row, one.messages) for at, one in zip(times, shots, strict=True)]
        seen = ask(self._target, shots, manner).seen
        found = figures(seen, Promise())
        return {key: found[key] for key in KEYS} | {"completed": found["completed"]}

    def theirs(self, asked: Asked) -> dict[str, float]:
        """Ask with guidellm and read its report."""
        with tempfile.TemporaryDirectory(prefix="ondol-guidellm-") as name:
            folder = Path(name)
            data, out = folder / "prompts.jsonl", folder / "benchmarks.json"
            lines = [
                {
                    "prompt": shot.messages[0]["content"],
                    "output_tokens_count": shot.row.output_tokens,
                }
                for shot in self.shots(asked.rows)
            ]
            data.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
            done = subprocess.run(
                [*self._line(asked), "--data", str(data), "--output-path", str(out)],
                env=_environment(folder),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
            if not out.exists():
                said = done.stderr.decode("utf-8", "replace")[-1500:]
                raise SystemExit(f"guidellm exited {done.returncode}: {said}")
            return _read(json.loads(out.read_text("utf-8")))

    def _line(self, asked: Asked) -> list[str]:
        kind = {"one at a time": "synchronous", "four at a time": "concurrent"}
        rate = {"four at a time": str(SLOTS), "fixed rate": f"{asked.rate:.6f}"}
        backend = {"remove_from_body": ["ignore_eos", "stop"], "extra_body": {"temperature": 0}}
        line = [str(self._binary), "benchmark", "run", "--target", self._target.url]
        line += ["--model", self._target.model, "--backend-args", json.dumps(backend)]
        line += ["--rate-type", kind.get(asked.shape, "constant")]
        line += ["--rate", rate[asked.shape]] if asked.shape in rate else []
        line += ["--max-requests", str(len(asked.rows)), "--disable-progress"]
        return [*line, "--disable-console-outputs"]


def _children_seconds() -> float:
    """Return the processor seconds of the client processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _constant(count: int, rate: float) -> list[float]:
    """Return guidellm's times of a constant rate: a second's worth at once, then evenly."""
    burst = min(count, math.floor(rate))
    return [0.0] * burst + [(number + 1) / rate for number in range(count - burst)]


def _read(found: dict[str, Any]) -> dict[str, float]:
    """Return guidellm's figures in our words, from its single requests.

    Its own tokens a second divide by the sum of its clients' hours, so they are counted anew: all
    tokens over the time from the first start to the last end.
    """
    (run,) = found["benchmarks"]
    done = run["requests"]["successful"]
    tokens = sum(one["output_tokens"] for one in done)
    seconds = max(one["end_time"] for one in done) - min(one["start_time"] for one in done)
    each = [
        (one["last_token_time"] - one["first_token_time"]) / (one["output_tokens"] - 1) * 1e3
        for one in done
        if one["output_tokens"] > 1
    ]
    return {
        "ttft_p50_ms": statistics.median(one["time_to_first_token_ms"] for one in done),
        "tpot_p50_ms": statistics.median(each),
        "output_tokens_per_second": tokens / seconds,
        "completed": len(done),
    }


def _concurrency(asked: Asked) -> int:
    return {"one at a time": 1, "four at a time": SLOTS}.get(asked.shape, 0)


def _environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in environment().items() if not key.startswith("ONDOL_")}
    return kept | {
        "HF_HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "GUIDELLM__PREFERRED_ROUTE": "chat_completions",
        "GUIDELLM__MAX_WORKER_PROCESSES": "1",
        "GUIDELLM__REQUEST_HTTP2": "false",
    }


class _server:
    """A server of our own, or the one at ``url``."""

    def __init__(self, model: str, url: str, *, threads: int) -> None:
        self._model = model
        self._url = url
        self._threads = threads
        self._child: ServedChild | None = None

    def __enter__(self) -> Target:
        if self._url:
            return Target(self._url, self._model)
        settings = load_settings(
            flags={"generation.slots": SLOTS, "generation.threads": self._threads}
        )
        self._child = ServedChild(settings, model=self._model)
        return self._child.target

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.close()


def _report(
    found: dict[tuple[str, str], list[dict[str, float]]], options: argparse.Namespace
) -> None:
    rows, shapes, agrees = [], {}, True
    for shape in SHAPES:
        middle = {
            name: {
                key: statistics.median(run[key] for run in found[shape, name])
                for key in (*KEYS, "completed", "client_cpu_seconds")
            }
            for name in ("ondol", "guidellm")
        }
        ratios = {key: middle["ondol"][key] / middle["guidellm"][key] for key in KEYS}
        agrees &= all(abs(ratio - 1) <= TOLERANCE for ratio in ratios.values())
        shapes[shape] = {**middle, "ratio": ratios}
        rows += [
            (
                shape,
                key,
                f"{middle['ondol'][key]:.1f}",
                f"{middle['guidellm'][key]:.1f}",
                f"{ratios[key]:.3f}",
            )
            for key in KEYS
        ]
    table(("shape", "figure", "bench serve", "guidellm", "ratio"), rows)
    report(
        {"benchmark": "load_agreement", "baseline": GUIDELLM, "agrees": agrees, "shapes": shapes},
        settings={key: str(value) for key, value in vars(options).items()},
    )


def _install(peer: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(peer)], check=True)
    pip = [str(peer / "bin" / "python"), "-m", "pip", "install", "-q", GUIDELLM]
    subprocess.run(pip, check=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--url", default="", help="a server that runs already")
    parser.add_argument("--sizes", default="120x24@2,300x48", help="prompt x answer tokens")
    parser.add_argument("--requests", type=int, default=40, help="in each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=max(1, cores - 1), help="of the engine")
    parser.add_argument(
        "--peer",
        type=Path,
        default=Path(os.environ.get("LOAD_PEER", ROOT / ".load-peer")),
        help="guidellm's environment",
    )
    parser.add_argument("--install", action="store_true", help=f"make it, with {GUIDELLM}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
