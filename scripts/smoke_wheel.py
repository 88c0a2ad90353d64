"""Build the wheel, install it without the development tools, and use it offline.

Installs the locked base packages into ``build/smoke-venv`` (kept between runs), then runs the
installed command from an empty folder: help, doctor, ingest, keyword and hybrid search. Exits with
0 only when every command did what it should.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
VENV = BUILD / "smoke-venv"
LOCKS = [ROOT / "requirements" / name for name in ("build.lock", "base.lock")]
FORBIDDEN = ("torch", "pytest", "mypy", "ruff")
MODELS = Path(os.environ.get("ONDOL_HOME") or Path.home() / ".local/share/ondol") / "models"


class SmokeError(Exception):
    """The wheel does not do what it should."""


def build_wheel() -> Path:
    """Return a wheel built from the tree as it is."""
    target = BUILD / "wheel"
    shutil.rmtree(target, ignore_errors=True)
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), ".")
    (wheel,) = target.glob("ondol-*.whl")
    return wheel


def install(wheel: Path) -> None:
    """Put the locked base packages and ``wheel`` into the smoke environment."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in LOCKS)).hexdigest()[:16]
    stamp = VENV / f".locked-{digest}"
    if not stamp.exists():
        call(sys.executable, "-m", "venv", "--clear", str(VENV))
        pip("--require-hashes", "-r", str(LOCKS[0]))
        pip("--require-hashes", "--no-build-isolation", "-r", str(LOCKS[1]))
        stamp.touch()
    pip("--no-deps", "--force-reinstall", str(wheel))
    pip("check", command=())
    for name in FORBIDDEN:
        if list(VENV.glob(f"lib/python*/site-packages/{name}")):
            raise SmokeError(f"{name} is installed with the base packages")


def use() -> None:
    """Run the installed command in an empty folder, with a home of its own."""
    with tempfile.TemporaryDirectory(prefix="ondol-smoke-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "models").symlink_to(MODELS)
        (Path(folder) / "notes.md").write_text(
            "# 사내 규정\n\n연차 휴가는 입사 첫해에 15일이다.\n\n# Parking\n\nBay 42 is for guests.\n",
            "utf-8",
        )
        ondol = Command(Path(folder), home)
        expect("Usage: ondol", ondol.text("--help"))
        expect("ondol ", ondol.text("--version"))
        if not ondol.json("doctor")["ok"]:
            raise SmokeError("doctor found a failure")
        report = ondol.json("ingest", "notes.md", "-c", "smoke")
        if report["added"] != 1 or report["failed"]:
            raise SmokeError(f"ingest said {report}")
        for mode in ("lexical", "hybrid"):
            found = ondol.json("search", "연차 휴가", "-c", "smoke", "--mode", mode, "--no-rerank")
            expect("15일", found["hits"][0]["text"])


class Command:
    """The installed ``ondol``, offline."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ONDOL_", "PYTHON"))}
        self._environ = {**kept, "ONDOL_HOME": str(home), "ONDOL_OFFLINE": "1"}

    def text(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(VENV / "bin" / "ondol"), *arguments],
            cwd=self._folder,
            env=self._environ,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise SmokeError(f"ondol {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments, "--json"))


def expect(part: str, text: str) -> None:
    if part not in text:
        raise SmokeError(f"{part!r} is not in: {text[:400]}")


def pip(*arguments: str, command: tuple[str, ...] = ("install", "-qq")) -> None:
    python = str(VENV / "bin" / "python")
    call(python, "-m", "pip", "--disable-pip-version-check", *command, *arguments)


def call(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SmokeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def main() -> int:
    try:
        install(build_wheel())
        use()
    except SmokeError as error:
        sys.stderr.write(f"wheel: {error}\n")
        return 1
    sys.stdout.write("wheel: built, installed without development tools, and used\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
