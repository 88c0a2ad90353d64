"""How a run that failed leaves: what it says, and its exit code.

Exit codes: 0 good, 2 usage, 3 refused or failed gate, 1 other, 130 interrupted. With ``--json`` the
error is also the one JSON document on stdout, in the server's envelope, unless data went out before.
"""

from __future__ import annotations

import os
import sys
import traceback

import click

from ondol.cli.invocation import Invocation
from ondol.core.errors import OndolError, outcome_of

INTERRUPTED = 130


def report(error: BaseException, *, invocation: Invocation) -> int:
    """Say what happened and return the exit code."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        invocation.output.note("interrupted")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return _reader_left()
    if isinstance(error, OndolError):
        return _report_ours(error, invocation)
    if isinstance(error, click.ClickException):
        return _report_usage(error, invocation)
    return _report_unexpected(error, invocation)


def _report_ours(error: OndolError, invocation: Invocation) -> int:
    outcome = outcome_of(error)
    if invocation.verbosity > 1:
        _print_traceback(error)
    invocation.output.error(error.message, hint=error.hint)
    _write_envelope(
        invocation,
        message=error.message,
        kind=outcome.type,
        code=error.code,
        param=error.param,
        hint=error.hint,
    )
    return outcome.exit_code


def _report_usage(error: click.ClickException, invocation: Invocation) -> int:
    message = error.format_message()
    ctx = getattr(error, "ctx", None)
    hint = f"see `{ctx.command_path} --help`" if ctx is not None else "see `ondol --help`"
    invocation.output.error(message, hint=hint)
    _write_envelope(
        invocation,
        message=message,
        kind="invalid_request_error",
        code="usage",
        param=None,
        hint=hint,
    )
    return 2


def _report_unexpected(error: BaseException, invocation: Invocation) -> int:
    message = f"unexpected {type(error).__name__}: {error}"
    hint = "run it again with -v for the details, and report them"
    if invocation.verbosity:
        _print_traceback(error)
        hint = "please report the lines above"
    invocation.output.error(message, hint=hint)
    _write_envelope(
        invocation, message=message, kind="server_error", code="internal", param=None, hint=hint
    )
    return 1


def _write_envelope(
    invocation: Invocation, *, message: str, kind: str, code: str, param: str | None, hint: str
) -> None:
    output = invocation.output
    if not output.as_json or output.wrote_data:
        return
    output.data(
        {"error": {"message": message, "type": kind, "code": code, "param": param, "hint": hint}}
    )


def _print_traceback(error: BaseException) -> None:
    traceback.print_exception(error, file=sys.stderr)


def _reader_left() -> int:
    """Whoever read our output has gone: end quietly, and let the interpreter's last flush pass."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    return 1
