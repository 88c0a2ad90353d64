"""``legal.case_analysis`` on shared decisions whose outcome is hidden, against no retrieval at all.

A case is the decision's name, the issue as its court states it (판시사항) and the sentences of its
holding, without the last one and without those that conclude (that something is or is not so, must or
cannot be). Laws, articles and case numbers are taken out of it, so that nothing names what is to be
found; the decision itself and all others of the same case are excluded from the search. Right
provisions are those that the court lists; right tags are their laws and chapters. The shared decisions
are holdings of civil cases: they have no punishment and no order, so outcome and band are not scored.

    python benchmarks/task_legal.py --home DIR [--models ID…] [--limit 100] [--corpus 0: whole]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from common import data_set, report, rows_of, table
from task_bench import opened, options, shown, take_in

from ondol.app.container import Container
from ondol.lab.evaluate.task_evaluation import evaluate_task
from ondol.lab.evaluate.task_items import Expected, TaskItem
from ondol.language.normalise import folded
from ondol.language.sentences import split_sentences
from ondol.packs.legal.references import references_of
from ondol.tasks.steps.tags import names_in

MODELS = ("qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct")
HIDDEN = "관련 법령"
CONCLUDES = re.compile(
    r"(?:다고|라고|것으로|것이라고|것이라)\s?(?:볼|할|봄이|보아야|해석|인정)|수\s?(?:없|있)다|하여야\s?한다"
    r"|해당(?:한다|하지)|상당하다|타당하다|위법|정당하다|원심|파기|기각|인용|각하|사례|아니(?:한다|하다)"
)
SHOWN = (
    *("runs", "success_rate", "cited", "cited_real", "provisions_cited", "statute_relevance"),
    *("statute_recall", "tag_f1", "tag_precision", "tag_recall", "faithfulness"),
    *("prompt_tokens_mean", "latency_p50_ms"),
)


def hidden(text: str) -> str:
    """Return ``text`` with every law, article and case it names taken out."""
    text = folded(text)
    kept, at = [], 0
    for start in range(0, len(text), 2_000):
        for one in references_of(text[start : start + 2_000]):
            a, b = start + one.start, start + one.end
            if a >= at:
                kept += [text[at:a], HIDDEN]
                at = b
    return "".join([*kept, text[at:]])


def case_of(title: str, issue: str, holding: str) -> str:
    """Return the case as it is put before the task."""
    sentences = [holding[a:b] for a, b in split_sentences(holding)]
    facts = [one for one in sentences[:-1] if not CONCLUDES.search(one)]
    name = re.split(r"[(\[]", title)[0].strip()
    return hidden("\n".join([f"사건: {name}", f"쟁점: {issue}", *facts]))


def items_of(args: argparse.Namespace) -> list[TaskItem]:
    """Return the cases whose court lists provisions that are in the shared laws."""
    corpus = {row["_id"]: row for row in rows_of("ko_law_precedents", "corpus.jsonl")}
    laws = {row["_id"]: row["metadata"] for row in rows_of("ko_law_statutes", "corpus.jsonl")}
    same: dict[str, list[str]] = defaultdict(list)
    for name, row in corpus.items():
        same[row["metadata"]["case"]].append(name)
    judged = [
        line.split("\t")[:2]
        for line in (data_set("ko_law_precedents") / "qrels.tsv")
        .read_text("utf-8")
        .splitlines()[1:]
    ]
    issues = {row["_id"]: row["text"] for row in rows_of("ko_law_precedents", "queries.jsonl")}
    items = []
    for query, name in judged:
        row = corpus[name]
        gold = [one for one in row["metadata"]["statutes"] if one in laws]
        if not gold:
            continue
        text = case_of(row["title"], issues[query], row["text"])
        expected = Expected(provisions=tuple(gold), tags=tuple(_tags(laws[one] for one in gold)))
        given = {"text": text, "exclude": same[row["metadata"]["case"]][:50]}
        items.append(TaskItem(query, given, expected))
    random.Random(args.seed).shuffle(items)
    return items[: args.limit or None]


def _tags(metadata: Any) -> list[str]:
    names = [
        name
        for one in metadata
        for key in ("law", "chapter")
        for name in names_in(one.get(key, ""))
    ]
    return list(dict.fromkeys(names))


async def laws_in(container: Container, items: list[TaskItem], corpus: int) -> dict[str, int]:
    """Take laws and decisions in, all or ``corpus`` of each with what ``items`` need."""
    needed = {name for item in items for name in item.expected.provisions or ()}
    sizes = {}
    for collection, name in (("statutes", "ko_law_statutes"), ("precedents", "ko_law_precedents")):
        rows = [{**row, "id": row["_id"]} for row in rows_of(name, "corpus.jsonl")]
        if corpus:
            first = {row["id"] for row in rows[:corpus]}
            rows = [row for row in rows if row["id"] in first or row["id"] in needed]
        await take_in(container, collection, rows)
        sizes[collection] = len(rows)
    return sizes


async def main() -> None:
    parser = options(__doc__, models=MODELS, limit=100)
    parser.add_argument(
        "--corpus", type=int, default=0, help="documents of each collection; 0: all"
    )
    args = parser.parse_args()
    items = items_of(args)
    found: dict[str, Mapping[str, Any]] = {}
    sizes: dict[str, int] = {}
    for model in args.models:
        async with opened(args, model, searches=True) as container:
            sizes = await laws_in(container, items, args.corpus)
            task = container.tasks.task("legal.case_analysis")
            evaluation = await evaluate_task(
                container.tasks,
                replace(task, limits=replace(task.limits, seconds=3600.0)),
                items,
                store=container.store,
                baselines=["no-retrieval"],
                context_tokens=args.context,
                at_once=args.at_once,
            )
        found[model] = evaluation.as_json()
    rows = []
    for model, figures in found.items():
        others = figures["baselines"]["no-retrieval"]
        rows += [(model, key, shown(figures.get(key)), shown(others.get(key))) for key in SHOWN]
    table(("model", "figure", "task", "no retrieval"), rows)
    report(
        {"models": found, "collections": sizes},
        settings={
            "form": args.form,
            "at_once": args.at_once,
            "seed": args.seed,
            "cases": len(items),
        },
    )


if __name__ == "__main__":
    asyncio.run(main())
