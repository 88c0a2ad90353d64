"""Fits and checks the estimate behind abstaining (``ondol.answers.features``).

Answerable: a question over its own collection. Unanswerable: over another collection, or over its own
with the judged documents taken out of the hits (hard). Half of the questions fit, the other half
checks. Needs a home in which ``benchmarks/retrieval.py`` has ingested the sets:
``python benchmarks/relevance.py --home DIR``.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import data_set, report, table
from numpy.typing import NDArray

from ondol.answers.features import DEFAULT, RelevanceCalibration, relevance, signals
from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.settings import load_settings
from ondol.core.settings.sections import AnswerSettings
from ondol.core.types import Hit
from ondol.lab.evaluate.datasets import Query, load_beir

SETS = ("ko_korquad", "ko_fire_petitions", "ko_law_statutes", "en_scifact_subset")
PER_SET = 120
Row = tuple[float, float, int, str]


async def rows_of(container: Container, chance: random.Random) -> list[Row]:
    """Return (cosine, coverage, answerable, kind) per question and collection."""
    rows: list[Row] = []
    for name in SETS:
        queries = list(load_beir(data_set(name)).queries)
        chance.shuffle(queries)
        for query in queries[:PER_SET]:
            own = await found(container, name, query)
            rows.append((*measure(query, own), 1, "own"))
            without = [hit for hit in own if hit.document not in query.relevant]
            rows.append((*measure(query, without), 0, "gold removed"))
            other = chance.choice(
                [s for s in SETS if s != name and s[:2] == name[:2]] or list(SETS[:3])
            )
            rows.append((*measure(query, await found(container, other, query)), 0, "other set"))
    return rows


async def found(container: Container, name: str, query: Query) -> list[Hit]:
    result = await container.retrieval.search(f"eval-{name}", query.text, top_k=20, rerank=False)
    return result.hits


def measure(query: Query, hits: Sequence[Hit]) -> tuple[float, float]:
    signal = signals(query.text, list(hits)[:10])
    return signal.dense, signal.coverage


def fit(rows: Sequence[Row]) -> RelevanceCalibration:
    """Fit a logistic regression by Newton's method with a little ridge."""
    x: NDArray[np.float64] = np.array([(1.0, dense, cover) for dense, cover, _, _ in rows])
    y = np.array([label for _, _, label, _ in rows], dtype=np.float64)
    weight = np.where(y == 1, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    beta = np.zeros(3)
    for _ in range(60):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -40, 40)))
        gradient = x.T @ (weight * (y - p)) - 1e-3 * beta
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(3)
        beta = beta + np.linalg.solve(hessian, gradient)
    return RelevanceCalibration(bias=float(beta[0]), dense=float(beta[1]), coverage=float(beta[2]))


def shares(
    rows: Sequence[Row], calibration: RelevanceCalibration, threshold: float
) -> dict[str, float]:
    """Return the share that would be answered, per kind."""
    from ondol.answers.features import RelevanceSignals

    kinds = sorted({kind for *_, kind in rows})
    return {
        kind: float(
            np.mean(
                [
                    relevance(RelevanceSignals(d, c), calibration=calibration) >= threshold
                    for d, c, _, k in rows
                    if k == kind
                ]
            )
        )
        for kind in kinds
    }


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    settings = load_settings(flags={"home": options.home})
    async with Container.open(settings, parts=Parts(generator=False, reranker=False)) as container:
        rows = await rows_of(container, random.Random(options.seed))
    random.Random(options.seed).shuffle(rows)
    train, test = rows[::2], rows[1::2]
    fitted = fit([row for row in train if row[3] != "gold removed"])
    threshold = AnswerSettings().min_relevance
    table(
        ("calibration", "bias", "cosine", "coverage", "answered: own", "gold removed", "other set"),
        [
            (
                name,
                *(round(v, 2) for v in (c.bias, c.dense, c.coverage)),
                *(
                    round(shares(test, c, threshold)[k], 3)
                    for k in ("own", "gold removed", "other set")
                ),
            )
            for name, c in (("shipped", DEFAULT), ("fitted", fitted))
        ],
    )
    report(
        {
            "fitted": [fitted.bias, fitted.dense, fitted.coverage],
            "shipped": shares(test, DEFAULT, threshold),
            "refit": shares(test, fitted, threshold),
            "questions": len(rows),
        },
        settings={"seed": options.seed, "threshold": threshold},
    )


if __name__ == "__main__":
    asyncio.run(main())
