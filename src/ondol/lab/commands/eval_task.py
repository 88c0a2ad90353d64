"""``ondol eval task``: how right a task is on labelled items, what carries it, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import Output, meter

if TYPE_CHECKING:
    from ondol.lab.evaluate.task_baselines import Baseline
    from ondol.lab.evaluate.task_evaluation import TaskEvaluation
    from ondol.lab.evaluate.task_items import TaskItem
    from ondol.tasks.declaration import Task


@click.command()
@click.option("--task", "name", required=True, metavar="NAME", help="The task, as PACK.TASK.")
@click.option(
    "--dataset",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON Lines: id, input and expected per line, or text and label per line.",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(["all", "no-retrieval"]),
    help="Run beside it: all entries in the prompt, or nothing looked up. May be repeated.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many lines.")
@click.option("--items", "with_items", is_flag=True, help="Report every run, too.")
@global_options()
@click.pass_obj
def task(
    invocation: Invocation,
    *,
    name: str,
    dataset: Path,
    baselines: tuple[Baseline, ...],
    limit: int | None,
    with_items: bool,
) -> None:
    """Run a task on labelled items; report how right it is, what carries its claims, what it costs.

    Which figures there are hangs on what the lines hold; see docs/guides/evaluation.md.
    """
    from ondol.lab.evaluate.history import record
    from ondol.lab.evaluate.task_baselines import baseline_of
    from ondol.lab.evaluate.task_items import load_items

    tasks = invocation.container().tasks
    wanted = tasks.task(name)
    items = load_items(dataset, wanted, limit=limit)
    chosen = tuple(dict.fromkeys(baselines))
    for one in chosen:  # before any model is loaded
        baseline_of(wanted, one, context_tokens=invocation.settings.generation.context_tokens)
    evaluation = invocation.run(_evaluated(invocation, wanted, items, chosen))
    report = {"task": name, **evaluation.as_json()}
    kept = {"dataset": dataset.resolve().name, **report}
    record(invocation.settings.home, "task", kept, at=invocation.clock.wall())
    output = invocation.output
    if output.as_json:
        output.data({**report, "runs_of": _runs(evaluation)} if with_items else report)
        return
    _show(output, evaluation)
    if with_items:
        _show_runs(output, evaluation)


async def _evaluated(
    invocation: Invocation, wanted: Task, items: list[TaskItem], baselines: tuple[Baseline, ...]
) -> TaskEvaluation:
    from ondol.lab.evaluate.task_evaluation import evaluate_task

    searches = any(step.use == "retrieve" for step in wanted.steps)
    opened = invocation.container(
        embedder=True,
        keywords=searches,
        reranker=searches and invocation.settings.retrieval.rerank != "off",
        generator=any(wanted.generates(item.input) for item in items),
    )
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        async with opened as container:
            return await evaluate_task(
                container.tasks,
                container.tasks.task(wanted.name),
                items,
                store=container.store,
                baselines=baselines,
                context_tokens=invocation.settings.generation.context_tokens,
                told=lambda done, total, note: shown.update(done=done, total=total, note=note),
                clock=invocation.clock,
            )


def _show(output: Output, evaluation: TaskEvaluation) -> None:
    from ondol.lab.evaluate.task_evaluation import OURS, differences

    ours = evaluation.figures[OURS]
    others = {name: found for name, found in evaluation.figures.items() if name != OURS}
    gaps = {name: differences(ours, found) for name, found in others.items()}
    head = ["FIGURE", "VALUE"]
    for name in others:
        head += [name.upper(), "DIFFERENCE"]
    keys = dict.fromkeys([*ours, *(key for found in others.values() for key in found)])
    rows = []
    for key in keys:
        row = [key, _figure(ours.get(key))]
        for name, found in others.items():
            row += [_figure(found.get(key)), _figure(gaps[name].get(key), signed=True)]
        rows.append(row)
    output.table(head, rows)
    for name, share in evaluation.coverage.items():
        if share is not None:
            output.text(f"of the aspects that {name} words, the task words {share:.1%}")
    strange = ours.get("unknown_labels")
    if strange:
        told = ", ".join(f"{label} ({count})" for label, count in strange.items())
        output.note(f"warning: labels the task never gives count as wrong: {told}")


def _runs(evaluation: TaskEvaluation) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [
            {
                "id": run.item.id,
                "error": run.error,
                "seconds": round(run.seconds, 3),
                "prompt_tokens": run.result.usage.prompt_tokens if run.result else None,
                "dropped_claims": run.result.dropped_claims if run.result else None,
                "warnings": list(run.result.warnings) if run.result else [],
                "result": run.result.result if run.result else None,
            }
            for run in runs
        ]
        for name, runs in evaluation.runs.items()
    }


def _show_runs(output: Output, evaluation: TaskEvaluation) -> None:
    rows = [
        (name, one["id"], one["error"] or "done", f"{one['seconds']:.1f}", one["prompt_tokens"])
        for name, runs in _runs(evaluation).items()
        for one in runs
    ]
    output.table(("RUN", "ID", "OUTCOME", "SECONDS", "PROMPT TOKENS"), rows)


def _figure(value: object, *, signed: bool = False) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    sign = "+" if signed else ""
    if isinstance(value, float):
        return f"{value:{sign}.1f}" if abs(value) >= 100 else f"{value:{sign}.4f}"
    return f"{value:{sign}d}" if isinstance(value, int) else str(value)
