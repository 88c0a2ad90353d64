"""What users and their programs hold on to: routes, commands, metrics, settings, names, errors."""

from __future__ import annotations

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from tests.pins.conftest import COMMAND, ERRORS, SERIES, Stage
from tests.pins.exchanges import EXCHANGES

import ondol

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 100
OPEN_LABELS = {"le", "resource"}
IMPORT = re.compile(r"^(?:from ondol[\w.]* import .+|import ondol.*)$", re.MULTILINE)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def openapi(home: Path) -> str:
    """Return the OpenAPI document as sorted JSON."""
    return json.dumps(Stage(home).openapi(), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def commands() -> str:
    """Return ``--help`` of every command, as the command itself prints it."""
    return "\n".join(f"$ ondol {' '.join([*path, '--help'])}\n{_help(path)}" for path in _paths())


def settings() -> str:
    """Return a line a setting: key, variable, type with bounds, default."""
    return "".join(
        f"{key} | {variable(key)} | {json.dumps(kind, ensure_ascii=False)} | {default}\n"
        for key, kind, default in _settings()
    )


def setting_keys() -> list[str]:
    return [key for key, _, _ in _settings()]


def variable(key: str) -> str:
    """Return the environment variable of a setting."""
    return f"ONDOL_{key.replace('.', '_').upper()}"


async def metrics(home: Path) -> str:
    """Return the declared series, then what ``/metrics`` shows after a request of each kind."""
    declared = [
        f"{row.kind} {row.name}{{{', '.join(row.labels)}}} {list(row.buckets) or ''}".strip()
        for row in SERIES
    ]
    shown = await _scraped(home)
    return "\n".join(["# declared", *sorted(declared), "", "# shown by /metrics", *shown, ""])


def names(home: Path) -> str:
    """Return the names that can be imported, and what hangs on the container."""
    container = ondol.Container.open(ondol.Settings(home=home))
    return "\n".join(
        [
            "# ondol.__all__",
            *(_public(name) for name in sorted(ondol.__all__)),
            "",
            "# imported in README.md, README.ko.md, docs and examples",
            *documented_imports(),
            "",
            "# Container",
            *(name for name in dir(container) if not name.startswith("_")),
            "",
        ]
    )


def documented_imports() -> list[str]:
    return sorted({line for page in _pages() for line in _imports(page)})


def errors() -> str:
    """Return a line an error: its code, HTTP status, type and exit code."""
    rows = (
        f"{kind.__name__}({kind.__mro__[1].__name__}) {kind.default_code}: "
        f"HTTP {outcome.status} {outcome.type}, exit {outcome.exit_code}"
        for kind, outcome in ERRORS.items()
    )
    return "\n".join([*rows, ""])


def _paths() -> Iterator[tuple[str, ...]]:
    waiting: list[tuple[tuple[str, ...], click.Command]] = [((), COMMAND)]
    while waiting:
        path, command = waiting.pop(0)
        yield path
        if isinstance(command, click.Group):
            context = click.Context(command)
            inner = {
                name: command.get_command(context, name) for name in command.list_commands(context)
            }
            waiting = [((*path, name), c) for name, c in inner.items() if c is not None] + waiting


def _help(path: tuple[str, ...]) -> str:
    result = CliRunner().invoke(
        COMMAND, [*path, "--help"], prog_name="ondol", terminal_width=WIDTH, max_content_width=WIDTH
    )
    assert result.exit_code == 0, result.output
    return result.output


def _settings() -> list[tuple[str, dict[str, Any], str]]:
    schema = ondol.Settings.model_json_schema()
    defaults = ondol.Settings().model_dump(mode="json") | {"home": "~/.local/share/ondol"}
    return list(_flat(schema, schema.get("$defs", {}), defaults, ""))


def _flat(
    section: dict[str, Any], kinds: dict[str, Any], defaults: dict[str, Any], prefix: str
) -> Iterator[tuple[str, dict[str, Any], str]]:
    for name, kind in section["properties"].items():
        reference = kind.get("$ref", "").rpartition("/")[2]
        resolved = kinds.get(reference, kind)
        if "properties" in resolved:
            yield from _flat(resolved, kinds, defaults[name], f"{prefix}{name}.")
        else:
            plain = {
                k: v for k, v in resolved.items() if k not in {"title", "description", "default"}
            }
            yield f"{prefix}{name}", plain, json.dumps(defaults[name], ensure_ascii=False)


async def _scraped(home: Path) -> list[str]:
    async with Stage(home).running() as client:
        for exchange in EXCHANGES:
            await exchange.send(client)
        response = await client.get("/metrics")
        assert response.is_success, response.text
    return sorted(
        f"{family.type} {family.name}{{{', '.join(_labels(family))}}}"
        for family in text_string_to_metric_families(response.text)
        if not family.name.endswith("_created")
    )


def _labels(family: Metric) -> list[str]:
    """Return a family's labels with the values seen, save those that depend on time or machine."""
    values: dict[str, set[str]] = defaultdict(set)
    for sample in family.samples:
        for label, value in sample.labels.items():
            values[label].add(value)
    return [
        label if label in OPEN_LABELS else f"{label}={'|'.join(sorted(values[label]))}"
        for label in sorted(values)
    ]


def _public(name: str) -> str:
    value = getattr(ondol, name, None)
    if value is None:
        return f"{name} cannot be imported"
    return f"{name}{inspect.signature(value)}" if inspect.isfunction(value) else name


def _pages() -> list[Path]:
    return [
        *(ROOT / "README.md", ROOT / "README.ko.md"),
        *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "adr"),
        *sorted((ROOT / "examples").rglob("*.md")),
    ]


def _imports(page: Path) -> Iterator[str]:
    for block in PYTHON_BLOCK.findall(page.read_text("utf-8")):
        yield from IMPORT.findall(block)
