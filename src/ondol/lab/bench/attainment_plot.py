"""The picture of a load test as SVG: the share of offered requests that were kept, by load.

One line a policy with its 95 % intervals, drawn by hand so that no plotting library is needed.
Pure: runs in, text out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ondol.lab.tune.tune_plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

COLOURS = ("#d35400", "#2e86c1", "#7f8c8d", "#27ae60", "#8e44ad")
_LEGEND = 120
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}"
    ".title{font-size:17px;font-weight:600}.small{font-size:11px;fill:#555}"
    ".axis{stroke:#999}.grid{stroke:#e4e4e4}"
)


def draw(runs: Sequence[Mapping[str, Any]], *, title: str, subtitle: str) -> str:
    """Return the SVG of ``runs`` (``policy``, ``load``, ``attainment_offered``, ``ci95``)."""
    loads = sorted({float(run["load"] or 0.0) for run in runs})
    policies = list(dict.fromkeys(str(run["policy"]) for run in runs))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}"><style>{_STYLE}</style>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>',
        f'<text class="small" x="{LEFT}" y="44">{escape(subtitle)}</text>',
        *_grid(loads),
    ]
    for number, policy in enumerate(policies):
        mine = sorted(
            (run for run in runs if run["policy"] == policy),
            key=lambda run: float(run["load"] or 0.0),
        )
        parts += _line(policy, mine, loads, COLOURS[number % len(COLOURS)], number)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _grid(loads: Sequence[float]) -> list[str]:
    parts = []
    for tenth in range(0, 11, 2):
        y = _y(tenth / 10)
        parts += [
            f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{_right():.1f}" y2="{y:.1f}"/>',
            f'<text class="small" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{tenth * 10} %</text>",
        ]
    for load in loads:
        parts.append(
            f'<text class="small" x="{_x(load, loads):.1f}" y="{HEIGHT - BOTTOM + 18}" '
            f'text-anchor="middle">{load:.2g}</text>'
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return [
        *parts,
        f'<line class="axis" x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{_right():.1f}" '
        f'y2="{HEIGHT - BOTTOM}"/>',
        f'<text x="{(LEFT + _right()) / 2:.0f}" y="{HEIGHT - 20}" text-anchor="middle">'
        "offered load, as a share of the capacity</text>",
        f'<text x="22" y="{middle:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 22 {middle:.0f})">offered requests that met the promise</text>',
    ]


def _line(
    policy: str,
    runs: Sequence[Mapping[str, Any]],
    loads: Sequence[float],
    colour: str,
    number: int,
) -> list[str]:
    points = [
        (_x(float(run["load"] or 0.0), loads), _y(float(run["attainment_offered"]))) for run in runs
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for (x, y), run in zip(points, runs, strict=True):
        share = float(run["attainment_offered"])
        low, high = run.get("ci95", {}).get("attainment_offered", (share, share))
        parts += [
            f'<line x1="{x:.1f}" y1="{_y(low):.1f}" x2="{x:.1f}" y2="{_y(high):.1f}" '
            f'stroke="{colour}"/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{escape(policy)}: '
            f"{share:.1%} ({low:.1%} to {high:.1%})</title></circle>",
        ]
    at = TOP + 18 * number
    return [
        *parts,
        f'<rect x="{_right() + 16:.0f}" y="{at}" width="12" height="12" fill="{colour}"/>',
        f'<text x="{_right() + 34:.0f}" y="{at + 11}">{escape(policy)}</text>',
    ]


def _right() -> float:
    return WIDTH - RIGHT - _LEGEND


def _x(load: float, loads: Sequence[float]) -> float:
    first, last = loads[0], loads[-1]
    share = (load - first) / (last - first) if last > first else 0.5
    return LEFT + 24 + (_right() - LEFT - 48) * share


def _y(share: float) -> float:
    return TOP + (HEIGHT - BOTTOM - TOP) * (1.0 - share)
