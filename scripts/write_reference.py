"""Write ``docs/reference/cli.md`` and ``settings.md`` from the code; ``--check`` only compares.

The documents are what ``--help`` and the settings' descriptions say; a test keeps them so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ondol.cli.main import cli
from ondol.core.settings import Settings, known_keys

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
WIDTH = 100

CLI_HEAD = """# The `ondol` command

Data goes to stdout, everything else to stderr. `--json` makes the data one JSON line; an error is \
then the server's envelope, `{"error": {message, type, code, param, hint}}`. Global options may \
stand before or after the command's name.

Exit codes: 0 good, 2 usage, 3 refused or failed gate, 1 other (for `ingest`: a document failed), \
130 interrupted.

Written by `make docs` from `--help`.
"""

SETTINGS_HEAD = """# Settings

A flag (`--set retrieval.top_k=5`) beats a variable (`ONDOL_RETRIEVAL_TOP_K=5`) beats `ondol.toml` \
(`--config`, `ONDOL_CONFIG`, or in the working folder) beats the default. Unknown keys are errors. \
`ondol doctor --settings` lists what is in force, and who said it.

```toml
# ondol.toml
[server]
port = 8401

[retrieval]
top_k = 5
```

Lists (`server.api_keys`, `models.sources`) are comma-separated in variables and flags.

Written by `make docs` from `ondol.core.settings`.
"""


def cli_reference() -> str:
    """Return the page of all commands."""
    parts = [CLI_HEAD]
    for path, command in _commands("ondol", cli):
        level = "#" * min(4, 1 + len(path.split()))
        parts.append(f"{level} {path}\n\n```text\n{_help(path, command)}\n```\n")
    return "\n".join(parts)


def settings_reference() -> str:
    """Return the page of all settings."""
    parts = [SETTINGS_HEAD]
    section = None
    for key, description in known_keys().items():
        name = key.rpartition(".")[0]
        if name != section:
            section = name
            parts.append(f"\n## {section or 'General'}\n")
            parts.append("| setting | variable | default | what it is, and when to change it |")
            parts.append("|---|---|---|---|")
        variable = f"ONDOL_{key.replace('.', '_').upper()}"
        parts.append(f"| `{key}` | `{variable}` | {_default(key)} | {description} |")
    return "\n".join(parts) + "\n"


def pages() -> dict[Path, str]:
    """Return every generated page by its path."""
    return {
        REFERENCE / "cli.md": cli_reference(),
        REFERENCE / "settings.md": settings_reference(),
    }


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command, info_name=path)
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            if inner is not None:
                yield from _commands(f"{path} {name}", inner)


def _help(path: str, command: click.Command) -> str:
    settings: dict[str, Any] = dict(cli.context_settings)
    settings |= {"terminal_width": WIDTH, "max_content_width": WIDTH}
    ctx = click.Context(command, info_name=path, **settings)
    return command.get_help(ctx).strip()


def _default(key: str) -> str:
    if key == "home":
        return "`~/.local/share/ondol`"
    value: Any = Settings()
    for name in key.split("."):
        value = getattr(value, name)
    if value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    stale = [
        path
        for path, text in pages().items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    for path in stale:
        sys.stdout.write(f"{'stale' if check else 'wrote'} {path.relative_to(ROOT)}\n")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages()[path], "utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
