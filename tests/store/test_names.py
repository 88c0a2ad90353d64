from __future__ import annotations

import pytest

from ondol.store.collection_names import document_name, free_name


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/srv/docs/취업규칙.pdf", "취업규칙.pdf"),
        ("rules.md", "rules.md"),
        ("upload:/rules.md", "rules.md"),
        ("C:\\docs\\a.txt", "a.txt"),
        ("/x/laws.jsonl#민법_1", "민법_1"),
        ("/x/laws.JSONL#a/b", "a/b"),
        ("/x/table.csv#12", "12"),
        ("/x/C# notes.txt", "C# notes.txt"),
        ("/x/laws.jsonl#", "laws.jsonl#"),
        ("/", "/"),
    ],
)
def test_what_a_source_is_called(source: str, name: str) -> None:
    assert document_name(source) == name


def test_a_taken_name_gets_a_suffix_of_its_source() -> None:
    held = {"a.txt"}
    first = free_name("/x/a.txt", taken=held.__contains__)
    assert first.startswith("a.txt~")
    assert first == free_name("/x/a.txt", taken=held.__contains__)
    assert first != free_name("/y/a.txt", taken=held.__contains__)
    longer = free_name("/x/a.txt", taken=(held | {first}).__contains__)
    assert longer.startswith(first)
    assert longer != first
    assert free_name("/x/a.txt", taken=lambda name: len(name) < 71).startswith(first)
