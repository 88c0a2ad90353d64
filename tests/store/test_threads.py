from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.store.builders import filled, put, units

VERSIONS = 40


def test_readers_see_whole_documents_while_a_writer_replaces_them(tmp_path: Path) -> None:
    """Each version of ``/a`` has one text, one word and one vector; no reader sees two mixed."""
    with filled(tmp_path) as store:
        put(store, "/a", "판 0", tokens=["판", "판0"], metadata={"part": 1})
        put(store, "/b", "다른 글", tokens=["다른"], seed=999)
        over = threading.Event()

        def write() -> None:
            try:
                for version in range(1, VERSIONS):
                    put(
                        store,
                        "/a",
                        f"판 {version}",
                        seed=version,
                        tokens=["판", f"판{version}"],
                        metadata={"part": 1},
                    )
            finally:
                over.set()

        def read(number: int) -> int:
            seen = 0
            while not over.is_set() or not seen:
                nearest = store.search_vectors(
                    "c", units(1, number)[0], limit=9, filter={"part": 1} if number % 2 else None
                )
                # One chunk of each version, never none and never two.
                assert len(nearest) == (1 if number % 2 else 2)
                words = store.search_lexical("c", ["판"], limit=9)
                assert len(words) == 1
                for row in store.chunks("c", [words[0][0]]):
                    assert row.text == f"판 {row.text.removeprefix('판 ')}"
                document = store.document("c", "a")
                assert document.chunks == 1
                seen += 1
            return seen

        with ThreadPoolExecutor(5) as pool:
            readers = [pool.submit(read, number) for number in range(4)]
            pool.submit(write).result()
            assert all(reader.result() for reader in readers)
        assert store.document("c", "a").text == f"판 {VERSIONS - 1}"
        assert store.check(deep=True).ok


def test_many_writers_in_one_process_take_turns(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        with ThreadPoolExecutor(8) as pool:
            sources = [f"/{number % 10}" for number in range(60)]
            outcomes = list(pool.map(lambda source: put(store, source), sources))
        assert outcomes.count("added") == 10
        assert store.collection("c").documents == 10
        assert store.check(deep=True).ok


def test_closing_while_others_read_ends_them_with_an_error_or_an_answer(tmp_path: Path) -> None:
    from ondol.core.errors import StoreError

    store = filled(tmp_path)
    put(store, "/a")

    def read() -> str:
        while True:
            try:
                store.search_vectors("c", units(1)[0], limit=1)
                store.document("c", "a")
            except StoreError as error:
                return error.code

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        store.close()
        assert {reader.result() for reader in readers} == {"store_closed"}
