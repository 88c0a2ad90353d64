"""The light classifier: learns, is repeatable, keeps its file, and refuses what is not one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ondol.core.errors import InvalidInput, NotFound
from ondol.language.char_ngrams import hashed_grams
from ondol.tasks.classifier import Classifier, Head, load_classifier, logits
from ondol.tasks.classifier_training import Examples, fit, fold_of, scores_of, start_of, usable
from ondol.tasks.logistic import FitOptions

QUICK = FitOptions(bits=10, orders=(1, 2, 3), rounds=25)


def examples(count: int = 120) -> Examples:
    chance = np.random.default_rng(1)
    labels = ["good" if i % 3 else "bad" for i in range(count)]
    signs = np.array([1.0 if label == "good" else -1.0 for label in labels])
    vectors = chance.normal(size=(count, 6)).astype(np.float32)
    vectors[:, 0] += (1.5 * signs).astype(np.float32)
    words = {"good": ["맛있어요", "좋네요"], "bad": ["별로예요", "최악"]}
    texts = [f"{i} 번째 {words[label][i % 2]}" for i, label in enumerate(labels)]
    return Examples(texts, vectors, labels, [str(i // 4) for i in range(count)])


def made() -> Classifier:
    return fit(examples(), labels=("good", "bad"), embedder="e", options=QUICK, about="test")


def test_it_learns_and_probabilities_sum_to_one() -> None:
    classifier = made()
    given = examples()
    accuracy, macro = scores_of(classifier, given)
    assert accuracy > 0.95
    assert macro > 0.95
    chances = classifier.predict(given.texts, None)
    assert np.allclose(chances.sum(axis=1), 1.0)
    assert (chances.argmax(axis=1) == [0 if x == "good" else 1 for x in given.labels]).mean() > 0.95


def test_a_second_training_gives_the_same_weights() -> None:
    one, two = made(), made()
    assert np.array_equal(one.full.grams, two.full.grams)
    assert one.full.temperature == two.full.temperature


def test_a_file_keeps_what_was_learned(tmp_path: Path) -> None:
    classifier = made()
    classifier.save(tmp_path / "c" / "x.npz")
    read = load_classifier(tmp_path / "c" / "x.npz")
    given = examples()
    assert read.labels == ("good", "bad")
    assert read.about == "test"
    assert np.allclose(
        read.predict(given.texts, given.vectors),
        classifier.predict(given.texts, given.vectors),
        atol=2e-3,
    )
    assert read.fits("e", 6)
    assert not read.fits("e", 7)
    assert not read.fits("f", 6)


def others(count: int, *, seed: int, prefix: str) -> Examples:
    """Texts whose label is in a direction that a dozen of them hardly show."""
    chance = np.random.default_rng(seed)
    labels = ["good" if i % 2 else "bad" for i in range(count)]
    signs = np.array([1.0 if label == "good" else -1.0 for label in labels])
    vectors = chance.normal(size=(count, 24)).astype(np.float32)
    vectors += (0.4 * signs[:, None] * np.cos(np.arange(24))).astype(np.float32)
    texts = [f"{prefix}{i}" for i in range(count)]
    return Examples(texts, vectors, labels, texts)


def leaned(few: Examples, start: Classifier | None) -> Classifier:
    return fit(few, labels=("good", "bad"), embedder="e", options=QUICK, start=start)


def test_few_examples_lean_on_an_earlier_classifier(tmp_path: Path) -> None:
    many, few, unseen = (
        others(n, seed=s, prefix=p) for n, s, p in ((600, 3, "a"), (24, 4, "b"), (400, 5, "c"))
    )
    start = fit(many, labels=("bad", "good"), embedder="e", options=QUICK)
    alone, together = leaned(few, None), leaned(few, start)
    accuracy = scores_of(together, unseen)[0]
    assert accuracy > scores_of(alone, unseen)[0] + 0.03
    assert accuracy > 0.87
    confidence = together.predict(unseen.texts, unseen.vectors).max(axis=1).mean()
    assert abs(confidence - accuracy) < 0.1
    again = leaned(few, start)
    assert np.array_equal(again.full.dense, together.full.dense)
    together.save(tmp_path / "x.npz")
    read = load_classifier(tmp_path / "x.npz")
    assert np.array_equal(read.seen, together.seen)
    expected = together.predict(unseen.texts, unseen.vectors)
    assert np.allclose(read.predict(unseen.texts, unseen.vectors), expected, atol=2e-3)


def test_a_folded_start_says_what_its_columns_said() -> None:
    earlier, given = made(), examples()
    vectors = given.vectors + np.float32(0.7)
    grams = hashed_grams(given.texts, bits=earlier.bits, orders=earlier.orders)
    start = start_of(earlier, earlier.full, vectors, grams)
    mean, scale = vectors.mean(axis=0), 1.0 / vectors.std(axis=0)
    chance = np.random.default_rng(2)
    dense, tables, bias = (
        chance.normal(size=shape).astype(np.float32) for shape in ((8, 2), (2**10, 2), (2,))
    )
    head = Head(dense, tables, bias, 1.0)
    rows = (vectors - mean) * scale
    expected = logits(head, np.concatenate([rows, start.columns], axis=1), grams)
    found = logits(start.folded(head, mean, scale), rows, grams)
    assert np.allclose(found, expected, atol=1e-4)


def test_an_earlier_classifier_of_noise_is_left_aside() -> None:
    chance = np.random.default_rng(6)
    vectors = chance.normal(size=(200, 6)).astype(np.float32)
    texts = [f"noise {i}" for i in range(200)]
    labels = [("good", "bad")[int(i)] for i in chance.integers(0, 2, 200)]
    noise = fit(
        Examples(texts, vectors, labels, texts),
        labels=("good", "bad"),
        embedder="e",
        options=QUICK,
    )
    given = examples()
    assert np.array_equal(leaned(given, noise).full.dense, leaned(given, None).full.dense)


def test_nothing_leans_on_what_saw_the_examples() -> None:
    start = made()
    asked = {"labels": ("bad", "good"), "embedder": "e", "dimensions": 6, "texts": ["new"]}
    assert usable(start, **asked) is not None  # type: ignore[arg-type]
    unfit = (
        {"texts": examples().texts},
        {"texts": [*examples().texts[:20], *(f"new {i}" for i in range(100))]},
        {"labels": ("bad", "good", "mixed")},
        {"embedder": "f"},
        {"dimensions": 7},
    )
    for change in unfit:
        assert usable(start, **{**asked, **change}) is None  # type: ignore[arg-type]
    unknown = replace(start, seen=start.seen[:0])
    assert usable(unknown, **asked) is None  # type: ignore[arg-type]
    given = examples()
    assert np.array_equal(leaned(given, start).full.dense, leaned(given, None).full.dense)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_what_is_no_classifier_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidInput):
        load_classifier(path)
    with pytest.raises(NotFound):
        load_classifier(tmp_path / "none.npz")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", note=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InvalidInput):
        load_classifier(tmp_path / "x.npz")


def test_too_few_examples_and_unknown_labels_are_told() -> None:
    with pytest.raises(InvalidInput, match="0 examples of 'mixed'"):
        fit(examples(), labels=("good", "bad", "mixed"), embedder="e", options=QUICK)
    with pytest.raises(InvalidInput, match="'bad'"):
        fit(examples(), labels=("good",), embedder="e", options=QUICK)


def test_groups_keep_their_fold() -> None:
    assert [fold_of(name) for name in ("a", "b", "a")] == [fold_of("a"), fold_of("b"), fold_of("a")]
    assert {fold_of(str(i)) for i in range(100)} == {0, 1, 2, 3, 4}


def test_ngrams_do_not_depend_on_the_batch() -> None:
    texts = ["맛있어요", "", "ㅋㅋㅋㅋㅋ 좋아", "good"]
    together = hashed_grams(texts, bits=12)
    for place, text in enumerate(texts):
        alone = hashed_grams([text], bits=12)
        mine = together.features[together.rows == place]
        assert sorted(mine.tolist()) == sorted(alone.features.tolist())
        assert together.scale[place] == alone.scale[0]


def test_laughter_of_any_length_is_alike() -> None:
    short, long = hashed_grams(["ㅋㅋㅋ 굿"]), hashed_grams(["ㅋㅋㅋㅋㅋㅋㅋㅋ 굿"])
    assert sorted(short.features.tolist()) == sorted(long.features.tolist())
