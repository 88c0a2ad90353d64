"""The light classifier: learns, is repeatable, keeps its file, and refuses what is not one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ondol.core.errors import InvalidInput, NotFound
from ondol.services.tasks.classifier import Classifier, load_classifier
from ondol.services.tasks.classifier_fit import Examples, FitOptions, fit, fold_of
from ondol.services.tasks.lbfgs import minimised
from ondol.services.tasks.training import scores_of
from ondol.text.char_ngrams import hashed_grams

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


def test_the_minimum_of_a_parabola_is_found() -> None:
    target = np.array([3.0, -2.0, 0.5])
    scales = np.array([1.0, 20.0, 400.0])

    def bowl(place: np.ndarray) -> tuple[float, np.ndarray]:
        away = place - target
        return float((scales * away * away).sum()), 2 * scales * away

    assert np.allclose(minimised(bowl, np.zeros(3), tolerance=1e-14), target, atol=1e-4)


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
