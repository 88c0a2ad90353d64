"""What every benchmark script shares: the CLI, the machine's description, the last JSON line."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.pop("ONDOL_SHARED_DATA", ROOT.parent / "shared" / "data"))
"""Taken out of the environment: to Ondol an ``ONDOL_`` variable that is no setting is an error."""


def environment(home: Path | None = None) -> dict[str, str]:
    """Return the environment for a child; with ``home`` its state is kept there."""
    env = {k: v for k, v in os.environ.items() if k != "ONDOL_HOME"}
    if home is not None:
        env["ONDOL_HOME"] = str(home)
    elif "ONDOL_HOME" in os.environ:
        env["ONDOL_HOME"] = os.environ["ONDOL_HOME"]
    return env


def command(*args: str) -> list[str]:
    """Return the command line of one ``ondol`` call."""
    return [sys.executable, "-m", "ondol", *args]


def ondol(*args: str, home: Path | None = None) -> dict[str, Any]:
    """Run one ``ondol … --json`` to its end and return its JSON."""
    done = subprocess.run(
        command(*args, "--json"), env=environment(home), stdout=subprocess.PIPE, check=False
    )
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise SystemExit(
            f"ondol {' '.join(args)} exited {done.returncode}: {done.stdout[:400]!r}"
        ) from None
    return result


def working_home(name: str) -> Path:
    """Return an empty scratch home that shares the default home's models."""
    import shutil

    source = Path(os.environ.get("ONDOL_HOME", Path.home() / ".local/share/ondol"))
    home = Path(os.environ.get("TMPDIR", "/tmp")) / f"ondol-bench-{name}"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "models").symlink_to(source / "models")
    return home


def data_set(name: str) -> Path:
    """Return a shared data set's folder, or leave with a word where it is absent."""
    path = DATA / name
    if not path.is_dir():
        raise SystemExit(f"skipped: {name} is not in {DATA}; set ONDOL_SHARED_DATA")
    return path


def rows_of(name: str, file: str) -> list[dict[str, Any]]:
    """Return the rows of a file of a shared set."""
    lines = (data_set(name) / file).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def report(figures: Mapping[str, Any], *, settings: Mapping[str, Any] | None = None) -> None:
    """Print the closing JSON line: figures, commit, machine, settings."""
    print(
        json.dumps(
            {
                **figures,
                "settings": dict(settings or {}),
                "commit": _commit(),
                "cpu": _cpu(),
                "cores": len(os.sched_getaffinity(0)),
                "python": platform.python_version(),
                "at": time.strftime("%Y-%m-%d", time.gmtime()),
            },
            ensure_ascii=False,
        )
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
