"""``ondol metrics``: what the server did, from the figures it kept."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import Output

if TYPE_CHECKING:
    from ondol.app.metric_summary import MetricSummary, SummaryRow
    from ondol.telemetry.metric_rows import Group

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_HEADER = (
    *("OFFERED", "OK", "REFUSED", "FAILED", "REQ/S", "GOOD/S", "MET OFFERED", "MET ADMITTED"),
    *("TTFT P50", "TTFT P95", "TPOT", "TOKENS IN", "OUT", "CACHED"),
)


class Period(click.ParamType[float]):
    """``90s``, ``30m``, ``1h`` or ``7d``, as seconds."""

    name = "period"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", str(value).strip())
        seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
        if seconds <= 0:
            self.fail(f"{value!r} is not a period such as 90s, 30m, 1h or 7d", param, ctx)
        return seconds


@click.group()
@global_options()
def metrics() -> None:
    """Show what the server did, from the figures it kept."""


@metrics.command()
@click.option(
    "--since",
    type=Period(),
    default="1h",
    show_default=True,
    metavar="PERIOD",
    help="How far back: 90s, 30m, 1h, 7d.",
)
@click.option("--by", type=click.Choice(["hour", "lane", "model"]), help="One row for each.")
@global_options()
@click.pass_obj
def summary(invocation: Invocation, *, since: float, by: Group | None) -> None:
    """Sum up the requests of the last PERIOD.

    MET is the share of requests with a deadline that met it, of all that were offered (a refusal
    is a broken promise) and of those admitted. GOOD/S counts met deadlines per second, TTFT is the
    time to the first token, TPOT the median time per token after it (milliseconds), CACHED the
    share of prompt tokens found in the cache. Rates are over the whole period, idle time too.
    """
    from ondol.app.metric_summary import summarise

    async def work() -> MetricSummary:
        async with invocation.container() as container:
            now = invocation.clock.wall()
            return await asyncio.to_thread(
                summarise, container.metrics, since=now - since, until=now, by=by or "all"
            )

    found = invocation.run(work())
    if invocation.output.as_json:
        invocation.output.data(found)
    elif found.total is None:
        invocation.output.note(
            "no request was recorded in this period; the server records while telemetry.record is on"
        )
    else:
        _show(invocation.output, found, found.total)


def _show(output: Output, found: MetricSummary, total: SummaryRow) -> None:
    if found.groups:
        output.table(
            (found.by.upper(), *_HEADER),
            [
                *((_name(found, row.group), *_cells(row)) for row in found.groups),
                ("all", *_cells(total)),
            ],
        )
    else:
        output.table(_HEADER, [_cells(total)])
    if found.refusals:
        reasons = (f"{code or 'refused'} {count}" for code, count in found.refusals.items())
        output.text(f"refused: {', '.join(reasons)}")


def _name(found: MetricSummary, group: str | int) -> str:
    if found.by == "hour":
        return datetime.fromtimestamp(float(group)).strftime("%Y-%m-%d %H:%M")
    return str(group) or "-"


def _cells(row: SummaryRow) -> Sequence[str]:
    return (
        str(row.offered),
        str(row.completed),
        str(row.rejected),
        str(row.failed + row.timed_out),
        f"{row.throughput_rps:.3g}",
        f"{row.goodput_rps:.3g}",
        _percent(row.attainment_offered),
        _percent(row.attainment_admitted),
        _milliseconds(row.ttft_p50_ms),
        _milliseconds(row.ttft_p95_ms),
        _milliseconds(row.tpot_p50_ms),
        str(row.tokens_in),
        str(row.tokens_out),
        _percent(row.cached_share),
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
