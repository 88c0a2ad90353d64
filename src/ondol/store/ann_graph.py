"""An HNSW graph over int8 copies of vectors: it proposes candidates, the matrix decides.

Knows ids, rows and their hashes; no collection, no database, no deletion. A row is added once. Searching and adding take turns, searching first: the library shares its scratch space
among callers, and rows added by several threads at once may become unreachable
(https://github.com/unum-cloud/USearch/pull/772). Needs the extra ``ann`` (usearch, Apache-2.0).
Source: Malkov & Yashunin 2016, https://arxiv.org/abs/1603.09320
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import SettingsError
from ondol.core.extras import install_command
from ondol.core.process import load_onnx_runtime_first
from ondol.store.ann_file import GraphFile
from ondol.store.matrix import Ids, Rows
from ondol.store.vector_search import Hashes, row_hashes

load_onnx_runtime_first()
try:
    import usearch
    from usearch.index import Index
except ImportError as error:
    raise SettingsError(
        "approximate vector search needs usearch, which is not installed",
        hint=f"{install_command('ann')}, or search exactly",
        param="vectors.index",
    ) from error

LIBRARY = f"usearch {usearch.__version__}"
SLICE = 8  # rows added in one turn, some milliseconds: what a search may have to wait
_CONNECTIVITY = 32  # 16 loses one in nine on queries far from every text (ADR 0029)
_EXPANSION_ADD = 128
_EXPANSION_SEARCH = 64
_SIGMAS = 4.0  # int8 covers four standard deviations of a unit vector's values, the rest is cut
_OWN = 8  # how near a row must come to itself
_EQUAL = 1e-6
_PATIENCE = 0.5  # seconds that adding lets searches go first, in a row


class Graph:
    """An empty graph for vectors of ``dimensions``, or the one of a file that was loaded."""

    def __init__(self, dimensions: int, *, file: GraphFile | None = None) -> None:
        self.dimensions = dimensions
        self._scale = 127.0 * np.sqrt(dimensions) / _SIGMAS
        self._index = Index(
            ndim=dimensions,
            metric="cos",
            dtype="i8",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )
        self._turn = threading.Condition()
        self._door = threading.Lock()
        self._searching = 0
        self._ids: list[Ids] = []
        self._hashes: list[Hashes] = []
        self._strays: Ids = np.empty(0, np.int64)
        self._count = 0
        self._last = 0
        if file is not None:
            self._index.load(file.graph)
            self._note(file.ids, file.hashes)
            self._strays = file.strays
        self.unsaved = 0
        """Rows added since the graph was on disk."""

    def __len__(self) -> int:
        """How many rows were ever added; those deleted since are among them."""
        return self._count

    @property
    def last(self) -> int:
        """The highest id in it: higher ones are not."""
        return self._last

    @property
    def memory_bytes(self) -> int:
        """Bytes held for vectors, links, ids and hashes."""
        return int(self._index.memory_usage) + 16 * self._count

    def add(
        self, blocks: Iterable[tuple[Ids, Rows]], *, stopped: Callable[[], bool] = lambda: False
    ) -> bool:
        """Add rows (n, d) under ids (n,), ascending and above ``last``; searches go between.

        In random order: added topic by topic, as documents come, a graph loses its way into some of
        them (ADR 0029). Returns ``False`` where ``stopped`` said so; the graph is then to be
        thrown away.
        """
        prepared = [(ids, row_hashes(ids, rows), self._coded(rows)) for ids, rows in blocks]
        if not prepared:
            return True
        ids, hashes, coded = (np.concatenate(parts) for parts in zip(*prepared, strict=True))
        order = np.random.default_rng(0).permutation(len(ids))
        keys = ids.astype(np.uint64)
        for part in _slices(order):
            if stopped():
                return False
            with self._adding_turn():
                self._index.add(keys[part], coded[part], threads=1)
        strays = []
        for part in _slices(np.arange(len(ids))):
            if stopped():
                return False
            with self._adding_turn():
                strays.append(self._unreached(ids[part], coded[part]))
        with self._turn:
            self._strays = np.union1d(self._strays, np.concatenate(strays))
            self._note(ids, hashes)
            self.unsaved += len(ids)
        return True

    def candidates(self, query: NDArray[np.float32], count: int) -> Ids:
        """Return ids likely to be the ``count`` nearest to ``query`` (d,), ascending.

        Those that the graph cannot find are among them every time.
        """
        length = float(np.linalg.norm(query))
        coded = self._coded(query / length)
        with self._search_turn():
            if not self._count:
                return np.empty(0, np.int64)
            found = self._index.search(coded, min(count, self._count), threads=1)
            strays = self._strays
        return np.union1d(np.asarray(found.keys).astype(np.int64), strays)

    def covered(self) -> tuple[Ids, Hashes]:
        """Return the ids (n,) ascending of all rows added, and their hashes (n,)."""
        with self._search_turn():
            self._ids = [np.concatenate(self._ids)] if self._ids else []
            self._hashes = [np.concatenate(self._hashes)] if self._hashes else []
            if not self._ids:
                return np.empty(0, np.int64), np.empty(0, np.uint64)
            return self._ids[0], self._hashes[0]

    def file(self) -> GraphFile:
        """Return all of it as it is written to disk. Rows must not be added meanwhile."""
        ids, hashes = self.covered()
        with self._search_turn():
            graph = self._index.save() or b""
        return GraphFile(
            library=LIBRARY,
            dimensions=self.dimensions,
            ids=ids,
            hashes=hashes,
            strays=self._strays,
            graph=graph,
        )

    @contextmanager
    def _search_turn(self) -> Iterator[None]:
        with self._door:
            self._searching += 1  # seen by ``add`` between its slices
        with self._turn:
            try:
                yield
            finally:
                with self._door:
                    self._searching -= 1
                self._turn.notify_all()

    @contextmanager
    def _adding_turn(self) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: not self._searching, _PATIENCE)
            yield

    def _unreached(self, ids: Ids, coded: NDArray[np.int8]) -> Ids:
        """Return those ids that a search for their own row does not find."""
        found = self._index.search(coded, min(_OWN, len(self._index)), threads=1)
        keys = np.asarray(found.keys).reshape(len(ids), -1).astype(np.int64)
        distances = np.asarray(found.distances).reshape(len(ids), -1)
        # Where all that was found is equal to the row, being one of many equals is no fault.
        reached = (keys == ids[:, None]).any(axis=1) | (distances[:, -1] <= _EQUAL)
        strays: Ids = ids[~reached]
        return strays

    def _note(self, ids: Ids, hashes: Hashes) -> None:
        self._ids.append(ids)
        self._hashes.append(hashes)
        self._count += len(ids)
        self._last = max(self._last, int(ids[-1])) if len(ids) else self._last

    def _coded(self, vectors: NDArray[Any]) -> NDArray[np.int8]:
        scaled = np.rint(vectors.astype(np.float32) * np.float32(self._scale))
        coded: NDArray[np.int8] = np.clip(scaled, -127, 127).astype(np.int8)
        return coded


def _slices(places: Ids) -> Iterator[Ids]:
    for start in range(0, len(places), SLICE):
        yield places[start : start + SLICE]
