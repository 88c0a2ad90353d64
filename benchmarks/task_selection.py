"""Representatives against all reviews in the prompt, on the same restaurants: tokens, time, aspects.

The reviews lie in a collection with their vectors, as they would. For every restaurant with at least
``--least`` reviews ``reviews.summary`` runs as declared and as ``ondol eval task --baseline all`` runs
it, as far as the context allows. An aspect counts as wanted where at least a tenth of all reviews of
the restaurant speak of it, and as found where a verified claim is about it.

    python benchmarks/task_selection.py --home DIR [--models ID…] [--limit 0: all restaurants]
"""

from __future__ import annotations

import argparse
import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from common import report, rows_of, table
from task_bench import opened, options, shown, take_in

from ondol.app.container import Container
from ondol.lab.evaluate.task_evaluation import OURS, evaluate_task, leading, worded
from ondol.lab.evaluate.task_items import Expected, ExpectedAspect, TaskItem
from ondol.lab.evaluate.task_runs import EvaluationRun, claim_keys

SETS = ("ko_reviews_yogiyo", "en_reviews_zomato")
MODELS = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct")
SCORED = ("taste", "portion", "delivery")
FREQUENT = 0.1
KEPT = (
    *("success_rate", "schema_valid", "faithfulness", "claims", "aspect_coverage"),
    *("prompt_tokens_mean", "completion_tokens_mean", "latency_p50_ms", "latency_p95_ms"),
)


def items_of(name: str, *, least: int, limit: int) -> list[TaskItem]:
    """Return an item a restaurant; its customers' own scores, where there are some, are expected."""
    shops: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows_of(name, "reviews.jsonl"):
        shops[row["restaurant_id"]].append(row)
    wanted = [shop for shop, rows in shops.items() if len(rows) >= least]
    return [
        TaskItem(
            shop,
            {"collection": name, "filter": {"shop": shop}},
            Expected(aspects=_scored(shops[shop])),
        )
        for shop in wanted[: limit or None]
    ]


def _scored(rows: Sequence[Mapping[str, Any]]) -> tuple[ExpectedAspect, ...] | None:
    if "taste" not in rows[0]:
        return None
    found = []
    for name in SCORED:
        mean = fmean(float(row[name]) for row in rows)
        word = "positive" if mean >= 3.5 else "negative" if mean <= 2.5 else "mixed"
        found.append(ExpectedAspect.model_validate({"aspect": name, "polarity": word}))
    return tuple(found)


def recall_of(runs: Sequence[EvaluationRun], keys: Sequence[str]) -> dict[str, float]:
    """Return how many of the frequent aspects the claims speak of, and of how many in their sense."""
    wanted = found = agreed = 0
    for run in runs:
        result = run.result.result if run.result is not None else {}
        frequent = {
            str(row["aspect"]): leading(row)
            for row in result.get("aspects") or ()
            if row["share"] >= FREQUENT
        }
        said = worded(result, keys) & frequent.keys()
        rows = result.get("summary") or ()
        wanted += len(frequent)
        found += len(said)
        agreed += sum(row["polarity"] == frequent.get(row["aspect"]) for row in rows)
    return {
        "frequent_aspects": float(wanted),
        "frequent_recall": found / max(wanted, 1),
        "frequent_polarity": agreed / max(found, 1),
    }


async def compared(
    container: Container, name: str, args: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Return the figures of the task and of the baseline on one set, and how they differ."""
    records = [
        {"id": row["review_id"], "text": row["text"], "metadata": {"shop": row["restaurant_id"]}}
        for row in rows_of(name, "reviews.jsonl")
    ]
    await take_in(container, name, records)
    task = container.tasks.task("reviews.summary")
    task = replace(task, limits=replace(task.limits, seconds=3600.0))
    found = await evaluate_task(
        container.tasks,
        task,
        items_of(name, least=args.least, limit=args.limit),
        store=container.store,
        baselines=["all"],
        context_tokens=args.context,
        at_once=args.at_once,
    )
    keys = claim_keys(task)
    rows: dict[str, dict[str, Any]] = {}
    for variant, figures in found.figures.items():
        chosen = {key: value for key, value in figures.items() if key in KEPT or "recall" in key}
        done = [run for run in found.runs[variant] if run.result is not None]
        chosen["seconds_mean"] = fmean(run.seconds for run in done) if done else 0.0
        chosen["reviews_shown"] = _shown(done)
        rows[variant] = {**chosen, **recall_of(done, keys), "errors": figures.get("errors")}
    ours, others = rows[OURS], rows["all"]
    rows["compared"] = {
        "restaurants": found.figures[OURS]["runs"],
        "fewer_prompt_tokens": 1 - ours["prompt_tokens_mean"] / others["prompt_tokens_mean"],
        "less_time": 1 - ours["seconds_mean"] / others["seconds_mean"],
        "frequent_recall_of_all": ours["frequent_recall"] / max(others["frequent_recall"], 1e-9),
        "aspects_of_all": found.coverage["all"],
    }
    return rows


def _shown(runs: Sequence[EvaluationRun]) -> float:
    """Return the share of all reviews that were put before the generator."""
    counted = sum(int(run.result.result["counted"]) for run in runs if run.result)
    there = sum(len(run.result.result.get("representatives") or ()) for run in runs if run.result)
    return there / max(counted, 1)


async def main() -> None:
    parser = options(__doc__, models=MODELS, limit=0)
    parser.set_defaults(context=16_384)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--least", type=int, default=40, help="reviews a restaurant must have")
    args = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for model in args.models:
        async with opened(args, model, searches=False) as container:
            found[model] = {name: await compared(container, name, args) for name in args.sets}
    keys = ("restaurants", "fewer_prompt_tokens", "less_time", "frequent_recall_of_all")
    table(
        ("model", "set", *keys, "recall", "recall, all", "faithful", "faithful, all"),
        [
            (
                model,
                name,
                *(shown(rows["compared"][key]) for key in keys),
                *(shown(rows[one]["frequent_recall"]) for one in (OURS, "all")),
                *(shown(rows[one].get("faithfulness")) for one in (OURS, "all")),
            )
            for model, sets in found.items()
            for name, rows in sets.items()
        ],
    )
    report(
        {"models": found},
        settings={
            "form": args.form,
            "at_once": args.at_once,
            "context": args.context,
            "least": args.least,
        },
    )


if __name__ == "__main__":
    asyncio.run(main())
