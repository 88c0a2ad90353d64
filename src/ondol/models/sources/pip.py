"""``pip download``, which brings files of the user's package index and installs nothing.

It honours the user's index, proxy and certificates and checks the index's own hashes. Knows no
model and no build.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ondol.core.errors import DownloadFailed

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
