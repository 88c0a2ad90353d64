"""The gate over fake encoders: equal outputs pass, items map back to their figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ondol.core.errors import ProbeFailed
from ondol.core.types import ModelRole
from ondol.lab.evaluate.datasets import FidelityMaterial, JudgedList, RatedPair, Retrieval
from ondol.lab.evaluate.fidelity import EmbedderFidelity, RerankerFidelity
from ondol.lab.evaluate.form_fidelity import FormFidelity, compared, evaluate, figures, read_figures
from ondol.lab.probe.operations import Subject


def fake(role: ModelRole, model: str | None = None) -> Subject:
    return Subject(
        model=model or f"fake-{role}",
        role=role,
        models=Path("."),
        forms=("fake",),
        reference="fake",
        languages=("en",),
        query_prefix="query: ",
    )


EMBEDDING = FidelityMaterial(
    texts=("one text", "another"),
    pairs=(RatedPair("a b", "a c", 3.0), RatedPair("a b", "a b", 5.0)),
    retrieval=Retrieval(("red gate",), ("red gate opens", "blue"), ({0: 1.0},)),
)
RERANKING = FidelityMaterial(lists=(JudgedList("red gate", ("blue", "red gate opens"), (0, 1)),))


def test_an_embedder_against_itself() -> None:
    (found,) = evaluate(fake("embedder"), ["fake"], EMBEDDING, threads=1)
    assert isinstance(found.fidelity, EmbedderFidelity)
    assert found.fidelity.loss == pytest.approx(0.0, abs=1e-9)
    assert found.fidelity.texts == 2
    assert found.fidelity.sts_spearman == pytest.approx(1.0)
    assert found.fidelity.ndcg_at_10 == 1.0
    assert found.fidelity.batch_mates == pytest.approx(1.0)
    assert found.passes(0.0001)
    assert found.defaultable(0.0001)


def test_a_reranker_against_itself() -> None:
    told: list[tuple[int, int, str]] = []
    (found,) = evaluate(
        fake("reranker"),
        ["fake"],
        RERANKING,
        threads=1,
        told=lambda done, total, note: told.append((done, total, note)),
    )
    assert isinstance(found.fidelity, RerankerFidelity)
    assert found.as_json()["band"] == "kept"
    assert found.fidelity.ndcg_at_10 == found.fidelity.top1_agreement == 1.0
    assert told == [(0, 2, "fake"), (1, 2, "fake")]


def test_a_model_that_is_not_here_cannot_be_the_reference() -> None:
    with pytest.raises(ProbeFailed, match="no-such-model"):
        evaluate(fake("embedder", "no-such-model"), ["fake"], EMBEDDING, threads=1)


def test_a_form_without_figures_does_not_pass() -> None:
    assert not FormFidelity("x", error="it crashed").passes(1.0)
    assert FormFidelity("x", error="it crashed").as_json() == {"form": "x", "error": "it crashed"}


def test_each_kind_of_item_has_its_own_figure() -> None:
    """Texts, then pairs, then queries and documents: a fault in one part shows in its figure."""
    whole = np.eye(9, 16, dtype=np.float32) + np.float32(0.01)
    whole[4] = whole[2] + whole[3]  # the second pair is more alike than the first
    whole[5] = whole[4]
    whole[6] = whole[7]
    subject = fake("embedder")
    clean = compared(subject, EMBEDDING, whole, whole)
    assert isinstance(clean, EmbedderFidelity)
    assert clean.loss == pytest.approx(0.0, abs=1e-9)
    for row, figure in ((0, "cosine_mean"), (5, "sts_spearman"), (7, "ndcg_at_10")):
        harmed = whole.copy()
        harmed[row] = -harmed[row]
        found = compared(subject, EMBEDDING, whole, harmed)
        assert getattr(found, figure) < getattr(clean, figure)
        others = {"cosine_mean", "sts_spearman", "ndcg_at_10"} - {figure}
        assert all(getattr(found, other) == getattr(clean, other) for other in others)
        assert found.loss > 0.1


def test_figures_survive_json() -> None:
    one = EmbedderFidelity(texts=1, cosine_mean=0.9, cosine_p1=0.8, cosine_min=0.7, batch_mates=1.0)
    assert read_figures("embedder", figures(one)) == one
    other = RerankerFidelity(1, 0.9, 0.8, 0.7, 1.0)
    assert read_figures("reranker", figures(other)) == other
