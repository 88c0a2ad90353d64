"""Progress away from a terminal: a line at once, then one every few seconds."""

from __future__ import annotations

import io

from ondol.cli.output import LINE_EVERY_SECONDS, Output, meter
from ondol.core.clock import ManualClock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_come_every_few_seconds() -> None:
    stderr, clock = io.StringIO(), ManualClock()
    output = Output(as_json=False, stdout=io.StringIO(), stderr=stderr)
    with meter(output, unit="bytes", clock=clock) as shown:
        for done in range(0, 10_000_000, 1_000_000):
            shown.update(done=done, total=10_000_000, note="weights")
            clock.advance(LINE_EVERY_SECONDS / 4)
    assert stderr.getvalue().splitlines() == [
        "weights: 0 B of 10.0 MB (0%)",
        "weights: 4.0 MB of 10.0 MB (40%)",
        "weights: 8.0 MB of 10.0 MB (80%)",
    ]


def test_an_unknown_total_is_left_out() -> None:
    stderr = io.StringIO()
    output = Output(as_json=False, stdout=io.StringIO(), stderr=stderr)
    with meter(output, unit="items", clock=ManualClock()) as shown:
        shown.update(done=3, total=0, note="documents")
    assert stderr.getvalue() == "documents: 3\n"


def test_a_terminal_gets_a_bar_and_stdout_nothing() -> None:
    stderr, stdout = Terminal(), io.StringIO()
    output = Output(as_json=False, stdout=stdout, stderr=stderr)
    for unit in ("bytes", "items"):
        with meter(output, unit=unit, clock=ManualClock()) as shown:
            shown.update(done=1, total=2, note="취업규칙.pdf")
    assert "취업규칙.pdf" in stderr.getvalue()
    assert stdout.getvalue() == ""
