"""The fidelity gate: each form of a model against its reference form, on the same items.

Every form runs in a probe of its own, through the engine's batcher. Owns the items and how rows are
read back; the figures and the loss are ``models.fidelity``'s.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ondol.core.errors import BackendError
from ondol.core.types import FloatMatrix, OnStep
from ondol.lab.evaluate.datasets import FidelityMaterial, Retrieval
from ondol.lab.evaluate.fidelity import (
    EmbedderFidelity,
    Fidelity,
    RerankerFidelity,
    compare_embeddings,
    compare_scores,
    mean_error,
    pair_similarities,
    spearman,
    spearman_drop_error,
)
from ondol.lab.evaluate.statistics import ndcg
from ondol.lab.probe.operations import Subject, pair_items
from ondol.lab.probe.probe_child import Probe

TOKEN_BUDGET = 512
"""Small, so that measuring fidelity does not raise the peak memory that a probe reports."""

MATES = 24


@dataclass(frozen=True, slots=True)
class FormFidelity:
    """One form's figures, or the error that kept it from having any."""

    form: str
    fidelity: Fidelity | None = None
    error: str = ""

    def passes(self, max_loss: float) -> bool:
        """Whether the form has figures and they are within ``max_loss``."""
        return self.fidelity is not None and self.fidelity.passes(max_loss)

    def defaultable(self, default_max_loss: float) -> bool:
        """Whether the form may be chosen by itself: a small loss, and no say for batch mates."""
        return (
            self.fidelity is not None
            and self.fidelity.passes(default_max_loss)
            and self.fidelity.batch_invariant
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures with ``loss`` and, for rerankers, ``band``."""
        if self.fidelity is None:
            return {"form": self.form, "error": self.error}
        return {"form": self.form, **figures(self.fidelity)}


class FidelityItems:
    """The items of one subject as files in ``folder``, and the reading of what comes back."""

    def __init__(self, subject: Subject, material: FidelityMaterial, folder: Path) -> None:
        self._subject = subject
        self._material = material
        self._folder = folder
        self._reference: FloatMatrix | None = None
        items = _items(subject, material)
        self.count = len(items)
        self._items = _written(folder / "items.json", items)
        self._mates = _written(folder / "mates.json", _mixed(items))

    def set_reference(self, probe: Probe) -> None:
        """Run the reference form, which ``probe`` holds; later forms are compared with it."""
        self._reference = self._rows(probe)

    def measure(self, probe: Probe) -> Fidelity:
        """Return the figures of the form that ``probe`` holds. Raises ``ProbeFailed``."""
        if self._reference is None:
            raise BackendError("no reference was measured", hint="call set_reference first")
        rows = self._rows(probe)
        probe.ask("items", path=str(self._mates))
        mates = float(probe.ask("mates")["cosine"])
        found = compared(self._subject, self._material, self._reference, rows)
        return replace(found, batch_mates=mates)

    def _rows(self, probe: Probe) -> FloatMatrix:
        probe.ask("items", path=str(self._items))
        target = self._folder / "rows.npy"
        probe.ask("outputs", path=str(target), token_budget=TOKEN_BUDGET)
        rows: FloatMatrix = np.load(target)
        target.unlink()
        return rows


def evaluate(
    subject: Subject,
    forms: Sequence[str],
    material: FidelityMaterial,
    *,
    threads: int,
    told: OnStep | None = None,
) -> list[FormFidelity]:
    """Measure ``forms`` one after another; a form that fails yields its error, the others go on.

    Raises ``ProbeFailed`` when the reference form itself cannot run.
    """
    results = []
    with tempfile.TemporaryDirectory(prefix="ondol-fidelity-") as folder:
        items = FidelityItems(subject, material, Path(folder))
        _tell(told, 0, len(forms) + 1, subject.reference)
        with Probe() as probe:
            subject.load(probe, form=subject.reference, threads=threads)
            items.set_reference(probe)
        for done, form in enumerate(forms, start=1):
            _tell(told, done, len(forms) + 1, form)
            try:
                with Probe() as probe:
                    subject.load(probe, form=form, threads=threads)
                    results.append(FormFidelity(form, items.measure(probe)))
            except BackendError as error:
                results.append(FormFidelity(form, error=error.message))
    return results


def compared(
    subject: Subject, material: FidelityMaterial, reference: FloatMatrix, rows: FloatMatrix
) -> Fidelity:
    """Return the figures of ``rows`` against ``reference``, both in the order of the items."""
    if subject.role == "reranker":
        return _reranker(material, reference, rows)
    texts, pairs = len(material.texts), 2 * len(material.pairs)
    found = compare_embeddings(reference[:texts], rows[:texts])
    rated = slice(texts, texts + pairs)
    if material.pairs:
        scores = [pair.score for pair in material.pairs]
        before, after = pair_similarities(reference[rated]), pair_similarities(rows[rated])
        found = replace(
            found,
            sts_spearman=spearman(after, scores),
            sts_spearman_reference=spearman(before, scores),
            sts_drop_error=spearman_drop_error(before, after, scores),
        )
    if material.retrieval is not None:
        rest = slice(texts + pairs, None)
        found = replace(
            found,
            **_ndcg_figures(
                _retrieved(material.retrieval, reference[rest]),
                _retrieved(material.retrieval, rows[rest]),
            ),
        )
    return found


def figures(fidelity: Fidelity) -> dict[str, Any]:
    """Return the figures as JSON has them: the measured ones, the loss and what follows from it."""
    found = {
        **asdict(fidelity),
        "loss": fidelity.loss,
        "batch_invariant": fidelity.batch_invariant,
    }
    if isinstance(fidelity, RerankerFidelity):
        found["band"] = fidelity.band
    return found


def read_figures(role: str, data: dict[str, Any]) -> Fidelity:
    """Return the figures that ``figures`` wrote."""
    kind = RerankerFidelity if role == "reranker" else EmbedderFidelity
    names = set(kind.__slots__)
    return kind(**{name: value for name, value in data.items() if name in names})


def _items(subject: Subject, material: FidelityMaterial) -> list[str | list[str]]:
    if subject.role == "reranker":
        return [[pair.query, pair.document] for pair in pair_items(material.lists)]
    sentences = [text for pair in material.pairs for text in (pair.left, pair.right)]
    found = [*subject.text_items(material.texts), *subject.text_items(sentences, role="query")]
    if material.retrieval is not None:
        found += subject.text_items(material.retrieval.queries, role="query")
        found += subject.text_items(material.retrieval.documents)
    return list(found)


def _mixed(items: Sequence[Any]) -> list[Any]:
    """Return some items, the longest beside the shortest: the worst company there is."""
    ordered = sorted(items, key=lambda item: len(item if isinstance(item, str) else item[1]))
    step = max(1, len(ordered) // MATES)
    some = ordered[::step][:MATES]
    half = len(some) // 2
    mixed = [item for pair in zip(some[:half], reversed(some), strict=False) for item in pair]
    return mixed or some


def _reranker(
    material: FidelityMaterial, reference: FloatMatrix, rows: FloatMatrix
) -> RerankerFidelity:
    ends = np.cumsum([len(one.documents) for one in material.lists])[:-1]
    before, after = np.split(reference[:, 0], ends), np.split(rows[:, 0], ends)
    found = compare_scores(before, after)
    judged = [at for at, one in enumerate(material.lists) if any(one.gains)]
    if not judged:
        return found
    scores = [
        [ndcg(_order(side[at]), dict(enumerate(material.lists[at].gains))) for at in judged]
        for side in (before, after)
    ]
    return replace(found, **_ndcg_figures(*scores))


def _retrieved(retrieval: Retrieval, rows: FloatMatrix) -> list[float]:
    """Return nDCG@10 query by query, ranking all documents by cosine."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    queries, documents = unit[: len(retrieval.queries)], unit[len(retrieval.queries) :]
    return [
        ndcg(_order(documents @ query), judged)
        for query, judged in zip(queries, retrieval.gains, strict=True)
    ]


def _order(scores: FloatMatrix) -> list[int]:
    """Return the places of the scores, the highest first; ties in order."""
    order: list[int] = np.argsort(-scores.astype(np.float64), kind="stable").tolist()
    return order


def _ndcg_figures(reference: Sequence[float], measured: Sequence[float]) -> dict[str, Any]:
    before, after = np.asarray(reference), np.asarray(measured)
    return {
        "ndcg_at_10": float(after.mean()),
        "ndcg_at_10_reference": float(before.mean()),
        "ndcg_drop_error": mean_error(before - after),
    }


def _written(path: Path, items: Sequence[Any]) -> Path:
    path.write_text(json.dumps(items), "utf-8")
    return path


def _tell(told: OnStep | None, done: int, total: int, note: str) -> None:
    if told is not None:
        told(done, total, note)
