"""``ondol task``: what analyses are declared, whether a pack is sound, and running one.

Inputs are JSON files (``-`` for stdin) or ``--text``/``--field`` on the command line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import KeyValue, global_options
from ondol.cli.output import Output, shorten

if TYPE_CHECKING:
    from ondol.tasks.classifier_training import Trained
    from ondol.tasks.task_service import TaskInfo, TaskResult

_COLUMNS = 100
_FAILED_EXIT = 3


@click.group()
@global_options()
def task() -> None:
    """Run declared analyses: tasks of packs, each a prompt, a schema, limits and steps."""


@task.command("list")
@global_options()
@click.pass_obj
def list_tasks(invocation: Invocation) -> None:
    """List the tasks there are, those of your own packs included."""
    found = invocation.run(_described(invocation))
    output = invocation.output
    if output.as_json:
        output.data({"tasks": found})
        return
    rows = [
        (
            one.name,
            one.title.get("en", ""),
            one.title.get("ko", ""),
            one.lane,
            " → ".join(one.steps),
        )
        for one in found
    ]
    output.table(("task", "title", "제목", "lane", "steps"), rows)


@task.command()
@click.argument("name")
@global_options()
@click.pass_obj
def show(invocation: Invocation, *, name: str) -> None:
    """Show what the task NAME takes and gives, as JSON schemas."""
    [found] = invocation.run(_described(invocation, name))
    output = invocation.output
    if output.as_json:
        output.data(found)
        return
    output.text(f"{found.name}: {found.title.get('en', '')} / {found.title.get('ko', '')}")
    output.text(
        f"lane {found.lane}, pack version {found.version}, steps: {' → '.join(found.steps)}"
    )
    for part in ("input", "output"):
        output.text(f"{part}:")
        output.text(json.dumps(getattr(found, part), ensure_ascii=False, indent=2))


@task.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@global_options()
@click.pass_obj
def check(invocation: Invocation, *, folder: Path) -> None:
    """Check the pack in FOLDER: every problem with its file, key, rule and remedy."""
    from ondol.tasks.pack_file import check_pack

    problems = check_pack(folder)
    output = invocation.output
    if output.as_json:
        output.data({"folder": folder, "sound": not problems, "problems": problems})
    for problem in problems:
        output.error(str(problem), hint=problem.remedy)
    if problems:
        raise click.exceptions.Exit(_FAILED_EXIT)
    output.note(f"{folder}: nothing is wrong")


@task.command()
@click.argument("name")
@click.argument(
    "file",
    required=False,
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
)
@click.option(
    "--field",
    "fields",
    multiple=True,
    type=KeyValue(),
    metavar="KEY=VALUE",
    help="A field of the input: question='…', statutes=laws. May be repeated; a value that is JSON "
    "counts as such.",
)
@global_options()
@click.pass_obj
def run(
    invocation: Invocation, *, name: str, file: Path | None, fields: tuple[tuple[str, str], ...]
) -> None:
    """Run the task NAME on the input in FILE (JSON; - for stdin) and the given fields."""
    input = {**_read(file), **{key: _value(text) for key, text in fields}}
    result = invocation.run(_run(invocation, name, input))
    output = invocation.output
    if output.as_json:
        output.data(result)
        return
    _show(output, result)


@task.command("train")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--language", type=click.Choice(["ko", "en"]), required=True)
@click.option("--about", default="", help="Where the examples come from, kept in the file.")
@global_options()
@click.pass_obj
def train_task(invocation: Invocation, *, name: str, file: Path, language: str, about: str) -> None:
    """Train the classifier of the task NAME on FILE, JSON Lines of {"text", "label", "group"?}.

    It takes the place of the shipped one in this home. Examples of one group (a restaurant) are never
    on both sides of the judgment that is shown.
    """
    rows = _lines(file)
    found = invocation.run(_trained(invocation, name, rows, language, about))
    output = invocation.output
    if output.as_json:
        output.data(found)
        return
    output.text(f"{found.path}: {found.examples} examples of {', '.join(found.labels)}")
    output.text(
        f"on {found.held_out} held-out examples: accuracy {found.accuracy:.3f}, "
        f"macro-F1 {found.macro_f1:.3f}"
    )


async def _trained(
    invocation: Invocation, name: str, rows: list[dict[str, Any]], language: str, about: str
) -> Trained:
    async with invocation.container(embedder=True) as container:
        return await container.tasks.train(name, rows, language=language, about=about)


def _lines(file: Path) -> list[dict[str, Any]]:
    from ondol.core.errors import InvalidInput

    rows: list[dict[str, Any]] = []
    for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"{file}, line {number}: {error}", hint="mend the line") from None
        if not isinstance(row, dict):
            raise InvalidInput(f"{file}, line {number} is no object", hint="write {…} per line")
        rows.append(row)
    return rows


async def _described(invocation: Invocation, name: str | None = None) -> list[TaskInfo]:
    return invocation.container().tasks.describe(name)


async def _run(invocation: Invocation, name: str, input: Mapping[str, Any]) -> TaskResult:
    tasks = invocation.container().tasks
    tasks.validate(name, input)  # before any model is loaded
    wanted = tasks.task(name)
    searches = any(step.use == "retrieve" for step in wanted.steps)
    opened = invocation.container(
        embedder=True,
        keywords=searches,
        reranker=searches and invocation.settings.retrieval.rerank != "off",
        generator=wanted.generates(input),
    )
    async with opened as container:
        return await container.tasks.run(name, input)


def _read(file: Path | None) -> dict[str, Any]:
    from ondol.core.errors import InvalidInput

    if file is None:
        return {}
    text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8-sig")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{file} is not valid JSON: {error}", hint="mend it") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{file} holds no JSON object", hint="write the task's input as {…}")
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _show(output: Output, result: TaskResult) -> None:
    for key, value in result.result.items():
        output.text(click.style(key, bold=True))
        rows = value if isinstance(value, list) else [value]
        for row in rows[:20]:
            output.text(f"  {_line(row)}")
        if len(rows) > 20:
            output.text(f"  … and {len(rows) - 20} more")
    if result.notice:
        output.text()
        output.text(result.notice)
    for warning in result.warnings:
        output.note(f"warning: {warning}")
    used = result.usage
    output.note(
        f"{result.dropped_claims} claims dropped for want of evidence; {used.prompt_tokens} tokens read "
        f"({used.cached_tokens} from the cache), {used.completion_tokens} written; "
        f"{result.timings.get('total_ms', 0) / 1000:.1f} s"
    )


def _line(row: Any) -> str:
    """Return one row of a result for people: its text and what it rests on."""
    if not isinstance(row, Mapping):
        return shorten(str(row), columns=_COLUMNS)
    rest = ", ".join(
        f"{key} {value}"
        for key, value in row.items()
        if key not in ("evidence", "text", "reason") and not isinstance(value, list | dict)
    )
    said = row.get("text") or row.get("reason") or ""
    cited = ", ".join(
        one
        if isinstance(one, str)
        else f"{one.get('title') or one['document']} [{one['start']}:{one['end']}]"
        for one in row.get("evidence", ())
        if isinstance(one, str | Mapping)
    )
    return " · ".join(
        part
        for part in (shorten(str(said), columns=_COLUMNS), rest, shorten(cited, columns=_COLUMNS))
        if part
    )
