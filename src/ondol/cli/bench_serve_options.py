"""The options of ``ondol bench serve``: what is asked, when, of whom, and under which terms."""

from __future__ import annotations

from pathlib import Path

import click

from ondol.cli.bench_options import Numbers
from ondol.cli.options import F

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
