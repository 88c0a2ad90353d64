from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.store.builders import filled, put

from ondol.store.documents import DocumentStore
from ondol.store.lexical import MAX_TERMS


def bm25(documents: dict[int, list[str]], query: list[str]) -> dict[int, float]:
    """BM25 as SQLite documents it for FTS5: k1 = 1.2, b = 0.75, IDF not below 1e-6."""
    mean = sum(map(len, documents.values())) / len(documents)
    scores: dict[int, float] = {}
    for word in set(query):
        holders = {i: Counter(d)[word] for i, d in documents.items() if word in d}
        n = len(holders)
        idf = max(math.log((len(documents) - n + 0.5) / (n + 0.5)), 1e-6) if n else 0.0
        for i, count in holders.items():
            norm = 1.2 * (1 - 0.75 + 0.75 * len(documents[i]) / mean)
            scores[i] = scores.get(i, 0.0) + idf * count * 2.2 / (count + norm)
    return scores


def test_scores_are_bm25_over_the_collection_alone(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with filled(tmp_path) as store:
        store.create_collection("other", embedder="e5", dimensions=16)
        documents: dict[int, list[str]] = {}
        for number in range(60):
            words = [f"낱말{n}" for n in random.zipf(1.5, 20) if n < 200]
            put(store, f"/{number}", "가나다", tokens=words)
            put(store, f"/{number}", "가나다", tokens=["낱말1"], collection="other")
            documents[2 * number + 1] = words
        for number in range(40):
            query = [f"낱말{n}" for n in random.zipf(1.3, 6) if n < 200]
            found = store.search_lexical("c", query, limit=10)
            wanted = sorted(bm25(documents, query).items(), key=lambda p: (-p[1], p[0]))[:10]
            assert [s for _, s in found] == pytest.approx([s for _, s in wanted], abs=1e-4)
            assert all(score > 0 for _, score in found)
            if number % 2:
                assert found == sorted(found, key=lambda pair: (-pair[1], pair[0]))


TOKENS = [
    "2019다12345", "제60조의2", "a.b-c", 'say"so', "it's", "AND", "OR", "NOT", "NEAR(a b)", "*", "^x",
    "col:on", "두 낱말", "탭\t낱말", "{}", "$%", "😀", "𝒜", "é", "e\u0301", "中文", "-1", "3.5", "'; DROP TABLE chunks; --",
]  # fmt: skip


def test_each_token_stays_whole_and_finds_itself_alone(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        for number, token in enumerate(TOKENS):
            put(store, f"/{number:02}", "가", tokens=[token])
        for number, token in enumerate(TOKENS):
            found = store.search_lexical("c", [token], limit=9)
            rows = store.chunks("c", [chunk for chunk, _ in found])
            assert [row.document for row in rows] == [f"{number:02}"], token
        assert len(store.search_lexical("c", TOKENS, limit=99)) == len(TOKENS)
        for part in ("2019다", "조", "60", "b", "so", "DROP"):
            assert store.search_lexical("c", [part], limit=9) == []
        assert store.check(deep=True).ok


def test_ascii_case_is_folded(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        put(store, "/a", "가", tokens=["Onnx-GPU"])
        assert len(store.search_lexical("c", ["oNNX-gpu"], limit=9)) == 1


@pytest.mark.parametrize("tokens", [[], [""], ["없는말"], ["", "없는말"]])
def test_nothing_is_found_by_unknown_words(tmp_path: Path, tokens: list[str]) -> None:
    with filled(tmp_path) as store:
        put(store, "/a", "가", tokens=["있는말"])
        assert store.search_lexical("c", tokens, limit=9) == []
        assert store.search_lexical("c", ["있는말"], limit=0) == []


def common_words(store: DocumentStore) -> None:
    for number in range(20):
        rare = ["드문"] if number in (3, 4) else []
        put(store, f"/{number:02}", "가", tokens=["흔한", *rare], metadata={"n": number})


def test_words_in_most_chunks_still_find_what_only_they_find(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        common_words(store)
        assert len(store.search_lexical("c", ["흔한"], limit=50)) == 20
        found = store.search_lexical("c", ["흔한", "드문"], limit=50)
        assert len(found) == 20
        best = store.chunks("c", [chunk for chunk, _ in found[:2]])
        assert {row.document for row in best} == {"03", "04"}


def test_a_filter_comes_before_the_ranking(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        common_words(store)
        found = store.search_lexical("c", ["흔한", "드문"], limit=3, filter={"n": {"gte": 10}})
        rows = store.chunks("c", [chunk for chunk, _ in found])
        assert [row.document for row in rows] == ["10", "11", "12"]
        assert store.search_lexical("c", ["흔한"], limit=3, filter={"n": 99}) == []


def test_a_long_query_keeps_its_rarest_words(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        frequent = [f"흔한{n}" for n in range(MAX_TERMS + 40)]
        for number in range(6):
            put(store, f"/{number}", "가", tokens=frequent if number < 4 else ["다른"])
        put(store, "/rare", "가", tokens=["드문말"])
        found = store.search_lexical("c", [*frequent, "드문말"] * 3, limit=9)
        rows = store.chunks("c", [chunk for chunk, _ in found])
        assert "rare" in {row.document for row in rows}
        assert len(found) == 5
