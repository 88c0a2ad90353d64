"""Models made here: known by their folder's entry, written whole, never in the way of shipped ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.lab.tuned_models import library_of, tiny_model

from ondol.core.errors import Conflict, InvalidInput, ModelError, NotFound
from ondol.kernels.bert import FloatArray, Q4Matrix, as_float
from ondol.lab.finetune.candidate import adopt, candidate_files, make_candidate
from ondol.lab.finetune.weights_file import tensor_names, with_learned, write_weights
from ondol.models.catalogue import catalogue
from ondol.models.library import ModelFiles
from ondol.models.loading import load_encoder
from ondol.models.manifest import read_weights
from ondol.models.own_models import check_new_id, making_of, own_entries, own_entry


def learned_of(files: ModelFiles) -> dict[str, FloatArray]:
    weights = read_weights(files.entry, files.folder)
    return {
        "l1.q.w": as_float(weights.matrix("l1.q.w")) + np.float32(0.25),
        "l1.aln.b": weights.vector("l1.aln.b") * 2,
    }


def test_a_model_made_here_is_known_listed_and_loaded(tmp_path: Path) -> None:
    files = tiny_model(tmp_path)
    library = library_of(tmp_path)
    assert library.entry("tiny") == files.entry
    assert "tiny" in library.entries()
    assert list(catalogue()) == [m for m in library.entries() if m != "tiny"]
    encoder = load_encoder(files, form="onnx:fp32", threads=1)
    encoder.close()
    assert library.state("tiny") == "ready"
    assert library.pull("tiny").entry == files.entry
    assert making_of(files.folder) == {"base": "nothing"}
    shutil.rmtree(files.folder)
    with pytest.raises(NotFound, match="no model 'tiny'"):
        library.entry("tiny")


def test_an_e5s1_base_stays_one_and_its_word_table_is_kept_to_the_bit(tmp_path: Path) -> None:
    files = tiny_model(tmp_path)
    weights, learned = read_weights(files.entry, files.folder), learned_of(files)
    target = tmp_path / "target"
    assert set(write_weights(files.entry, files.folder, weights, learned, target=target)) == {
        "weights"
    }
    again = read_weights(files.entry, target)
    words, before = again.matrix("emb.word"), weights.matrix("emb.word")
    assert isinstance(words, Q4Matrix)
    assert isinstance(before, Q4Matrix)
    assert np.array_equal(words.packed, before.packed)
    assert np.array_equal(as_float(again.matrix("l1.q.w")), learned["l1.q.w"])
    assert np.array_equal(again.vector("l1.aln.b"), learned["l1.aln.b"])
    assert np.array_equal(as_float(again.matrix("l0.fo.w")), as_float(weights.matrix("l0.fo.w")))


def test_a_model_that_gained_a_head_becomes_safetensors(tmp_path: Path) -> None:
    files = tiny_model(tmp_path)
    weights = read_weights(files.entry, files.folder)
    hidden = weights.shape.hidden
    head = {
        "head.d.w": np.eye(hidden, dtype=np.float32),
        "head.d.b": np.zeros(hidden, np.float32),
        "head.o.w": np.ones((1, hidden), np.float32),
        "head.o.b": np.zeros(1, np.float32),
    }
    target = tmp_path / "target"
    assert set(write_weights(files.entry, files.folder, weights, head, target=target)) == {
        "weights",
        "config",
    }
    from ondol.kernels.safetensors import read_safetensors

    again = read_safetensors(target / "model.safetensors", config=target / "config.json")
    tuned = with_learned(weights, head)
    assert again.shape == tuned.shape
    assert again.shape.classifier
    for name in tensor_names(tuned):
        read = again.matrix if name in head and name.endswith("w") else None
        if name.startswith("emb.") and not name.startswith("emb.ln"):
            read = again.matrix
        if read is None:
            continue
        tolerance = 2e-3 if name == "emb.word" else 0
        assert np.allclose(
            as_float(read(name)), as_float(tuned.matrix(name)), atol=tolerance, rtol=0
        )


@pytest.mark.parametrize(
    "value", [np.zeros((2, 2), np.float32), np.full((32, 32), np.nan, np.float32)]
)
def test_weights_that_make_no_sense_are_not_written(tmp_path: Path, value: FloatArray) -> None:
    files = tiny_model(tmp_path)
    weights = read_weights(files.entry, files.folder)
    with pytest.raises(ModelError, match="l1.q.w"):
        write_weights(
            files.entry, files.folder, weights, {"l1.q.w": value}, target=tmp_path / "target"
        )


def test_a_candidate_is_unknown_until_it_is_adopted(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "models")
    work = tmp_path / "work"
    entry = make_candidate(base, learned_of(base), name="own", root=work, digest="abc")
    assert entry.upstream.endswith("#abc")
    library = library_of(tmp_path / "models")
    with pytest.raises(NotFound):
        library.entry("own")
    load_encoder(candidate_files(entry, work), form="onnx:fp32", threads=1).close()
    adopt(entry, work / "own", root=tmp_path / "models", made={"seed": 3})
    assert library.state("own") == "ready"
    assert own_entry(tmp_path / "models", "own") == entry
    assert making_of(tmp_path / "models" / "own") == {"seed": 3}
    assert not (work / "own").exists()
    make_candidate(base, learned_of(base), name="own", root=work, digest="abc")
    with pytest.raises(Conflict, match="there is a model 'own' already"):
        adopt(entry, work / "own", root=tmp_path / "models", made={})
    assert making_of(tmp_path / "models" / "own") == {"seed": 3}


@pytest.mark.parametrize("name", ["", "../tiny", "A", "a/b", "x" * 65, ".x"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot name a model"):
        check_new_id(tmp_path, name)
    assert own_entry(tmp_path, name) is None


def test_a_shipped_model_cannot_be_replaced(tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        check_new_id(tmp_path, "all-minilm-l6-v2")
    tiny_model(tmp_path, "all-minilm-l6-v2")
    assert own_entries(tmp_path) == {}
    assert library_of(tmp_path).entry("all-minilm-l6-v2") == catalogue()["all-minilm-l6-v2"]


@pytest.mark.parametrize("text", ["{", "[]", '{"entry": {}}', '{"entry": {"nonsense": 1}}'])
def test_a_damaged_entry_is_named_and_hides_no_other(tmp_path: Path, text: str) -> None:
    tiny_model(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "entry.json").write_text(text, "utf-8")
    with pytest.raises(ModelError, match="broken/entry.json is damaged"):
        library_of(tmp_path).entry("broken")
    assert list(own_entries(tmp_path)) == ["tiny"]
