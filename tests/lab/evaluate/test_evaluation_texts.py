"""Texts, rated pairs and rerank requests in the shapes people have them in."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondol.core.errors import InvalidInput, NotFound
from ondol.lab.evaluate.datasets import (
    JudgedList,
    material,
    pooled,
    read_pairs,
    read_requests,
    read_texts,
    sample_lists,
    sample_texts,
)


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, "utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one\n\ntwo [2]\n"),
        ("a.jsonl", '{"text": "one"}\n{"text": "two [2]", "id": 3}\n'),
        ("a.txt", '{"text": "one"}\n{"text": "two [2]"}\n'),
        ("a.json", '["one", "two [2]"]'),
        ("a.json", '[{"text": "one"},\n {"text": "two [2]"}]'),
        ("a.txt", "\ufeffone\ntwo [2]"),
    ],
)
def test_texts(tmp_path: Path, name: str, content: str) -> None:
    assert read_texts(written(tmp_path, name, content)) == ["one", "two [2]"]


def test_lines_that_begin_with_a_bracket_are_lines(tmp_path: Path) -> None:
    assert read_texts(written(tmp_path, "a.txt", "[1] note\nmore")) == ["[1] note", "more"]


def test_what_is_no_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_texts(tmp_path / "absent")
    with pytest.raises(InvalidInput, match="no text"):
        read_texts(written(tmp_path, "a.txt", " \n"))
    with pytest.raises(InvalidInput, match="line 2"):
        read_texts(written(tmp_path, "a.jsonl", '{"text": "a"}\n{"txt": "b"}\n'))


def test_pairs_by_the_names_of_their_columns(tmp_path: Path) -> None:
    korsts = "id\tgenre\tscore\tsentence1\tsentence2\nd-0\tm\t5.000\ta\tb\n"
    stsb = "id\tscore\tsentence1\tsentence2\nd-0\t5\ta\tb\n"
    for content in (korsts, stsb):
        (pair,) = read_pairs(written(tmp_path, "p.tsv", content))
        assert (pair.left, pair.right, pair.score) == ("a", "b", 5.0)
    with pytest.raises(InvalidInput, match="'score'"):
        read_pairs(written(tmp_path, "p.tsv", "a\tb\n"))
    with pytest.raises(InvalidInput, match="line 3"):
        read_pairs(written(tmp_path, "p.tsv", stsb + "x\tmuch\ta\tb\n"))
    with pytest.raises(NotFound):
        read_pairs(tmp_path / "absent.tsv")


def test_requests(tmp_path: Path) -> None:
    lines = '{"query": "q", "documents": ["a", "b"], "gains": [0, 1]}\n'
    assert read_requests(written(tmp_path, "r.jsonl", lines)) == [
        JudgedList("q", ("a", "b"), (0.0, 1.0))
    ]
    passages = written(tmp_path, "p.txt", "a\nb\n")
    assert read_requests(passages, query="q") == [JudgedList("q", ("a", "b"))]
    with pytest.raises(InvalidInput, match="--query|documents"):
        read_requests(written(tmp_path, "e.jsonl", '{"query": "q", "documents": []}\n'))


def test_our_samples_are_many_and_of_both_languages() -> None:
    both, english = sample_texts(["ko", "en"]), sample_texts(["en"])
    assert len(both) >= 200
    assert 50 <= len(english) < len(both)
    assert not any("가" <= char <= "힣" for text in english for char in text)
    assert max(map(len, both)) > 1000 > 20 > min(map(len, both))
    assert sample_texts(["xx"]) == both
    for one in sample_lists(["ko", "en"]):
        assert len(one.documents) == len(one.gains) == len(set(one.documents)) == 10
        assert sum(gain > 0 for gain in one.gains) == 1


def test_material_by_role() -> None:
    embedder = material("embedder", ["ko", "en"])
    assert len(embedder.pairs) >= 60
    assert not embedder.lists
    assert embedder.retrieval is not None
    assert all(len(gains) == 1 for gains in embedder.retrieval.gains)
    reranker = material("reranker", ["en"])
    assert len(reranker.lists) >= 15
    assert not reranker.texts


def test_pooling_keeps_each_querys_gains() -> None:
    found = pooled([JudgedList("q", ("a", "b"), (0, 2)), JudgedList("r", ("b", "c"), (1, 0))])
    assert found.documents == ("a", "b", "c")
    assert found.gains == ({1: 2}, {1: 1})


def test_lighter_material_keeps_what_is_relevant() -> None:
    whole = material("embedder", ["ko", "en"])
    light = whole.lightened()
    assert len(light.texts) * 3 < len(whole.texts)
    assert whole.retrieval is not None
    assert light.retrieval is not None
    assert len(light.retrieval.documents) < len(whole.retrieval.documents)
    judged = zip(light.retrieval.queries, light.retrieval.gains, strict=True)
    for query, gains in judged:
        at = whole.retrieval.queries.index(query)
        assert {light.retrieval.documents[n] for n in gains} == {
            whole.retrieval.documents[n] for n in whole.retrieval.gains[at]
        }


def test_a_beir_folder_is_material(tmp_path: Path) -> None:
    written(
        tmp_path,
        "corpus.jsonl",
        "".join(f'{{"_id": "d{n}", "title": "t", "text": "word{n} gate"}}\n' for n in range(30)),
    )
    written(tmp_path, "queries.jsonl", '{"_id": "q", "text": "gate word3"}\n')
    written(tmp_path, "qrels.tsv", "query-id\tcorpus-id\tscore\nq\td7\t1\nq\tabsent\t1\n")
    retrieval = material("embedder", ["en"], dataset=tmp_path).retrieval
    assert retrieval is not None
    assert retrieval.gains == ({7: 1.0},)
    (one,) = material("reranker", ["en"], dataset=tmp_path).lists
    assert len(one.documents) == 20
    assert one.documents[one.gains.index(1.0)] == "t word7 gate"
    assert "t word3 gate" in one.documents
