"""Tables as lines of text: labels, spans, and the way back from an offset."""

from __future__ import annotations

import pytest

from ondol.documents.readers.tables import Cell, TablePlace, spread, table_lines, table_place


def test_figures_under_words_carry_their_labels() -> None:
    rows = [["Place", "Daily", "Lodging (1 night)"], ["Jeju", "34,000", "118,000"], ["Seoul", "", "92,000"]]  # fmt: skip
    assert table_lines(rows) == [
        "Place | Daily | Lodging (1 night)",
        "Jeju | Daily: 34,000 | Lodging (1 night): 118,000",
        "Seoul | Lodging (1 night): 92,000",
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [["name", "Kim"], ["team", "sales"], ["city", "Seoul"]],
        [["Jeju", "34,000", "118,000"], ["Seoul", "29,000", "92,000"]],
        [["Open", "—"], ["Sold", "447"], ["Left", "12"]],
    ],
)
def test_rows_without_a_header_stay_plain(rows: list[list[str]]) -> None:
    assert table_lines(rows) == [" | ".join(row) for row in rows]


def test_a_known_header_labels_words_too_and_long_labels_are_not_repeated() -> None:
    rows = [["Kind", "Says", "x" * 40], ["A", "words", "y"]]
    assert table_lines(rows, header=True)[1] == "A | Says: words | y"


def test_years_are_labels_and_captions_stay_out_of_them() -> None:
    rows: list[list[str | None]] = [
        ["Revenue in thousands", None, None],
        ["", "2022", "2021"],
        ["Sales", "10", "9"],
    ]
    assert table_lines(rows) == [
        "Revenue in thousands |", "| 2022 | 2021", "Sales | 2022: 10 | 2021: 9",
    ]  # fmt: skip


def test_spans_speak_in_every_row_and_once_across() -> None:
    grid = spread(
        [
            [Cell("Region", down=2), Cell("Fee", across=2)],
            [Cell("Day"), Cell("Night")],
            [Cell("North", down=2), Cell("1"), Cell("2")],
            [Cell("3"), Cell("4")],
        ]
    )
    assert table_lines(grid)[2:] == [
        "North | Fee Day: 1 | Fee Night: 2",
        "North | Fee Day: 3 | Fee Night: 4",
    ]
    assert len(spread([[Cell("wide", across=10**9)]])[0]) <= 1000
    greedy = [[Cell("x", down=10**9, across=10**9)] for _ in range(3_000)]
    assert sum(map(len, spread(greedy))) < 4_000_000


def test_breaks_in_cells_and_empty_rows_and_columns_go() -> None:
    assert table_lines([["a\nb", "", "c"], ["", "", ""], ["d", "", "e"]]) == ["a b | c", "d | e"]
    assert table_lines([["", ""]]) == []
    assert table_lines([["one"], ["two"]]) == ["one", "two"]


def test_the_place_of_a_row_can_be_told_from_the_text() -> None:
    text = "Intro\n\na | b\nc | d\n\nBetween\n\n| x | y |\n|---|---|\n| 1 | 2 |\nEnd"
    places = {word: table_place(text, text.index(word)) for word in ("c | d", "1 | 2", "Between", "End")}  # fmt: skip
    assert places == {
        "c | d": TablePlace(1, 2), "1 | 2": TablePlace(2, 2), "Between": None, "End": None,
    }  # fmt: skip
