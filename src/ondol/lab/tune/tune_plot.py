"""The picture of a search as SVG: throughput to the right, fidelity upwards, memory as the bubble.

One bubble a form, at its best candidate; the chosen ones are filled darker. Written by hand, so that
no plotting library is needed. Pure: rows in, text out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 86, 40, 64, 64
LEAST_LOSS = 1e-5
"""Losses are drawn on a logarithmic axis that ends here: 0.001 %."""

_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}"
    ".title{font-size:17px;font-weight:600}.small{font-size:11px;fill:#555}"
    ".axis{stroke:#999}.grid{stroke:#e4e4e4}.gate{stroke:#c0392b;stroke-dasharray:5 4}"
)


def draw(
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str,
    subtitle: str,
    chosen: Sequence[str],
    gate: float,
) -> str:
    """Return the SVG of measured ``rows``; ``chosen`` are the forms that won, ``gate`` a loss."""
    best = _best_by_form(rows)
    fastest = max((float(row["texts_per_second"]) for row in best), default=1.0)
    top = _round_up(fastest * 1.12)
    most = max((float(row["peak_rss_mb"]) for row in best), default=1.0)
    worst = max([gate, *(float(row["loss"]) for row in best)]) * 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}"><style>{_STYLE}</style>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>',
        f'<text class="small" x="{LEFT}" y="44">{escape(subtitle)}</text>',
        *_grid(top, worst),
        *_gate_line(gate, worst),
        *_bubbles(best, chosen=chosen, top=top, worst=worst, most=most),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _best_by_form(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    best: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row.get("texts_per_second") is None or row.get("loss") is None:
            continue
        other = best.get(row["form"])
        if other is None or row["texts_per_second"] > other["texts_per_second"]:
            best[row["form"]] = row
    return sorted(best.values(), key=lambda row: -float(row["peak_rss_mb"]))


def _grid(top: float, worst: float) -> list[str]:
    parts = []
    for step in range(6):
        value = top * step / 5
        x = _x(value, top)
        parts += [
            f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>',
            f'<text class="small" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" '
            f'text-anchor="middle">{value:g}</text>',
        ]
    decade = LEAST_LOSS
    while decade <= worst:
        y = _y(decade, worst)
        parts += [
            f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>',
            f'<text class="small" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{decade * 100:g} %</text>",
        ]
        decade *= 10
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return [
        *parts,
        f'<line class="axis" x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH - RIGHT}" '
        f'y2="{HEIGHT - BOTTOM}"/>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 20}" text-anchor="middle">'
        "throughput, texts per second</text>",
        f'<text x="22" y="{middle:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 22 {middle:.0f})">loss against the reference form</text>',
    ]


def _gate_line(gate: float, worst: float) -> list[str]:
    if gate <= 0:
        return []
    y = _y(gate, worst)
    return [
        f'<line class="gate" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>',
        f'<text class="small" x="{WIDTH - RIGHT}" y="{y + 14:.1f}" text-anchor="end">'
        f"chosen by itself only above this line ({gate:.2%})</text>",
    ]


def _bubbles(
    rows: Sequence[Mapping[str, Any]],
    *,
    chosen: Sequence[str],
    top: float,
    worst: float,
    most: float,
) -> list[str]:
    parts: list[str] = []
    taken: list[tuple[float, float]] = []
    for row in rows:
        x, y = _x(float(row["texts_per_second"]), top), _y(float(row["loss"]), worst)
        memory = float(row["peak_rss_mb"])
        radius = 8 + 22 * math.sqrt(memory / most)
        won = row["form"] in chosen
        fill, opacity = ("#d35400", 0.75) if won else ("#2e86c1", 0.35)
        weight = ' font-weight="600"' if won else ""
        label = _free_place(x, y + 4, taken)
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{fill}" '
            f'fill-opacity="{opacity}" stroke="{fill}"><title>{escape(row["form"])}: '
            f"{float(row['texts_per_second']):.0f} texts/s, loss {float(row['loss']):.3%}, "
            f"{memory:.0f} MB</title></circle>",
            f'<text x="{x:.1f}" y="{label:.1f}" text-anchor="middle"{weight}>'
            f"{escape(row['form'])} "
            f'<tspan class="small">{memory:.0f} MB</tspan></text>',
        ]
    return parts


def _free_place(x: float, y: float, taken: list[tuple[float, float]]) -> float:
    """Return the nearest height at or below ``y`` where a label meets no other."""
    while any(abs(x - other_x) < 150 and abs(y - other_y) < 15 for other_x, other_y in taken):
        y += 15
    taken.append((x, y))
    return y


def _x(value: float, top: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / top


def _y(loss: float, worst: float) -> float:
    """The least loss stands at the top."""
    span = math.log10(worst / LEAST_LOSS)
    share = math.log10(max(loss, LEAST_LOSS) / LEAST_LOSS) / span if span > 0 else 0.0
    return TOP + 34 + (HEIGHT - BOTTOM - TOP - 34) * share


def _round_up(value: float) -> float:
    """Return the next number that divides into five plain steps."""
    step = math.pow(10, math.floor(math.log10(max(value, 1e-9) / 5)))
    for factor in (1, 2, 2.5, 5, 10):
        if step * factor * 5 >= value:
            return step * factor * 5
    return step * 50
