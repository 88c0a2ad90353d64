"""What a probe can be asked: load a form, run texts in bulk or one at a time, save the outputs.

Bulk and lone runs go through the engine's own ``Batcher``, so that what is measured is what serves.
Items are texts (embedder) or ``[query, document]`` (reranker), read from a JSON file. Times are in
seconds, memory in bytes; each answer can be written as JSON.

A model as probes are pointed at it: which one, where its files lie, which forms it offers.

Loads the encoder a probe was asked for; ``fake-embedder`` and ``fake-reranker`` need no weights.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondol.backends.fake_encoder import FakeEmbedder, FakeReranker
from ondol.backends.protocols import EncoderBackend, EncoderSpec
from ondol.core.errors import InvalidInput
from ondol.core.types import Encoded, ModelRole, Pair, TextRole
from ondol.lab.evaluate.datasets import JudgedList
from ondol.lab.probe.feeding import (
    SLICE,
    Counts,
    Item,
    batching,
    feed,
    limits_of,
    raise_first,
    tokenized,
)
from ondol.lab.probe.probe_child import DEFAULT_SECONDS, Probe, peak_bytes, steady_bytes
from ondol.models.agreement import cosines
from ondol.models.convert import has_form
from ondol.models.library import ModelFiles, ModelLibrary
from ondol.models.loading import available_forms, load_encoder, reference_form
from ondol.models.manifest import read_manifest


def load(
    *, model: str, form: str, threads: int, models: str, sources: Sequence[str] = ()
) -> EncoderBackend:
    """Load ``form`` of ``model`` from the folder ``models``; raises ``ModelError`` or ``NotFound``."""
    if model == "fake-embedder":
        return FakeEmbedder()
    if model == "fake-reranker":
        return FakeReranker()
    library = ModelLibrary(
        Path(models), offline=True, extra_sources=[Path(source) for source in sources]
    )
    return load_encoder(library.files(model), form=form, threads=threads)


PLAIN_BATCH = 32
"""Batch size of the plain loop that others are compared with."""


class Operations:
    """Holds the encoders (one a stream) and the items that runs use."""

    def __init__(self) -> None:
        self._encoders: list[EncoderBackend] = []
        self._items: list[Item] = []

    async def perform(self, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run the operation ``name``; raises what the encoder raises."""
        if name == "load":
            return self._load(**request)
        if name == "items":
            return self._take(**request)
        if name == "bulk":
            return await self._bulk(**request)
        if name == "lone":
            return await self._lone(**request)
        if name == "outputs":
            return await self._outputs(**request)
        if name == "mates":
            return self._mates(**request)
        if name == "plain":
            return self._plain()
        raise InvalidInput(f"a probe cannot {name!r}", hint="see ondol.lab.probe.operations")

    @property
    def _encoder(self) -> EncoderBackend:
        if not self._encoders:
            raise InvalidInput("no encoder is loaded", hint="send load first")
        return self._encoders[0]

    def _load(self, *, streams: int = 1, **wanted: Any) -> Mapping[str, Any]:
        started = time.perf_counter()
        self._encoders = [load(**wanted) for _ in range(streams)]
        seconds = time.perf_counter() - started
        for encoder in self._encoders:
            encoder.run(tokenized(encoder, _warm_up(encoder.spec)))
        return {
            "load_seconds": seconds,
            "spec": _described(self._encoder.spec),
            "steady_bytes": steady_bytes(),
            "peak_bytes": peak_bytes(),  # last: taking the other may take memory itself
        }

    def _take(
        self, *, path: str | None = None, count: int = 0, tokens: int = 0
    ) -> Mapping[str, Any]:
        """Read items from ``path``, or make ``count`` inputs of exactly ``tokens`` tokens."""
        if path is None:
            self._items = _made(self._encoder.spec, count=count, tokens=tokens)
        else:
            self._items = _read(Path(path))
        return {"items": len(self._items)}

    async def _bulk(
        self, *, token_budget: int, max_batch: int, policy: str = "nearest"
    ) -> Mapping[str, Any]:
        counts = Counts()
        started = time.perf_counter()
        shares = [self._items[n :: len(self._encoders)] for n in range(len(self._encoders))]
        await asyncio.gather(
            *(
                feed(encoder, share, counts, policy, limits_of(token_budget, max_batch))
                for encoder, share in zip(self._encoders, shares, strict=True)
            )
        )
        return {
            "seconds": time.perf_counter() - started,
            "texts": len(self._items),
            "tokens": counts.tokens,
            "batches": counts.batches,
            "padded_tokens": counts.padded,
            "failed": counts.failed,
            "steady_bytes": steady_bytes(),
            "peak_bytes": peak_bytes(),  # last: taking the other may take memory itself
        }

    async def _lone(
        self, *, token_budget: int, groups: Sequence[int] | None = None
    ) -> Mapping[str, Any]:
        """Submit one item (or the next of ``groups`` many) at a time, each when the last is back."""
        seconds = []
        start = 0
        async with batching(self._encoder, limits_of(token_budget, 64), Counts()) as batcher:
            for size in groups or [1] * len(self._items):
                request = self._items[start : start + size]
                start += size
                before = time.perf_counter()
                result = await batcher.submit(request, truncate=True)
                seconds.append(time.perf_counter() - before)
                raise_first(result.values)
        return {"seconds": seconds}

    async def _outputs(self, *, path: str, token_budget: int) -> Mapping[str, Any]:
        """Save the raw outputs of all items as float32 ``(items, dimensions)`` at ``path``."""
        async with batching(self._encoder, limits_of(token_budget, 64), Counts()) as batcher:
            rows: list[Any] = []
            for start in range(0, len(self._items), SLICE):
                part = self._items[start : start + SLICE]
                result = await batcher.submit(part, truncate=True, urgent=False)
                raise_first(result.values)
                rows += result.values
        np.save(path, np.stack(rows).astype(np.float32))
        return {"items": len(rows)}

    def _mates(self, *, batch: int = 8) -> Mapping[str, Any]:
        """Return the least cosine of an item alone to itself among ``batch`` - 1 others.

        A reranker's scores are compared as one vector: a single score has no direction.
        """
        encoded = tokenized(self._encoder, self._items)
        alone = np.concatenate([self._encoder.run([item]) for item in encoded])
        groups = [encoded[at : at + batch] for at in range(0, len(encoded), batch)]
        among = np.concatenate([self._encoder.run(group) for group in groups])
        if self._encoder.spec.role == "reranker":
            alone, among = alone.reshape(1, -1), among.reshape(1, -1)
        return {"cosine": float(cosines(alone, among).min())}

    def _plain(self) -> Mapping[str, Any]:
        """Run the items as a plain loop does: as they came, padded, ``PLAIN_BATCH`` at a time."""
        tokens = 0
        started = time.perf_counter()
        for at in range(0, len(self._items), PLAIN_BATCH):
            encoded = tokenized(self._encoder, self._items[at : at + PLAIN_BATCH])
            self._encoder.run(encoded)
            tokens += sum(item.tokens for item in encoded)
        return {
            "seconds": time.perf_counter() - started,
            "texts": len(self._items),
            "tokens": tokens,
            "peak_bytes": peak_bytes(),
        }


def _warm_up(spec: EncoderSpec) -> list[Item]:
    if spec.role == "reranker":
        return [Pair("온돌 warm-up", "a warm floor")]
    return ["온돌 warm-up"]


def _read(path: Path) -> list[Item]:
    return [
        Pair(str(item[0]), str(item[1])) if isinstance(item, list) else str(item)
        for item in json.loads(path.read_text("utf-8"))
    ]


def _made(spec: EncoderSpec, *, count: int, tokens: int) -> list[Item]:
    """Return inputs of exactly ``tokens`` random ids (seeded); their meaning does not matter."""
    if not 0 < tokens <= spec.max_tokens:
        raise InvalidInput(
            f"{spec.model} takes 1 to {spec.max_tokens} tokens, not {tokens}",
            hint="ask for shorter inputs",
        )
    random = np.random.default_rng(128)
    ids = random.integers(1, max(2, spec.vocabulary), size=(count, tokens))
    return [Encoded(ids=row.tolist(), type_ids=[0] * tokens) for row in ids]


def _described(spec: EncoderSpec) -> Mapping[str, Any]:
    return {
        "model": spec.model,
        "form": spec.form,
        "role": spec.role,
        "dimensions": spec.dimensions,
        "max_tokens": spec.max_tokens,
        "device": spec.device,
        "vocabulary": spec.vocabulary,
        "fingerprint": spec.fingerprint,
        "batch_invariant": spec.batch_invariant,
    }


@dataclass(frozen=True, slots=True)
class Subject:
    """A model under measurement.

    ``forms`` are what it can run as, its own default first; ``reference`` is what others are compared
    with.
    """

    model: str
    role: ModelRole
    models: Path
    forms: tuple[str, ...]
    reference: str
    languages: tuple[str, ...]
    query_prefix: str = ""
    document_prefix: str = ""

    @classmethod
    def of(cls, files: ModelFiles) -> Subject:
        """Return the subject of a model that is ready."""
        entry = files.entry
        return cls(
            model=entry.id,
            role=entry.role,
            models=files.folder.parent,
            forms=available_forms(entry),
            reference=reference_form(entry),
            languages=entry.languages,
            query_prefix=entry.query_prefix,
            document_prefix=entry.document_prefix,
        )

    def load(
        self,
        probe: Probe,
        *,
        form: str,
        threads: int,
        streams: int = 1,
        seconds: float = DEFAULT_SECONDS,
    ) -> dict[str, Any]:
        """Make ``probe`` load ``form``; returns what it says of it. Raises ``ProbeFailed``."""
        return probe.ask(
            "load",
            seconds=seconds,
            model=self.model,
            form=form,
            threads=threads,
            streams=streams,
            models=str(self.models),
        )

    def text_items(self, texts: Sequence[str], *, role: TextRole = "document") -> list[str]:
        """Return ``texts`` with the prefix of ``role``."""
        prefix = self.query_prefix if role == "query" else self.document_prefix
        return [f"{prefix}{text}" for text in texts]


def pair_items(lists: Sequence[JudgedList]) -> list[Pair]:
    """Return every (query, passage) of ``lists`` in order."""
    return [Pair(one.query, passage) for one in lists for passage in one.documents]


def is_made(files: ModelFiles, form: str) -> bool:
    """Whether loading ``form`` finds its files ready; making them would count as its memory."""
    manifest = read_manifest(files.folder)
    return manifest is not None and has_form(files.entry, files.folder, manifest, form=form)
