"""``ondol bench serve``: open-loop load on a server, policy against policy, as JSON and a picture.

The options of ``ondol bench serve``: what is asked, when, of whom, and under which terms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import F, global_options
from ondol.cli.output import meter, noting
from ondol.lab.commands.bench_encoders import Numbers, generator_named

if TYPE_CHECKING:
    from ondol.lab.bench.request_trace import Row
    from ondol.lab.bench.serve_bench import ServeLoad, Server, ServeTerms, StartServer


POLICIES = ("slo", "sjf", "fifo")
SIZES = "60x24@6,240x48@3,900x64"

_LOAD_OPTIONS = [
    click.option(
        "--trace",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Sizes (and times) from an Azure CSV or a Mooncake JSONL trace.",
    ),
    click.option(
        "--sizes",
        default=SIZES,
        show_default=True,
        metavar="PxA[@W],…",
        help="Without a trace: prompt x answer tokens, and how often each.",
    ),
    click.option(
        "--arrivals",
        type=click.Choice(["poisson", "burst", "trace"]),
        default="poisson",
        show_default=True,
        help="How requests come; trace keeps the file's rhythm.",
    ),
    click.option(
        "--loads",
        type=Numbers(),
        default="0.7,0.9,1.0",
        show_default=True,
        help="Arrivals as shares of the capacity, which is measured first.",
    ),
    click.option(
        "--rates", type=Numbers(), default="", help="Arrivals a second, in place of --loads."
    ),
    click.option(
        "--requests",
        "count",
        type=click.IntRange(min=1),
        default=100,
        show_default=True,
        help="Requests a run.",
    ),
    click.option(
        "--seconds",
        type=click.FloatRange(min=0),
        default=0.0,
        help="Run for so long instead, at each rate.",
    ),
    click.option(
        "--burst-size", type=click.IntRange(min=0), default=0, help="Requests a burst; 0: all."
    ),
    click.option(
        "--burst-every",
        type=click.FloatRange(min=0),
        default=1.0,
        show_default=True,
        help="Seconds between bursts.",
    ),
    click.option(
        "--scale",
        type=click.FloatRange(min=0, min_open=True),
        default=1.0,
        show_default=True,
        help="Multiply all token counts.",
    ),
    click.option(
        "--median-prefill-seconds",
        "median_prefill",
        type=click.FloatRange(min=0),
        default=0.0,
        help="Choose the scale so that the median prompt prefills alone in so long.",
    ),
    click.option(
        "--capacity",
        "capacity_rps",
        type=click.FloatRange(min=0),
        default=0.0,
        help="Requests a second that count as load 1; without it they are measured.",
    ),
    click.option(
        "--capacity-requests",
        type=click.IntRange(min=1),
        default=40,
        show_default=True,
        help="Requests that measure the capacity.",
    ),
    click.option(
        "--warm-up",
        type=click.IntRange(min=0),
        default=16,
        show_default=True,
        help="Requests before each run that do not count.",
    ),
]
_TERM_OPTIONS = [
    click.option("--url", metavar="URL", help="Load this server as it is; else start our own."),
    click.option("--model", metavar="ID", help="Generator. Default: the one of the settings."),
    click.option(
        "--policies",
        default=",".join(POLICIES),
        show_default=True,
        help="Policies to compare, on servers of our own.",
    ),
    click.option("--slots", type=click.IntRange(min=1), default=4, show_default=True),
    click.option(
        "--deadline-ms",
        type=click.FloatRange(min=0),
        default=2000.0,
        show_default=True,
        help="Deadline sent with each request; 0 sends none.",
    ),
    click.option(
        "--sla-ms",
        type=click.FloatRange(min=0),
        default=0.0,
        help="First token within so long counts as met. Default: the deadline, else 2000.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        default=0,
        help="A refused client comes back so often, after Retry-After.",
    ),
    click.option(
        "--disconnect-share",
        type=click.FloatRange(0, 1),
        default=0.0,
        help="Share of the clients that leave within two seconds.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        help="Longest whole answer in seconds.",
    ),
    click.option("--seed", type=int, default=0, show_default=True),
]


def load_options(function: F) -> F:
    """Add every option that says what is asked, of whom, and under which terms."""
    for option in reversed(_LOAD_OPTIONS + _TERM_OPTIONS):
        function = option(function)
    return function


BAR = 24


@click.command()
@load_options
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Write the picture as SVG."
)
@global_options()
@click.pass_obj
def serve(
    invocation: Invocation, /, *, url: str | None, model: str | None, plot: Path | None, **how: Any
) -> None:
    """Load a server with the same schedule for every policy.

    Requests are sent at their scheduled times from a process of its own, whatever became of the
    others; times count from the schedule, and refusals and errors are in the denominator. Each
    policy gets a fresh server with only a generator.
    """
    from ondol.lab.bench.provenance import provenance
    from ondol.lab.bench.serve_bench import ServeBench

    invocation.start_logging()
    name = generator_named(invocation, model, url=url)
    load, terms = _load(how), _terms(invocation, name, how, alone=url is not None)
    start = _given(url.rstrip("/")) if url else _own(invocation, name, terms.slots)
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        found = ServeBench(load, terms, start=start, note=noting(shown)).run()
    found |= {
        "settings": {
            **{key: str(value) if isinstance(value, Path) else value for key, value in how.items()},
            "url": url,
            "queue": invocation.settings.lanes.chat.queue,
        },
        **provenance(),
    }
    if plot is not None:
        _draw(plot, found)
    if invocation.output.as_json:
        invocation.output.data(found)
    else:
        _show(invocation, found)


def _load(how: dict[str, Any]) -> ServeLoad:
    from ondol.lab.bench.load_plan import Arrivals
    from ondol.lab.bench.serve_bench import ServeLoad

    arrivals = Arrivals(how["arrivals"], how["seed"], how["burst_size"], how["burst_every"])
    taken = ("count", "seconds", "scale", "median_prefill", "capacity_rps", "capacity_requests")
    return ServeLoad(
        rows=_rows(how),
        arrivals=arrivals,
        loads=how["loads"],
        rates=how["rates"],
        warm_up=how["warm_up"],
        **{key: how[key] for key in taken},
    )


def _rows(how: dict[str, Any]) -> tuple[Row, ...]:
    from ondol.lab.bench.request_trace import read_trace, rows_of_sizes

    if how["trace"] is None:
        if how["arrivals"] == "trace":
            raise click.UsageError("--arrivals trace needs the file: --trace FILE")
        return rows_of_sizes(how["sizes"], count=max(1000, how["count"]), seed=how["seed"])
    rows = read_trace(how["trace"])
    # Without --seconds every run asks the same rows, so the median and the capacity are of those.
    return rows if how["seconds"] else rows[: how["count"]]


def _terms(invocation: Invocation, model: str, how: dict[str, Any], *, alone: bool) -> ServeTerms:
    from ondol.lab.bench.load_figures import Promise
    from ondol.lab.bench.serve_bench import ServeTerms

    policies = tuple(part.strip() for part in how["policies"].split(",") if part.strip())
    unknown = [policy for policy in policies if policy not in POLICIES]
    if unknown or not policies:
        raise click.UsageError(f"--policies takes {', '.join(POLICIES)}, not {how['policies']!r}")
    generation, keys = invocation.settings.generation, invocation.settings.server.api_keys
    return ServeTerms(
        model=model,
        policies=("as it runs",) if alone else policies,
        context_tokens=generation.context_tokens,
        most_output=generation.max_tokens,
        headers={"authorization": f"Bearer {keys[0]}"} if alone and keys else {},
        promise=Promise(how["sla_ms"] or how["deadline_ms"] or 2000.0, how["seed"]),
        **{
            key: how[key]
            for key in ("slots", "deadline_ms", "retries", "disconnect_share", "timeout", "seed")
        },
    )


def _own(invocation: Invocation, model: str, slots: int) -> StartServer:
    """Start a child of ours per policy; alone it serves in order and refuses nothing as late."""
    from ondol.lab.bench.serve_bench import ALONE
    from ondol.lab.bench.server_child import ServerChild, only_generator

    def start(policy: str) -> AbstractContextManager[Server]:
        named = "fifo" if policy == ALONE else policy
        over = only_generator(invocation.settings, model=model, slots=slots, policy=named)
        if policy == ALONE:
            over["lanes.chat.sla_ms"] = 0
        return ServerChild(invocation.settings, over)

    return start


class _Given:
    """A server that somebody else runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def memory_mb(self, *, peak: bool = False) -> float:
        return 0.0


def _given(url: str) -> StartServer:
    @contextmanager
    def start(policy: str) -> Iterator[Server]:
        yield _Given(url)

    return start


def _draw(path: Path, found: dict[str, Any]) -> None:
    from ondol.lab.bench.attainment_plot import draw

    promise = f"first token within {found['sla_ms']:g} ms"
    subtitle = (
        f"{promise}, {found['arrivals']} arrivals, {found['slots']} slots, "
        f"{found['cores']} cores, seed {found['seed']}"
    )
    path.write_text(draw(found["runs"], title=found["model"], subtitle=subtitle), "utf-8")


def _show(invocation: Invocation, found: dict[str, Any]) -> None:
    output = invocation.output
    output.table(
        (
            "LOAD",
            "POLICY",
            "MET OF OFFERED",
            "",
            "95 %",
            "OF ADMITTED",
            "TTFT P50",
            "P99",
            "REFUSED",
            "FAILED",
            "LONGEST WAIT",
        ),
        [_row(run) for run in found["runs"]],
    )
    capacity = found["capacity_rps"]
    measured = f"capacity {capacity:.2f} requests a second, " if capacity else ""
    output.text(
        f"{measured}median prompt {found['prompt_tokens_p50']:.0f} and answer "
        f"{found['output_tokens_p50']:.0f} tokens (scale {found['scale']:.3f}); "
        f"met: first token within {found['sla_ms']:g} ms"
    )


def _row(run: dict[str, Any]) -> tuple[object, ...]:
    share = run["attainment_offered"]
    low, high = run["ci95"].get("attainment_offered", (share, share))
    return (
        f"{run['load']:.2f}" if run["load"] is not None else "-",
        run["policy"],
        f"{share:.1%}",
        "█" * round(BAR * share),
        f"{low:.0%} to {high:.0%}",
        f"{run['attainment_admitted']:.1%}",
        f"{run['ttft_p50_ms']:.0f} ms",
        f"{run['ttft_p99_ms']:.0f} ms",
        run["rejected"],
        run["failed"],
        f"{run['max_wait_ms'] / 1e3:.1f} s",
    )
