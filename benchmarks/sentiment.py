"""Sentiment from vectors that are there already: how good, on groups never seen, and how fast.

Each set is split by restaurant or film into fifths (by a hash of its id); those of ``--folds`` are tested
in turn, each by classifiers that saw the others. Beside ours, as the baselines of the same run, a
logistic regression on the vectors alone and one that leans on no earlier classifier; ours leans on the
shipped one of the language, where that saw other texts. ``--generator`` then runs the task itself with
our classifier, restaurant by restaurant, and lets that model judge the reviews that are less than 70 %
sure. ``--ship`` trains the classifiers that come with the pack ``reviews`` on data whose licences allow
it.

    python benchmarks/sentiment.py --home DIR [--folds 4] [--generator ID] [--ship]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import ROOT, report, rows_of, table
from task_bench import opened

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.request_terms import RequestTerms
from ondol.core.settings import load_settings
from ondol.core.types import FloatMatrix
from ondol.tasks.classifier import Classifier, load_classifier
from ondol.tasks.classifier_training import Examples, fit, fold_of, scores
from ondol.tasks.logistic import FitOptions
from ondol.tasks.pack_library import PackLibrary
from ondol.tasks.step_context import StepContext
from ondol.tasks.task_service import TaskService

SETS = {
    "ko_reviews_nsmc": "movie_id",
    "ko_reviews_yogiyo": "restaurant_id",
    "en_reviews_zomato": "restaurant_id",
}
LABELS = ("positive", "negative")
VECTORS_ALONE = FitOptions(gram_gain=1e-6, telling=0.0)
PACK = ROOT / "src/ondol/packs/reviews/classifiers"


async def embedded(container: Container, texts: list[str]) -> FloatMatrix:
    """Return the texts' vectors as they would be stored."""
    found = []
    for start in range(0, len(texts), 256):
        part = texts[start : start + 256]
        result = await container.embedding.embed(part, role="document", truncate=True, lane="batch")
        found.append(result.vectors)
    return np.concatenate(found)


async def examples_of(container: Container, name: str) -> Examples:
    """Return the clearly positive and negative reviews of a set."""
    rows = [row for row in rows_of(name, "reviews.jsonl") if row["label"] in LABELS]
    texts = [row["text"] for row in rows]
    return Examples(
        texts=texts,
        vectors=await embedded(container, texts),
        labels=[row["label"] for row in rows],
        groups=[row[SETS[name]] for row in rows],
    )


async def measured(
    examples: Examples, container: Container, language: str, args: argparse.Namespace
) -> dict[str, float]:
    """Train on the groups outside each fold, test on those in it; the baselines beside it.

    The figures are of all tested reviews together, the speed is of the last fold.
    """
    embedder = container.embedding.model
    shipped = load_classifier(PACK / f"sentiment.{language}.npz")
    variants: dict[str, Callable[[Examples], Classifier]] = {
        "vectors_alone": lambda seen: fit(
            seen, labels=LABELS, embedder=embedder, options=VECTORS_ALONE
        ),
        "no_start": lambda seen: fit(seen, labels=LABELS, embedder=embedder),
        "ours": lambda seen: fit(seen, labels=LABELS, embedder=embedder, start=shipped),
    }
    place = np.array([fold_of(group) for group in examples.groups])
    said: dict[str, list[str]] = {name: [] for name in variants}
    truth: list[str] = []
    chances = np.zeros((0, len(LABELS)))
    speed = 0.0
    asked = 0
    for fold in args.folds:
        seen, unseen = examples.chosen(place != fold), examples.chosen(place == fold)
        truth += unseen.labels
        for name, train in variants.items():
            classifier = train(seen)
            chances = classifier.predict(unseen.texts, unseen.vectors)
            said[name] += [LABELS[int(one)] for one in chances.argmax(axis=1)]
        speed = _speed(classifier, unseen)
        if args.generator:
            found, count = await judged(container, classifier, unseen, language, args.at_once)
            said.setdefault("asked", []).extend(found)
            asked += count
    figures: dict[str, float] = {"test": len(truth)}
    if args.generator:
        figures["asked"] = asked
    for name, found in said.items():
        figures[f"{name}_accuracy"], figures[f"{name}_macro_f1"] = scores(truth, found)
    return {**figures, "mean_confidence": float(chances.max(axis=1).mean()), "per_second": speed}


async def judged(
    container: Container, classifier: Classifier, unseen: Examples, language: str, at_once: int
) -> tuple[list[str], int]:
    """Return the labels that the task gives where it may ask, and of how many it asked."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(unseen.groups):
        groups[group].append(place)
    labels = [""] * len(unseen.texts)
    free = asyncio.Semaphore(at_once)
    with tempfile.TemporaryDirectory() as folder:
        bench = StepContext(container, home=Path(folder))
        classifier.save(bench.own_classifier("reviews", f"sentiment.{language}.npz"))
        tasks = TaskService(PackLibrary.open(Path(folder), ()), bench)
        task = tasks.task("reviews.sentiment")
        task = replace(task, limits=replace(task.limits, seconds=3600.0))

        async def run(places: list[int]) -> int:
            reviews = [{"id": str(place), "text": unseen.texts[place]} for place in places]
            given = {"reviews": reviews, "ask": 256, "language": language}
            async with free:
                done = await tasks.run(task, given, terms=RequestTerms(lane="batch"))
            for row in done.result["labels"]:
                labels[int(row["id"])] = row["label"]
            return sum(row["by"] == "generator" for row in done.result["labels"])

        asked = sum(await asyncio.gather(*map(run, groups.values())))
    return labels, asked


def _speed(classifier: Classifier, unseen: Examples) -> float:
    """Return reviews labelled a second, their vectors given."""
    texts = list(unseen.texts) * 4
    vectors = np.concatenate([unseen.vectors] * 4)
    classifier.predict(texts, vectors)
    started = time.perf_counter()
    classifier.predict(texts, vectors)
    return len(texts) / (time.perf_counter() - started)


async def ship(container: Container) -> None:
    """Train the pack's classifiers: NSMC (CC0), and restaurant sentences (CC BY) with MAMS (Apache)."""
    korean = await examples_of(container, "ko_reviews_nsmc")
    model = container.embedding.model
    about = "Naver sentiment movie corpus (e9t/nsmc), CC0 1.0"
    fit(korean, labels=LABELS, embedder=model, about=about).save(PACK / "sentiment.ko.npz")
    pairs = [
        (row["text"], LABELS[1 - row["label"]])
        for row in rows_of("en_sentences_restaurant", "reviews.jsonl")
    ]
    for row in rows_of("en_absa_mams", "acsa.jsonl"):
        said = {aspect["polarity"] for aspect in row["aspects"]} - {"neutral"}
        if len(said) == 1:
            pairs.append((row["text"], said.pop()))
    texts = [text for text, _ in pairs]
    english = Examples(
        texts=texts,
        vectors=await embedded(container, texts),
        labels=[label for _, label in pairs],
        groups=texts,
    )
    about = (
        "Sentiment Labelled Sentences (Kotzias et al. 2015, CC BY 4.0), Yelp part; "
        "MAMS-for-ABSA (Jiang et al. 2019, Apache-2.0)"
    )
    fit(english, labels=LABELS, embedder=model, about=about).save(PACK / "sentiment.en.npz")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--folds", nargs="+", type=int, default=[4], choices=range(5))
    parser.add_argument("--generator", default="", help="a model that may judge the least sure")
    parser.add_argument("--form", default="auto", help="of the generator, as generation.form")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    async with opening(args) as container:
        if args.ship:
            await ship(container)
            return
        model = container.embedding.model
        found = {
            name: await measured(await examples_of(container, name), container, name[:2], args)
            for name in args.sets
        }
    head = ("set", *next(iter(found.values())))
    table(head, [(name, *(f"{v:.3f}" for v in row.values())) for name, row in found.items()])
    report(
        {"sets": found, "embedder": model},
        settings={"folds": args.folds, "generator": args.generator, "form": args.form},
    )


def opening(args: argparse.Namespace) -> Container:
    """Return the container, with the generator where one may judge."""
    if args.generator:
        args.context = 2048
        return opened(args, args.generator, searches=False)
    settings = load_settings(flags={"home": args.home})
    return Container.open(settings, parts=Parts(generator=False, reranker=False, keywords=False))


if __name__ == "__main__":
    asyncio.run(main())
