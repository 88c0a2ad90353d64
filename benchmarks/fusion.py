"""How the two legs are joined: rules and weights on every shared set, chosen on one half of the queries.

Each leg's rankings are computed once, with the models of the home, and kept in ``--cache``; the rules
are then compared without a model. The half that chooses and the half that reports are drawn by a hash
of the queries' ids. Needs a home in which ``benchmarks/retrieval.py`` has ingested the sets, or takes
them in: ``python benchmarks/fusion.py --home DIR --cache DIR``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import data_set, report, table

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.settings import load_settings
from ondol.lab.evaluate.datasets import Query, halves, load_beir
from ondol.lab.evaluate.fusion_calibration import WEIGHTS, Sample, scores_by_query, weight_by_query
from ondol.lab.evaluate.statistics import ndcg
from ondol.search.fusion import reciprocal_rank_fusion, score_fusion
from ondol.search.lookups import brought_forward
from ondol.search.query_words import features_of

SETS = (
    *("ko_fire_petitions", "ko_korquad", "ko_law_precedents", "ko_law_statutes"),
    *("en_cranfield", "en_scifact_subset", "en_xquad"),
)
Ranking = list[tuple[int, float]]
Legs = Mapping[str, Ranking]
Rule = Callable[[Legs], Ranking]


@dataclass(frozen=True)
class Asked:
    """One query with what its legs found; ``owners`` tells the document of each chunk."""

    query: Query
    legs: Legs
    named: list[int]
    owners: Mapping[int, str]

    def score(self, ranking: Ranking, *, looked_up: bool = True) -> float:
        ranked = brought_forward(ranking, self.named) if looked_up else ranking
        names = (self.owners[chunk] for chunk, _ in ranked if chunk in self.owners)
        return ndcg(list(dict.fromkeys(names)), self.query.relevant)

    def sample(self) -> Sample:
        return Sample(
            features=features_of(self.query.text, self.legs),
            dense=self.score(self.legs["dense"], looked_up=False),
            lexical=self.score(self.legs["lexical"]),
            curve=tuple(self.score(weighed(w)(self.legs)) for w in WEIGHTS),
        )


def weighed(dense: float) -> Rule:
    weights = {"dense": dense, "lexical": 1 - dense}
    return lambda legs: score_fusion(legs, weights=weights)


def ranks(k: int) -> Rule:
    return lambda legs: reciprocal_rank_fusion(legs, k=k)


def scaled(legs: Legs) -> Ranking:
    """Each leg's scores between its lowest and its highest (min-max)."""
    scores: dict[int, float] = {}
    for ranking in legs.values():
        values = [score for _, score in ranking]
        low, wide = min(values, default=0.0), (max(values, default=0.0) - min(values, default=0.0))
        for chunk, score in ranking:
            scores[chunk] = scores.get(chunk, 0.0) + (score - low) / (wide or 1.0)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


RULES: dict[str, Rule] = {
    "ranks, k 10": ranks(10),
    "ranks, k 60": ranks(60),
    "min-max": scaled,
    **{f"scores, {weight:g}": weighed(weight) for weight in (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)},
}


async def collect(home: Path, cache: Path, names: Sequence[str]) -> None:
    """Write what the legs find for every query of the sets that are not in ``cache`` yet."""
    settings = load_settings(flags={"home": home})
    async with Container.open(settings, parts=Parts(generator=False, reranker=False)) as container:
        for name in names:
            data = load_beir(data_set(name))
            collection = f"eval-{name}"
            await container.ingest.ingest_paths(collection, [data.corpus])
            rows: list[dict[str, Any]] = []
            owners: dict[int, str] = {}
            for query in data.queries:
                found = await container.retrieval.candidates(collection, query.text)
                legs = found.legs.rankings
                ids = {chunk for ranking in legs.values() for chunk, _ in ranking}
                wanted = sorted((ids | set(found.named)) - owners.keys())
                for row in container.store.chunks(collection, wanted):
                    owners[row.chunk] = row.document
                rows.append({"id": query.id, "legs": dict(legs), "named": list(found.named)})
            kept = {"rows": rows, "owners": list(owners.items())}
            (cache / f"{name}.json").write_text(json.dumps(kept), "utf-8")


def load(cache: Path, name: str) -> list[Asked]:
    kept = json.loads((cache / f"{name}.json").read_text("utf-8"))
    owners = dict(kept["owners"])
    queries = {query.id: query for query in load_beir(data_set(name)).queries}
    return [
        Asked(
            queries[row["id"]],
            {leg: [(int(c), float(s)) for c, s in ranking] for leg, ranking in row["legs"].items()},
            row["named"],
            owners,
        )
        for row in kept["rows"]
    ]


def by_query_elsewhere(sets: Mapping[str, Sequence[Sample]], name: str) -> list[float]:
    """Return the scores of ``name`` at weights by query that the other sets taught."""
    others = [sample for other, samples in sets.items() if other != name for sample in samples]
    learned = weight_by_query(others, middle=0.5)
    if learned is None:
        return [math.nan]
    return scores_by_query(sets[name], learned)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    absent = [name for name in options.sets if not (options.cache / f"{name}.json").is_file()]
    if absent:
        asyncio.run(collect(options.home, options.cache, absent))
    asked = {name: load(options.cache, name) for name in options.sets}
    figures: dict[str, Any] = {}
    for half in ("choosing", "reporting", "all"):
        part = {name: _part(rows, half) for name, rows in asked.items()}
        figures[half] = _compare(part, half)
    report(figures)


def _part(rows: Sequence[Asked], half: str) -> list[Asked]:
    if half == "all":
        return list(rows)
    drawn = halves([one.query for one in rows])[half != "choosing"]
    kept = {query.id for query in drawn}
    return [one for one in rows if one.query.id in kept]


def _compare(sets: Mapping[str, Sequence[Asked]], half: str) -> dict[str, Any]:
    """Print one table, sets across and rules down, and return its figures."""
    samples = {name: [one.sample() for one in rows] for name, rows in sets.items()}
    scores = {
        "dense": {name: _mean([s.dense for s in found]) for name, found in samples.items()},
        "lexical": {name: _mean([s.lexical for s in found]) for name, found in samples.items()},
    }
    for rule, fuse in RULES.items():
        scores[rule] = {
            name: _mean([one.score(fuse(one.legs)) for one in rows]) for name, rows in sets.items()
        }
    scores["by query, learned on the other sets"] = {
        name: _mean(by_query_elsewhere(samples, name)) for name in sets
    }
    print(f"\n{half}")
    rows = []
    for rule, found in scores.items():
        worst = min(
            found[name] - max(scores["dense"][name], scores["lexical"][name]) for name in found
        )
        rows.append((rule, *(f"{v:.4f}" for v in found.values()), f"{worst:+.4f}"))
    table(("rule", *sets, "least over the better leg"), rows)
    return scores


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if values else math.nan


if __name__ == "__main__":
    main()
