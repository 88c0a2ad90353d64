"""``ondol eval``: how well search, answers and tasks do where the right outcome is known."""

from __future__ import annotations

from typing import Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.lab.commands.eval_answers import answers
from ondol.lab.commands.eval_calibrate import calibrate
from ondol.lab.commands.eval_optimise import optimise
from ondol.lab.commands.eval_retrieval import retrieval
from ondol.lab.commands.eval_task import task
from ondol.lab.commands.fidelity_command import fidelity

_SHOWN = ("ndcg_at_10", "recall_at_10", "contains", "token_f1", "accuracy")


@click.group("eval")
@global_options()
def evaluate() -> None:
    """Measure search, answers and tasks on what is known, and forms against their reference."""


for _command in (retrieval, answers, task, optimise, calibrate, fidelity):
    evaluate.add_command(_command)


@evaluate.command()
@click.option(
    "-n", "--last", type=click.IntRange(min=1), default=20, show_default=True, help="How many."
)
@global_options()
@click.pass_obj
def history(invocation: Invocation, *, last: int) -> None:
    """List what earlier evaluations found, oldest first; they are in evaluations.jsonl."""
    from ondol.lab.evaluate.history import recorded

    found = recorded(invocation.settings.home, last=last)
    output = invocation.output
    if output.as_json:
        output.data({"evaluations": found})
    elif not found:
        output.note("nothing has been evaluated yet")
    else:
        output.table(
            ("AT", "KIND", "OF", *(key.upper() for key in _SHOWN)), [_row(one) for one in found]
        )


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    subject = one.get("dataset") or one.get("collection") or ""
    subject = f"{one['task']}: {subject}" if "task" in one else subject
    figures = [one.get(key) for key in _SHOWN]
    told = [f"{value:.4f}" if isinstance(value, float) else "" for value in figures]
    return one.get("at", ""), one.get("kind", ""), subject, *told
