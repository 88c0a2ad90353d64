"""Native builds: compiled once, recorded with their hash, and found again.

``<root>/<name>-<version>-<cpu key>/`` holds the program and ``build.json``, both whole or not at
all: the folder gets its name when everything else is done. A build for another processor, another
version or with other bytes than recorded is not found. Nothing is built unless asked for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import ModelError, OfflineMissing
from ondol.core.machine import usable_cores
from ondol.models.builds.archive import fetch, unpack
from ondol.models.builds.recipe import Recipe, cpu_key
from ondol.models.builds.running import run
from ondol.models.builds.toolchain import Toolchain, find_compiler, find_toolchain
from ondol.models.download import hash_file
from ondol.models.lock import locked

RECORD = "build.json"
_STEP = re.compile(r"\[(\d+)/(\d+)\]")
_NEEDED_BYTES = 1_500_000_000


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a build is: ``done`` of ``total`` steps of a phase."""

    phase: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Build:
    """A program that was compiled here; ``archive`` is the source's SHA-256, ``sha256`` its own."""

    name: str
    version: str
    cpu: str
    program: str
    bytes: int
    sha256: str
    archive: str
    compiler: str
    options: tuple[str, ...]
    seconds: float


Progress = Callable[[BuildProgress], None]


def build_folder(root: Path, recipe: Recipe) -> Path:
    """Return where a build of ``recipe`` for this processor lies, or would."""
    return root / f"{recipe.name}-{recipe.version}-{cpu_key()}"


def find_build(root: Path, recipe: Recipe) -> tuple[Path, Build] | None:
    """Return the program and its record, or ``None`` where there is none that may be run.

    Reads the program through and compares its hash: some tens of milliseconds.
    """
    folder = build_folder(root, recipe)
    try:
        said = json.loads((folder / RECORD).read_text("utf-8"))
        record = Build(**{**said, "options": tuple(said["options"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    program = folder / recipe.target
    if record.cpu != cpu_key() or record.archive != recipe.sha256 or not program.is_file():
        return None
    return (program, record) if hash_file(program) == record.sha256 else None


class Builder:
    """Makes one recipe under ``root``; ``offline`` uses only what is here already."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        root: Path,
        offline: bool = False,
        jobs: int = 0,
        progress: Progress | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._recipe = recipe
        self._root = root
        self._offline = offline
        self._jobs = jobs or usable_cores()
        self._progress = progress or (lambda _: None)
        self._clock = clock or SystemClock()
        self._work = root / ".work" / build_folder(root, recipe).name

    def build(self, *, force: bool = False) -> tuple[Path, Build]:
        """Return the program, compiled now unless it is here; one build at a time.

        Interrupted, it keeps what was fetched and compiled, and the next goes on from there.
        Raises ``OfflineMissing``, ``DownloadFailed``, ``HashMismatch``, and ``ModelError`` when
        there is no compiler or it fails.
        """
        with locked(self._root / ".locks" / f"{self._recipe.name}.lock"):
            found = None if force else find_build(self._root, self._recipe)
            if found is not None:
                return found
            if force:
                shutil.rmtree(self._work, ignore_errors=True)
            self._make()
        made = find_build(self._root, self._recipe)
        if made is None:
            raise ModelError(
                f"the build of {self._recipe.name} is not whole", hint="run it again with --force"
            )
        return made

    def _make(self) -> None:
        started = self._clock.monotonic()
        find_compiler()  # before anything is fetched
        self._require_space()
        archive = self._archive()
        tools = find_toolchain(self._work / "tools", offline=self._offline)
        source = self._source(archive)
        output = self._work / "build"
        self._configure(tools, source, output)
        self._compile(tools, output)
        self._keep(output / self._recipe.program, tools, self._clock.monotonic() - started)

    def _archive(self) -> Path:
        recipe, folder = self._recipe, self._work / "archive"
        kept = folder / f"{recipe.project.replace('-', '_')}-{recipe.version}.tar.gz"
        if self._offline and not kept.is_file():
            raise OfflineMissing(
                f"the source of {recipe.name} ({recipe.project}=={recipe.version}) is not on this "
                "machine, and Ondol is offline",
                hint=f"run `ondol models build {recipe.name}` once with the network, or put the "
                f"archive there yourself: {kept}",
            )
        percent = 100
        self._say("fetch", 0, percent)
        return fetch(
            recipe, folder, fraction=lambda part: self._say("fetch", round(part * percent), percent)
        )

    def _source(self, archive: Path) -> Path:
        """Return the unpacked source; that of an interrupted build is used again."""
        folder, whole = self._work / "source", self._work / "source.whole"
        if not whole.exists():
            self._say("unpack", 0, 1)
            unpack(archive, folder, part=self._recipe.source)
            whole.touch()
        return folder / self._recipe.source

    def _configure(self, tools: Toolchain, source: Path, output: Path) -> None:
        self._say("configure", 0, 1)
        command = [
            tools.cmake, "-S", str(source), "-B", str(output), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={tools.ninja}", f"-DCMAKE_CXX_COMPILER={tools.cxx}",
            *self._recipe.options,
        ]  # fmt: skip
        run(command, folder=self._work, line=lambda text: self._say("configure", 0, 1, text))

    def _compile(self, tools: Toolchain, output: Path) -> None:
        def line(text: str) -> None:
            if step := _STEP.match(text):
                self._say("compile", int(step[1]), int(step[2]), text.partition("]")[2].strip())

        command = [tools.ninja, "-C", str(output), "-j", str(self._jobs), self._recipe.target]
        run(command, folder=self._work, line=line)

    def _keep(self, program: Path, tools: Toolchain, seconds: float) -> None:
        """Put program and record into the final folder in one step; then drop the work."""
        recipe, whole = self._recipe, self._work / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir(parents=True)
        target = whole / recipe.target
        shutil.copyfile(program, target)
        target.chmod(0o755)
        record = Build(
            name=recipe.name,
            version=recipe.version,
            cpu=cpu_key(),
            program=recipe.target,
            bytes=target.stat().st_size,
            sha256=hash_file(target),
            archive=recipe.sha256,
            compiler=tools.compiler,
            options=recipe.options,
            seconds=round(seconds, 1),
        )
        (whole / RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n", "utf-8")
        final = build_folder(self._root, recipe)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(whole, final)
        shutil.rmtree(self._work, ignore_errors=True)

    def _require_space(self) -> None:
        self._work.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._work).free
        if free < _NEEDED_BYTES:
            raise ModelError(
                f"a build needs about {_NEEDED_BYTES:,} bytes while it runs; {self._root} has "
                f"{free:,} free",
                hint="free some space, or move ONDOL_HOME to a larger disk",
            )

    def _say(self, phase: str, done: int, total: int, note: str = "") -> None:
        self._progress(BuildProgress(phase, done, total, note))
