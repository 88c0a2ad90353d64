"""Native builds: compiled once, recorded with their hash, and found again.

``<root>/<name>-<version>-<cpu key>/`` holds the program and ``build.json``, both whole or not at
all: the folder gets its name when everything else is done. A build for another processor, another
version or with other bytes than recorded is not found. Nothing is built unless asked for.

The source archive of a recipe: fetched by pip, checked, and unpacked where it may be.

pip prepares a source package's metadata when it downloads it; the hash is checked before that.
Only the part that is compiled is unpacked: plain files and folders, nothing outside the target.

What is compiled, from which source, and with which options. Data, and the key of a processor.

Runs one build command in a session of its own and tells its lines; ends with all it started.

The programs that compile: found on this machine, or, for CMake and Ninja, fetched as wheels.

A compiler is never fetched: without one the error says what to install.

Programs that are compiled on this machine for its own processor, when the user asks for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import DownloadFailed, HashMismatch, ModelError, OfflineMissing
from ondol.core.machine import usable_cores
from ondol.core.private_files import private_folder
from ondol.kernels.processor import cpu_flags
from ondol.models.download import hash_file
from ondol.models.manifest import locked
from ondol.models.sources import pip_download


@dataclass(frozen=True, slots=True)
class BuildRecipe:
    """A program made from a source archive on the package index.

    ``source`` is the folder of its ``CMakeLists.txt`` inside the archive, ``target`` what CMake
    makes and ``program`` where it then lies in the build folder.
    """

    name: str
    project: str
    version: str
    sha256: str
    bytes: int
    source: str
    target: str
    program: str
    options: tuple[str, ...]


LLAMACPP = BuildRecipe(
    name="llamacpp",
    project="llama-cpp-python",
    version="0.3.36",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    bytes=76_589_250,
    source="llama_cpp_python-0.3.36/vendor/llama.cpp",
    target="llama-server",
    program="bin/llama-server",
    options=(
        "-DCMAKE_BUILD_TYPE=Release",
        "-DGGML_NATIVE=ON",
        "-DBUILD_SHARED_LIBS=OFF",
        "-DLLAMA_BUILD_TESTS=OFF",
        "-DLLAMA_BUILD_EXAMPLES=OFF",
        "-DLLAMA_BUILD_APP=OFF",
        # Nothing that talks to the network, runs programs or serves pages.
        "-DLLAMA_BUILD_UI=OFF",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
        "-DLLAMA_OPENSSL=OFF",
        "-DLLAMA_SUBPROCESS=OFF",
        "-DGGML_CCACHE=OFF",
    ),
)
"""llama.cpp's server. The archive is that of its Python binding (MIT), which carries all of it."""

RECIPES = {LLAMACPP.name: LLAMACPP}


def cpu_key() -> str:
    """Return 12 hex digits that stand for what this processor can do.

    A program compiled for another set of instructions may end with an illegal one.
    """
    said = " ".join([platform.machine(), *sorted(cpu_flags())])
    return hashlib.sha256(said.encode()).hexdigest()[:12]


_MOST_BYTES = 2_000_000_000
"""No honest archive of a program's source is larger when unpacked."""


def fetch(recipe: BuildRecipe, folder: Path, *, fraction: Callable[[float], None]) -> Path:
    """Return the recipe's archive in ``folder``; one that is there and right is not fetched again.

    Raises ``DownloadFailed`` and ``HashMismatch``.
    """
    private_folder(folder)
    kept = _kept(recipe, folder)
    if kept is not None and hash_file(kept) == recipe.sha256:
        return kept
    wanted = f"{recipe.project}=={recipe.version}"
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{wanted} --hash=sha256:{recipe.sha256}\n", "utf-8")
    pip_download(
        ["--no-binary", recipe.project, "--require-hashes", "-r", str(requirement)],
        folder,
        wanted=wanted,
        fraction=fraction,
    )
    fetched = _kept(recipe, folder)
    if fetched is None:
        raise DownloadFailed(f"pip left no archive of {wanted}", hint="run it again")
    if (found := hash_file(fetched)) != recipe.sha256:
        fetched.unlink()
        raise HashMismatch(
            f"{fetched.name} has SHA-256 {found}; the recipe names {recipe.sha256}",
            hint="the package index may be damaged or tampered with; nothing was kept",
        )
    return fetched


def unpack(archive: Path, folder: Path, *, part: str) -> Path:
    """Unpack ``part`` of ``archive`` into ``folder`` and return where it lies.

    Raises ``DownloadFailed`` for a member that would leave ``folder``, a link or device among
    them, or a part that is not there.
    """
    try:
        with tarfile.open(archive) as opened:
            for member in _wanted(opened, part):
                opened.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DownloadFailed(
            f"{archive.name} could not be unpacked: {error}",
            hint="check the free disk space and run it again",
        ) from error
    target = folder / part
    if not target.is_dir():
        raise DownloadFailed(
            f"{archive.name} has no folder {part}", hint="update Ondol: its recipe may be newer"
        )
    return target


def _wanted(opened: tarfile.TarFile, part: str) -> Iterator[tarfile.TarInfo]:
    total = 0
    for member in opened:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise DownloadFailed(
                f"the archive has the member {member.name!r}, outside its own folder",
                hint="it may be tampered with; nothing was built",
            )
        if not path.is_relative_to(part) or member.issym() or member.islnk():
            continue
        if not (member.isfile() or member.isdir()):
            raise DownloadFailed(
                f"the archive has {member.name!r}, which is neither file nor folder",
                hint="it may be tampered with; nothing was built",
            )
        total += member.size
        if total > _MOST_BYTES:
            raise DownloadFailed(
                f"the archive unpacks to more than {_MOST_BYTES:,} bytes",
                hint="it may be tampered with; nothing was built",
            )
        yield member


def _kept(recipe: BuildRecipe, folder: Path) -> Path | None:
    stem = recipe.project.replace("-", "_")
    return next(iter(sorted(folder.glob(f"{stem}-{recipe.version}.tar.gz"))), None)


_KEPT_LINES = 20
_STOP_SECONDS = 5.0


def run(command: Sequence[str], *, folder: Path, line: Callable[[str], None]) -> None:
    """Run ``command`` in ``folder``; ``line`` hears each line it writes.

    Raises ``ModelError`` with its last words when it fails. Whatever interrupts the caller ends
    the command and its compilers first.
    """
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    with subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            for text in process.stdout or ():
                if text.strip():
                    last.append(text.strip())
                    line(text.strip())
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        errors = [text for text in last if "error" in text.lower()] or list(last)[-1:]
        raise ModelError(
            f"{Path(command[0]).name} ended with exit code {process.returncode}: "
            f"{' / '.join(errors[:3]) or 'it gave no reason'}",
            hint="mend what it names and build again; the form llamacpp:portable needs no build",
        )


def _end(process: subprocess.Popen[str]) -> None:
    """End the whole session: ninja passes no signal on to its compilers."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(_STOP_SECONDS)
    except ProcessLookupError:
        return
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


_PINNED = ("cmake==3.31.6", "ninja==1.11.1.4")
_OLDEST_CMAKE = (3, 14)
_INSTALL_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Where the three programs are; ``compiler`` is described by its first line of ``--version``."""

    cmake: str
    ninja: str
    cxx: str
    compiler: str


def find_compiler() -> tuple[str, str]:
    """Return the C++ compiler and what it calls itself; raises ``ModelError`` where there is none."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        found = shutil.which(name) if name else None
        if found and (said := _version(found)):
            return found, said
    raise ModelError(
        "there is no C++ compiler on this machine",
        hint="install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; "
        "macOS: xcode-select --install), or stay with the form llamacpp:portable",
    )


def find_toolchain(folder: Path, *, offline: bool) -> Toolchain:
    """Return all three; CMake and Ninja go into ``folder`` where the machine has none.

    Raises ``ModelError`` without a compiler, and ``DownloadFailed`` when the other two are neither
    here nor to be had.
    """
    cxx, compiler = find_compiler()
    cmake, ninja = _cmake(folder), _which("ninja", folder)
    if cmake is None or ninja is None:
        _fetch(folder, offline=offline)
        cmake, ninja = cmake or _cmake(folder), ninja or _which("ninja", folder)
    if cmake is None or ninja is None:
        raise DownloadFailed(
            "the wheels of cmake and ninja have no program for this machine",
            hint="install both (Debian, Ubuntu: apt install cmake ninja-build)",
        )
    return Toolchain(cmake=cmake, ninja=ninja, cxx=cxx, compiler=compiler)


def _cmake(folder: Path) -> str | None:
    found = _which("cmake", folder)
    version = re.search(r"(\d+)\.(\d+)", _version(found)) if found else None
    if version is None or (int(version[1]), int(version[2])) < _OLDEST_CMAKE:
        return None
    return found


def _which(name: str, folder: Path) -> str | None:
    places = [folder / "bin", folder / name / "data" / "bin"]
    inside = shutil.which(name, path=os.pathsep.join(str(place) for place in places))
    # The wheels' scripts need their package; the programs beside it need nothing.
    direct = folder / name / "data" / "bin" / name
    return str(direct) if direct.is_file() else inside or shutil.which(name)


def _version(program: str) -> str:
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.partition("\n")[0].strip()


def _fetch(folder: Path, *, offline: bool) -> None:
    if offline:
        raise DownloadFailed(
            "cmake or ninja is not on this machine, and Ondol is offline",
            hint="install both (Debian, Ubuntu: apt install cmake ninja-build), or run it once "
            "with the network",
        )
    command = [
        sys.executable, "-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--no-input",
        "--disable-pip-version-check", "--quiet", "--upgrade", "--target", str(folder), *_PINNED,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it gave no reason"]
        raise DownloadFailed(
            f"pip could not fetch {' and '.join(_PINNED)}: {said[-1]}",
            hint="install both (Debian, Ubuntu: apt install cmake ninja-build)",
        )


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
class NativeBuild:
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


def build_folder(root: Path, recipe: BuildRecipe) -> Path:
    """Return where a build of ``recipe`` for this processor lies, or would."""
    return root / f"{recipe.name}-{recipe.version}-{cpu_key()}"


def find_build(root: Path, recipe: BuildRecipe) -> tuple[Path, NativeBuild] | None:
    """Return the program and its record, or ``None`` where there is none that may be run.

    Reads the program through and compares its hash: some tens of milliseconds.
    """
    folder = build_folder(root, recipe)
    try:
        said = json.loads((folder / RECORD).read_text("utf-8"))
        record = NativeBuild(**{**said, "options": tuple(said["options"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    program = folder / recipe.target
    if record.cpu != cpu_key() or record.archive != recipe.sha256 or not program.is_file():
        return None
    return (program, record) if hash_file(program) == record.sha256 else None


class NativeBuilder:
    """Makes one recipe under ``root``; ``offline`` uses only what is here already."""

    def __init__(
        self,
        recipe: BuildRecipe,
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

    def build(self, *, force: bool = False) -> tuple[Path, NativeBuild]:
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
        record = NativeBuild(
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
        private_folder(self._work)
        free = shutil.disk_usage(self._work).free
        if free < _NEEDED_BYTES:
            raise ModelError(
                f"a build needs about {_NEEDED_BYTES:,} bytes while it runs; {self._root} has "
                f"{free:,} free",
                hint="free some space, or move ONDOL_HOME to a larger disk",
            )

    def _say(self, phase: str, done: int, total: int, note: str = "") -> None:
        self._progress(BuildProgress(phase, done, total, note))
