"""What every embedding cache must do, in memory, in SQLite and in a real Redis."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import redis
from tests.contract.redis_server import RedisServer

from ondol.core.clock import ManualClock
from ondol.core.errors import SettingsError
from ondol.runtime.embedding_cache.cache_memory import (
    CachedVector,
    EmbeddingCache,
    MemoryEmbeddingCache,
    frozen_vector,
    pack,
)
from ondol.runtime.embedding_cache.cache_redis import PAUSE_SECONDS, PREFIX, RedisEmbeddingCache
from ondol.runtime.embedding_cache.cache_sqlite import SqliteEmbeddingCache

Open = Callable[[], EmbeddingCache]
MIB = 2**20
EVERY = ["memory", "sqlite", "redis"]
DURABLE = ["sqlite", "redis"]


def key(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def vector(seed: int, *, dimensions: int = 384) -> CachedVector:
    rows = np.random.default_rng(seed).standard_normal(dimensions, dtype=np.float32)
    return frozen_vector(rows, seed % 512)


def same(one: CachedVector, other: CachedVector) -> bool:
    return one.row.tobytes() == other.row.tobytes() and one.tokens == other.tokens


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    started = RedisServer(tmp_path)
    yield started
    started.kill()


@pytest.fixture
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open the same cache as often as it is called; all are closed at the end."""
    kind: str = request.param
    url = request.getfixturevalue("server").url if kind == "redis" else ""
    opened: list[EmbeddingCache] = []

    def make() -> EmbeddingCache:
        cache: EmbeddingCache
        if kind == "memory":
            cache = MemoryEmbeddingCache(limit_bytes=8 * MIB)
        elif kind == "sqlite":
            cache = SqliteEmbeddingCache(tmp_path / "e.db", limit_bytes=8 * MIB, gather_seconds=0)
        else:
            cache = RedisEmbeddingCache(url, ttl_seconds=60, gather_seconds=0)
        opened.append(cache)
        return cache

    yield make
    for cache in opened:
        cache.close()


@pytest.mark.parametrize("opens", EVERY, indirect=True)
def test_what_was_put_comes_back_bit_for_bit(opens: Open) -> None:
    cache = opens()
    odd = np.array([0.0, -0.0, 1e-45, 3.4e38, -1.5, np.pi], dtype=np.float32)
    items = {key("odd"): frozen_vector(odd, 7), **{key(n): vector(n) for n in range(20)}}
    cache.put_many(items)
    found = cache.get_many([*items, key("never put")])
    assert set(found) == set(items)
    assert all(same(found[k], items[k]) for k in items)
    assert set(cache.likely(list(items))) == set(items)


@pytest.mark.parametrize("opens", DURABLE, indirect=True)
def test_it_is_still_there_when_opened_again(opens: Open) -> None:
    first = opens()
    items = {key(n): vector(n) for n in range(300)}
    first.put_many(items)
    first.close()
    second = opens()
    found = second.get_many(list(items))
    assert all(same(found[k], items[k]) for k in items)
    assert set(second.likely(list(items))) == set(items)
    assert second.stats().hits == 300


@pytest.mark.parametrize("opens", EVERY, indirect=True)
def test_the_last_put_wins(opens: Open) -> None:
    cache = opens()
    cache.put_many({key("a"): vector(1), key("b"): vector(2)})
    cache.put_many({key("a"): vector(3)})
    assert same(cache.get_many([key("a")])[key("a")], vector(3))
    cache.close()
    if not isinstance(cache, MemoryEmbeddingCache):
        again = opens()
        found = again.get_many([key("a"), key("b")])
        assert same(found[key("a")], vector(3))
        assert same(found[key("b")], vector(2))


@pytest.mark.parametrize("opens", EVERY, indirect=True)
def test_many_threads_at_once(opens: Open) -> None:
    cache = opens()
    wrong: list[int] = []

    def work(thread: int) -> None:
        for step in range(40):
            number = (thread * 7 + step) % 50
            cache.put_many({key(number): vector(number)})
            wanted = [key(n) for n in range(number, number + 5)]
            for n, k in zip(range(number, number + 5), wanted, strict=True):
                found = cache.get_many([k]).get(k)
                if found is not None and not same(found, vector(n)):
                    wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(cache.get_many([key(n) for n in range(50)])) == 50


@pytest.mark.parametrize("opens", EVERY, indirect=True)
def test_closing_twice_and_using_it_after_that_is_harmless(opens: Open) -> None:
    cache = opens()
    cache.put_many({key(1): vector(1)})
    cache.close()
    cache.close()
    cache.put_many({key(2): vector(2)})
    cache.likely([key(2)])
    cache.get_many([key(1), key(2)])
    cache.stats()


@pytest.mark.parametrize("opens", EVERY, indirect=True)
def test_hits_and_misses_are_counted(opens: Open) -> None:
    cache = opens()
    cache.put_many({key(1): vector(1)})
    cache.get_many([key(1), key(2), key(3)])
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.errors) == (1, 2, 0)
    assert stats.on


def test_a_kept_row_is_a_copy_that_cannot_be_written() -> None:
    batch = np.ones((64, 8), dtype=np.float32)
    kept = frozen_vector(batch[3], 5)
    batch[3] = 0
    assert kept.row.sum() == 8
    assert kept.row.base is None
    with pytest.raises(ValueError, match="read-only"):
        kept.row[0] = 2


# --- memory ---------------------------------------------------------------------------------


def test_memory_stays_within_its_bytes_and_loses_what_was_used_longest_ago() -> None:
    cache = MemoryEmbeddingCache(limit_bytes=100_000)
    for n in range(40):
        cache.put_many({key(n): vector(n)})
    for n in range(40, 80):
        cache.get_many([key(7)])
        cache.put_many({key(n): vector(n)})
        assert cache.stats().bytes <= 100_000
    stats = cache.stats()
    assert stats.entries + stats.evicted == 80
    assert set(cache.get_many([key(7), key(8), key(79)])) == {key(7), key(79)}


def test_memory_holds_nothing_larger_than_itself() -> None:
    cache = MemoryEmbeddingCache(limit_bytes=1000)
    cache.put_many({key(1): vector(1)})
    assert cache.stats().bytes == 0
    assert cache.get_many([key(1)]) == {}


# --- SQLite ---------------------------------------------------------------------------------


def sqlite_cache(path: Path, *, mib: float = 8) -> SqliteEmbeddingCache:
    return SqliteEmbeddingCache(path, limit_bytes=int(mib * MIB), gather_seconds=0)


def fill(path: Path, numbers: range, *, mib: float = 8) -> None:
    cache = sqlite_cache(path, mib=mib)
    cache.put_many({key(n): vector(n) for n in numbers})
    cache.close()
    assert cache.stats().dropped == 0


def test_the_file_stays_within_its_bytes_and_keeps_what_is_used(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    for first in range(0, 3000, 100):
        cache = sqlite_cache(path, mib=1)
        if first:
            assert cache.get_many([key(7)]), first
        cache.put_many({key(n): vector(n) for n in range(first, first + 100)})
        cache.close()
        assert cache.stats().bytes <= MIB
        assert path.stat().st_size <= MIB
    cache = sqlite_cache(path, mib=1)
    found = cache.get_many([key(n) for n in range(3000)])
    cache.close()
    assert len(found) > 400
    assert key(2999) in found
    assert key(8) not in found
    assert all(same(found[key(n)], vector(n)) for n in range(3000) if key(n) in found)
    assert cache.stats().entries == len(found)


def test_a_file_that_may_no_longer_be_as_large_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    fill(path, range(2000), mib=8)
    fill(path, range(2000, 2010), mib=1)
    assert path.stat().st_size <= MIB
    cache = sqlite_cache(path, mib=1)
    assert len(cache.get_many([key(n) for n in range(2000, 2010)])) == 10
    cache.close()


def test_a_key_that_is_not_there_is_known_without_the_file(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    fill(path, range(500))
    cache = sqlite_cache(path)
    cache.get_many([key(0)])
    cache.close()  # the writer has read the keys by now
    cache = sqlite_cache(path)
    cache.put_many({key("x"): vector(1)})
    while cache.stats().entries < 500:
        cache.get_many([key(0)])
    unknown = [key(f"unknown {n}") for n in range(2000)]
    assert len(cache.likely(unknown)) < 20
    assert len(cache.likely([key(n) for n in range(500)])) == 500
    cache.close()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_bytes(b"no database " * 1000), id="garbage"),
        pytest.param(
            lambda path: path.write_bytes(b"SQLite format 3\x00" + b"\x01" * 50), id="cut"
        ),
        pytest.param(lambda path: foreign(path), id="foreign"),
        pytest.param(lambda path: newer(path), id="newer"),
    ],
)
def test_a_file_that_cannot_be_used_turns_the_cache_off_and_is_left_alone(
    spoil: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "e.db"
    spoil(path)
    before = path.read_bytes()
    cache = sqlite_cache(path)
    cache.put_many({key(1): vector(1)})
    assert cache.likely([key(1)]) == ()
    assert cache.get_many([key(1)]) == {}
    cache.close()
    assert not cache.stats().on
    assert str(path) in caplog.text
    assert path.read_bytes() == before


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs(x)")


def newer(path: Path) -> None:
    fill(path, range(3))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def test_a_locked_file_turns_the_cache_off(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        cache = sqlite_cache(path)
        assert not cache.stats().on
        assert "locked" in cache.stats().reason
        cache.close()


def test_a_folder_that_cannot_be_made_turns_the_cache_off(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = sqlite_cache(tmp_path / "file" / "e.db")
    assert not cache.stats().on
    cache.close()


def test_a_file_damaged_in_the_middle_is_a_miss_never_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "e.db"
    fill(path, range(1000))
    data = bytearray(path.read_bytes())
    for place in range(3 * 8192, len(data), 8192):
        data[place : place + 600] = os.urandom(600)
    path.write_bytes(data)
    cache = sqlite_cache(path)
    found = cache.get_many([key(n) for n in range(1000)])
    cache.put_many({key("new"): vector(1)})
    cache.close()
    assert all(same(found[key(n)], vector(n)) for n in range(1000) if key(n) in found)
    assert cache.stats().errors > 0


def test_an_entry_with_a_flipped_bit_is_a_miss(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    fill(path, range(2))
    entry = bytearray(pack(key(0), vector(0)))
    entry[40] ^= 1
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE vectors SET entry = ? WHERE key = ?", (bytes(entry), key(0)))
    cache = sqlite_cache(path)
    assert set(cache.get_many([key(0), key(1)])) == {key(1)}
    assert cache.stats().errors == 1
    cache.close()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.contract.test_embedding_caches import key, sqlite_cache, vector
cache = sqlite_cache(Path(sys.argv[1]))
for n in range(100_000):
    cache.put_many({{key(n): vector(n)}})
    if n % 50 == 0:
        print(n, cache.stats().entries, flush=True)
"""


def test_a_killed_writer_leaves_a_file_that_reads(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "e.db"
    kept = 0
    # all it may have written: what its queue has no room for is dropped, and the count goes on
    numbers = {key(n): n for n in range(100_000)}
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER.format(root=str(root)), str(path)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if int(line.split()[1]) >= kept + 200:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        cache = sqlite_cache(path)
        found = cache.get_many(list(numbers))
        cache.close()
        assert all(same(entry, vector(numbers[name])) for name, entry in found.items())
        assert len(found) >= kept + 200
        assert cache.stats().errors == 0
        kept = len(found)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_two_openers_share_one_file(tmp_path: Path) -> None:
    one, two = sqlite_cache(tmp_path / "e.db"), sqlite_cache(tmp_path / "e.db")
    one.put_many({key(n): vector(n) for n in range(200)})
    two.put_many({key(n): vector(n) for n in range(200, 400)})
    one.close()
    two.close()
    again = sqlite_cache(tmp_path / "e.db")
    assert len(again.get_many([key(n) for n in range(400)])) == 400
    again.close()


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    fill(tmp_path / "home" / "e.db", range(3))
    assert (tmp_path / "home" / "e.db").stat().st_mode & 0o777 == 0o600


# --- Redis ----------------------------------------------------------------------------------


def redis_cache(server: RedisServer, clock: ManualClock | None = None) -> RedisEmbeddingCache:
    return RedisEmbeddingCache(server.url, ttl_seconds=60, clock=clock, gather_seconds=0)


def test_an_entry_in_redis_goes_when_its_time_is_up(server: RedisServer) -> None:
    cache = RedisEmbeddingCache(server.url, ttl_seconds=0.2, gather_seconds=0)
    cache.put_many({key(n): vector(n) for n in range(3)})
    cache.close()
    with closing(redis.Redis(port=server.port)) as client:
        left = client.pttl(PREFIX + key(0))
        assert isinstance(left, int)
        assert -2 <= left <= 200
        while client.dbsize():
            pass
    again = redis_cache(server)
    assert again.get_many([key(0)]) == {}
    again.close()


def test_bytes_in_redis_that_are_not_ours_are_a_miss(server: RedisServer) -> None:
    cache = redis_cache(server)
    with closing(redis.Redis(port=server.port)) as client:
        client.set(PREFIX + key(0), b"something else")
        client.set(PREFIX + key(1), pack(key(2), vector(2)))
    assert cache.get_many([key(0), key(1)]) == {}
    assert cache.stats().errors == 2
    cache.close()


def test_a_redis_that_dies_is_left_alone_for_a_while_and_found_again(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    cache = redis_cache(server, clock)
    cache.put_many({key(1): vector(1)})
    server.kill()
    assert cache.get_many([key(2)]) == {}
    errors = cache.stats().errors
    assert errors >= 1
    assert not cache.stats().on
    for _ in range(50):
        assert cache.likely([key(2)]) == ()
        assert cache.get_many([key(2)]) == {}
    cache.put_many({key(3): vector(3)})
    assert cache.stats().errors <= errors + 1
    server.start()
    clock.advance(PAUSE_SECONDS)
    assert cache.likely([key(2)])
    assert cache.get_many([key(2)]) == {}
    assert cache.stats().on
    cache.put_many({key(4): vector(4)})
    cache.close()
    again = redis_cache(server)
    assert set(again.get_many([key(4)])) == {key(4)}
    again.close()
    assert caplog.text.count("does not answer") == 1


def test_a_redis_that_hangs_costs_one_time_out(server: RedisServer) -> None:
    cache = redis_cache(server, ManualClock())
    assert cache.get_many([key(1)]) == {}
    server.freeze()
    assert cache.get_many([key(1)]) == {}
    assert cache.stats().errors == 1
    assert cache.likely([key(1)]) == ()
    assert cache.get_many([key(1)]) == {}
    assert cache.stats().errors == 1
    server.kill()
    cache.close()


def test_no_redis_at_all_is_no_error(tmp_path: Path) -> None:
    cache = RedisEmbeddingCache(f"unix://{tmp_path}/nobody", ttl_seconds=1, gather_seconds=0)
    assert cache.get_many([key(1)]) == {}
    cache.put_many({key(1): vector(1)})
    cache.close()
    assert cache.stats().errors >= 1


def test_the_password_of_a_redis_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    cache = RedisEmbeddingCache("redis://u:s3cret@127.0.0.1:1/0", ttl_seconds=1, gather_seconds=0)
    cache.get_many([key(1)])
    cache.close()
    assert "127.0.0.1:1" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_url_that_is_none_is_a_setting_to_mend() -> None:
    with pytest.raises(SettingsError, match="redis_url"):
        RedisEmbeddingCache("http://127.0.0.1", ttl_seconds=1)
