"""What goes where, how wide it is, and that JSON holds everything."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.cli.output import Output, display_width, human_bytes, plain, shorten


def make(*, as_json: bool = False) -> tuple[Output, io.StringIO, io.StringIO]:
    stdout, stderr = io.StringIO(), io.StringIO()
    return Output(as_json=as_json, stdout=stdout, stderr=stderr), stdout, stderr


@dataclass(frozen=True, slots=True)
class Inner:
    path: Path
    pair: tuple[int, int]


def test_plain_turns_dataclasses_paths_and_tuples_into_json() -> None:
    value = {1: Inner(Path("/a"), (1, 2)), "b": [Inner(Path("c"), (3, 4))]}
    assert plain(value) == {
        "1": {"path": "/a", "pair": [1, 2]},
        "b": [{"path": "c", "pair": [3, 4]}],
    }


def test_data_is_one_line_of_readable_json() -> None:
    output, stdout, stderr = make(as_json=True)
    output.data({"answer": "열다섯\n일"})
    assert stdout.getvalue() == '{"answer": "열다섯\\n일"}\n'
    assert stderr.getvalue() == ""
    assert output.wrote_data


def test_errors_are_one_line_and_a_hint_on_stderr() -> None:
    output, stdout, stderr = make()
    output.error("it broke\nbadly", hint="mend\nit")
    assert stderr.getvalue() == "error: it broke badly\nhint: mend it\n"
    assert stdout.getvalue() == ""


def test_no_colour_without_a_terminal() -> None:
    output, stdout, _ = make()
    output.table(("A", "B"), [("1", "2")])
    assert "\x1b" not in stdout.getvalue()


def test_tables_align_wide_characters() -> None:
    output, stdout, _ = make()
    output.table(("NAME", "N"), [("취업규칙", 1), ("a", 2)])
    lines = stdout.getvalue().splitlines()
    assert [display_width(line) for line in lines] == [11, 11, 11]


@given(st.text(max_size=60), st.integers(min_value=1, max_value=40))
def test_shortened_text_fits_on_one_line(text: str, columns: int) -> None:
    short = shorten(text, columns=columns)
    assert display_width(short) <= columns
    assert "\n" not in short


@given(st.text(max_size=40))
def test_text_that_fits_stays_whole(text: str) -> None:
    assert shorten(text, columns=100) == " ".join(text.split())


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (88_700_000, "88.7 MB"), (1_117_320_768, "1.1 GB")],
)
def test_human_bytes(count: int, text: str) -> None:
    assert human_bytes(count) == text


def test_json_survives_lone_surrogates_on_a_real_stream() -> None:
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace")
    Output(as_json=True, stdout=stdout, stderr=io.StringIO()).data({"name": "bad\udc80name"})
    stdout.flush()
    assert json.loads(raw.getvalue().decode("utf-8")) == {"name": "bad\udc80name"}
