"""Contestant in our environment: a form through the engine's batcher, or the service as served.

``form`` loads one form and feeds it through ``Batcher``, the path every request takes; ``served``
opens the container, so that form, threads and token budget are those that ``ondol tune`` left.
Items are texts (embedder, prefix already applied) or ``[query, document]`` (reranker).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from contestant import claim_stdout, memory, serve

Item = Any


class Way(Protocol):
    """One way through Ondol: all items at once, or one."""

    async def bulk(self, items: Sequence[Item]) -> Any: ...
    async def lone(self, item: Item) -> None: ...


class Engine:
    """One named form behind a ``Batcher`` of its own."""

    def __init__(self, *, model: str, form: str, threads: int, budget: int) -> None:
        from ondol.core.types import Pair
        from ondol.models.loading import load_encoder
        from ondol.runtime.encoders.batcher import Batcher, BatcherLimits

        self._pair = Pair
        encoder = load_encoder(model_files(model), form=form, threads=threads)
        self.form = encoder.spec.form
        self._batcher = Batcher(
            encoder, limits=BatcherLimits(token_budget=budget, queue_seconds=3600.0)
        )

    async def bulk(self, items: Sequence[Item]) -> Any:
        return _rows(await self._submit(items, urgent=False))

    async def lone(self, item: Item) -> None:
        _rows(await self._submit([item], urgent=True))

    async def _submit(self, items: Sequence[Item], *, urgent: bool) -> Sequence[Any]:
        raw = [item if isinstance(item, str) else self._pair(*item) for item in items]
        return (await self._batcher.submit(raw, truncate=True, urgent=urgent)).values


class Arrival:
    """One named form in batches of 32 in order of arrival: what the batcher is compared with."""

    def __init__(self, *, model: str, form: str, threads: int, batch: int = 32) -> None:
        from ondol.core.types import Pair
        from ondol.models.loading import load_encoder

        self._pair = Pair
        self._encoder = load_encoder(model_files(model), form=form, threads=threads)
        self.form = self._encoder.spec.form
        self._batch = batch

    async def bulk(self, items: Sequence[Item]) -> Any:
        rows: list[Any] = []
        for at in range(0, len(items), self._batch):
            rows.extend(self._run(items[at : at + self._batch]))
        return _rows(rows)

    async def lone(self, item: Item) -> None:
        self._run([item])

    def _run(self, items: Sequence[Item]) -> Any:
        raw = [item if isinstance(item, str) else self._pair(*item) for item in items]
        encoded: list[Any] = self._encoder.tokenize(raw, truncate=True)
        return self._encoder.run(encoded)


class Served:
    """The container's own service, with the settings and the profile of this home, no cache."""

    def __init__(self, container: Any, *, reranker: bool) -> None:
        self._container = container
        self._reranker = reranker
        slots = container.encoders["reranker" if reranker else "embedder"].slots
        self.form = " / ".join(f"{slot.purpose} {slot.form}" for slot in slots)

    async def bulk(self, items: Sequence[Item]) -> Any:
        import numpy as np

        if not self._reranker:
            result = await self._container.embedding.embed(
                items, role="document", truncate=True, lane="batch"
            )
            return result.vectors
        scores = np.zeros((len(items), 1), np.float32)
        queries: dict[str, list[int]] = {}
        for place, (query, _) in enumerate(items):
            queries.setdefault(query, []).append(place)
        for query, places in queries.items():
            ranked = await self._container.reranking.rerank(
                query, [items[place][1] for place in places], truncate=True
            )
            for found in ranked.results:
                scores[places[found.index]] = found.logit
        return scores

    async def lone(self, item: Item) -> None:
        if self._reranker:
            await self._container.reranking.rerank(item[0], [item[1]], truncate=True)
        else:
            await self._container.embedding.embed([item], role="query", truncate=True)


class Child:
    """Answers the parent's operations on one event loop that lives as long as the process."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._way: Way | None = None
        self._items: list[Item] = []
        self._rows: Any = None

    def load(
        self,
        *,
        model: str,
        form: str,
        threads: int,
        budget: int = 2048,
        reranker: bool = False,
        arrival: bool = False,
    ) -> Mapping[str, Any]:
        """Load ``form``, or for ``served`` whatever the settings choose."""
        started = time.perf_counter()
        way: Engine | Served | Arrival
        if form == "served":
            way = Served(
                self._runner.run(_opened(model, threads, reranker=reranker)), reranker=reranker
            )
        elif arrival:
            way = Arrival(model=model, form=form, threads=threads)
        else:
            way = Engine(model=model, form=form, threads=threads, budget=budget)
        self._way = way
        self._runner.run(way.lone(["warm", "up"] if reranker else "warm up"))
        return {"form": way.form, "seconds": time.perf_counter() - started, **memory(reset=True)}

    def texts(self, *, path: str) -> Mapping[str, Any]:
        self._items = json.loads(Path(path).read_text("utf-8"))
        return {"texts": len(self._items)}

    def bulk(self) -> Mapping[str, Any]:
        way = self._loaded()
        started = time.perf_counter()
        self._rows = self._runner.run(way.bulk(self._items))
        return {"seconds": time.perf_counter() - started}

    def lone(self) -> Mapping[str, Any]:
        return {"seconds": self._runner.run(self._one_by_one())}

    def save(self, *, path: str) -> Mapping[str, Any]:
        """Write the rows of the last ``bulk`` as float32."""
        import numpy as np

        np.save(path, np.asarray(self._rows, dtype=np.float32))
        return {}

    async def _one_by_one(self) -> list[float]:
        way = self._loaded()
        taken = []
        for item in self._items:
            started = time.perf_counter()
            await way.lone(item)
            taken.append(time.perf_counter() - started)
        return taken

    def _loaded(self) -> Way:
        if self._way is None:
            raise RuntimeError("nothing is loaded")
        return self._way


def model_files(model: str) -> Any:
    """Return the files of a pulled model of the default home."""
    from ondol.core.settings import load_settings
    from ondol.models.library import ModelLibrary

    return ModelLibrary(load_settings().home / "models", offline=True).files(model)


def forms_of(model: str) -> list[str]:
    """Return every form that ``model`` can run in here, the default first."""
    from ondol.models.loading import available_forms

    return list(available_forms(model_files(model).entry))


def uncached() -> dict[str, Any]:
    """Return the settings that turn the embedding cache off, so that repeats are computed anew."""
    return {"cache.embeddings": "off"}


async def _opened(model: str, threads: int, *, reranker: bool) -> Any:
    from ondol.app.components import Parts
    from ondol.app.container import Container
    from ondol.core.settings import load_settings

    flags = {
        "generation.model": "none",
        "models.threads": threads,
        ("models.reranker" if reranker else "models.embedder"): model,
        **uncached(),
    }
    container = Container.open(
        load_settings(flags=flags),
        parts=Parts(
            embedder=not reranker, reranker=reranker, keywords=False, generator=False, fake=False
        ),
    )
    await container.start()
    for name, state in container.readiness().components.items():
        if state.state == "failed":
            raise RuntimeError(f"{name}: {state.reason}")
    return container


def _rows(values: Sequence[Any]) -> Any:
    import numpy as np

    for value in values:
        if isinstance(value, Exception):
            raise value
    rows = np.stack(values)
    if rows.shape[1] > 1:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", metavar="MODEL", help="print the model's forms as JSON and end")
    options = parser.parse_args()
    if options.list:
        print(json.dumps(forms_of(options.list)))
        return
    answers = claim_stdout()
    with asyncio.Runner() as runner:
        child = Child(runner)
        serve(
            {
                "load": child.load,
                "texts": child.texts,
                "bulk": child.bulk,
                "lone": child.lone,
                "save": child.save,
                "memory": memory,
            },
            answers,
        )


if __name__ == "__main__":
    main()
