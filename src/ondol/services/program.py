"""Running a program that the operator named: an argument list, no shell, no input, a time limit."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence

from ondol.core.errors import OndolError

PROGRAM_SECONDS = 120.0
_LAST_WORDS = 500


async def run_program(argv: Sequence[str], *, seconds: float = PROGRAM_SECONDS) -> str:
    """Run ``argv`` to its end and return one sentence on it.

    Raises ``OndolError`` with the code ``program_failed`` where it cannot be started, does not end in
    time or says that it failed; a program that is still running after ``seconds`` is killed.
    """
    line = shlex.join(argv)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except (OSError, ValueError) as error:
        raise _failed(
            f"{line} could not be started: {error}", hint="check watchdog.command"
        ) from None
    try:
        async with asyncio.timeout(seconds):
            _, said = await process.communicate()
    except TimeoutError:
        raise _failed(
            f"{line} did not end within {seconds:g} s and was killed",
            hint="name a program that returns at once",
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        words = " ".join(said.decode("utf-8", "replace").split())[-_LAST_WORDS:]
        raise _failed(
            f"{line} ended with {process.returncode}" + (f": {words}" if words else ""),
            hint="run it by hand as this user",
        )
    return f"{line} ended well"


def _failed(message: str, *, hint: str) -> OndolError:
    return OndolError(message, hint=hint, code="program_failed")
