"""Which forms a model has here, what stands in the way of others, and how their files are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tests.kernels.synthetic_weights import e5s1_bytes
from tests.models.test_model_library import encoder_library

from ondol.backends.openvino_encoder import BUCKETS, bucket
from ondol.core.errors import ModelError
from ondol.core.extras import install_command
from ondol.core.types import Encoded
from ondol.models.catalogue import CatalogueEntry, catalogue, entry
from ondol.models.form import parse_form
from ondol.models.forms import TorchForms, every_form, makers, missing_extra
from ondol.models.library import ModelFiles, ModelLibrary
from ondol.models.loading import available_forms, load_encoder, reference_form

ENCODERS = [model.id for model in catalogue().values() if model.role != "generator"]
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="openvino is not installed"
)


@pytest.fixture
def tiny(tmp_path: Path) -> ModelFiles:
    return encoder_library(tmp_path, e5s1_bytes()).pull("tiny")


@pytest.mark.parametrize("model", ENCODERS)
def test_every_encoder_has_its_default_first_and_its_reference(model: str) -> None:
    found = available_forms(entry(model))
    assert found[0] in entry(model).forms
    assert reference_form(entry(model)) in found
    assert len(set(found)) == len(found)
    assert set(found) <= set(every_form(entry(model)))


def test_every_form_in_the_catalogue_is_one_its_runtime_makes() -> None:
    for model in ENCODERS:
        made = {form for maker in makers().values() for form in maker.makes(entry(model))}
        assert set(entry(model).forms) <= made


def test_every_maker_stands_under_its_own_name() -> None:
    for runtime, maker in makers().items():
        assert maker.runtime == runtime
        for form in maker.makes(entry("multilingual-e5-small")):
            assert parse_form(form).runtime == runtime


def test_a_generator_keeps_the_forms_of_the_catalogue() -> None:
    generator = entry("smollm2-135m-instruct")
    assert available_forms(generator) == generator.forms
    assert reference_form(generator) == generator.forms[0]


def test_a_missing_library_names_its_extra_and_is_not_imported() -> None:
    lack = missing_extra("no_such_library", extra="fast")
    assert lack is not None
    assert lack.hint == install_command("fast")
    assert missing_extra("json", extra="fast") is None


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")
def test_a_form_whose_extra_is_missing_cannot_be_loaded(tiny: ModelFiles) -> None:
    with pytest.raises(ModelError, match="torch is not installed") as caught:
        load_encoder(tiny, form="torch:fp32", threads=1)
    assert caught.value.hint == install_command("torch")
    assert not any(form.startswith("torch:") for form in available_forms(tiny.entry))


def test_a_gpu_form_wants_a_driver(tmp_path: Path) -> None:
    lack = TorchForms(nvidia=tmp_path / "none").lacks(parse_form("torch:fp16@cuda"))
    assert lack is not None
    assert "torch" in lack.reason or "NVIDIA" in lack.reason


@pytest.mark.parametrize("form", ["abacus:int8", "onnx:int3", "onnx:fp32@cuda"])
def test_an_unknown_form_names_those_there_are(tiny: ModelFiles, form: str) -> None:
    with pytest.raises(ModelError, match="onnx:int8, onnx:fp32"):
        load_encoder(tiny, form=form, threads=1)


def test_what_is_no_form_at_all_is_said_to_be_none(tiny: ModelFiles) -> None:
    with pytest.raises(ModelError, match="not the name of a form"):
        load_encoder(tiny, form="fast please", threads=1)


def test_forms_of_an_older_maker_are_made_anew(tiny: ModelFiles) -> None:
    path = tiny.folder / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["forms"][0]["version"] = 0
    path.write_text(json.dumps(manifest), "utf-8")
    (tiny.folder / "model.int8.onnx").write_bytes(b"stale")
    load_encoder(tiny, form="onnx:int8", threads=1).close()
    assert json.loads(path.read_text("utf-8"))["forms"][0]["version"] == 1


@needs_openvino
@pytest.mark.parametrize("form", ["openvino:fp32", "openvino:int8-weights"])
def test_openvino_forms_are_made_recorded_and_agree(tiny: ModelFiles, form: str) -> None:
    rows = []
    for name in ("onnx:fp32", form):
        encoder = load_encoder(tiny, form=name, threads=1)
        items = encoder.tokenize(["w1 w2 w3", "w4"], truncate=False)
        rows.append(encoder.run([item for item in items if isinstance(item, Encoded)]))
        assert encoder.spec.form == name
        assert encoder.spec.fingerprint
        encoder.close()
    np.testing.assert_allclose(rows[0], rows[1], atol=0.1)
    manifest = json.loads((tiny.folder / "manifest.json").read_text("utf-8"))
    (built,) = [built for built in manifest["forms"] if built["form"] == form]
    files = [tiny.folder / built["name"], (tiny.folder / built["name"]).with_suffix(".bin")]
    assert built["bytes"] == sum(file.stat().st_size for file in files)
    assert not list(tiny.folder.glob("*.part*"))


@needs_openvino
def test_the_static_form_is_calibrated_when_it_is_made(tiny: ModelFiles) -> None:
    encoder = load_encoder(tiny, form="openvino:int8", threads=1)
    items = encoder.tokenize(["w1 w2 w3"], truncate=False)
    assert encoder.run([item for item in items if isinstance(item, Encoded)]).shape == (1, 32)
    encoder.close()


def test_a_model_whose_default_form_is_new_stays_ready(tmp_path: Path) -> None:
    library = encoder_library(tmp_path, e5s1_bytes())
    folder = library.pull("tiny").folder
    models = {"tiny": replace(entry_of(library), forms=("onnx:fp32", "onnx:int8"))}
    later = ModelLibrary(folder.parent, offline=True, models=models)
    assert later.state("tiny") == "ready"
    load_encoder(later.files("tiny"), threads=1).close()
    assert (folder / "model.fp32.onnx").is_file()


def entry_of(library: ModelLibrary) -> CatalogueEntry:
    return library.info("tiny").entry


@needs_openvino
def test_a_form_that_lost_a_file_is_made_again(tiny: ModelFiles) -> None:
    load_encoder(tiny, form="openvino:fp32", threads=1).close()
    (tiny.folder / "openvino-fp32.bin").unlink()
    load_encoder(tiny, form="openvino:fp32", threads=1).close()
    assert (tiny.folder / "openvino-fp32.bin").is_file()


@needs_openvino
def test_a_damaged_form_is_an_error_with_a_remedy(tiny: ModelFiles) -> None:
    load_encoder(tiny, form="openvino:fp32", threads=1).close()
    graph = tiny.folder / "openvino-fp32.xml"
    graph.write_bytes(b"x" * graph.stat().st_size)
    with pytest.raises(ModelError, match="could not be loaded") as caught:
        load_encoder(tiny, form="openvino:fp32", threads=1)
    assert "ondol models pull" in caught.value.hint


def test_lengths_are_padded_to_buckets_within_the_model_s_limit() -> None:
    assert [bucket(n, most=512) for n in (1, 8, 9, 33, 500, 512)] == [8, 8, 16, 48, 512, 512]
    assert bucket(250, most=250) == 250
    assert bucket(240, most=250) == 250
    assert bucket(700, most=8192) == 700
    assert list(BUCKETS) == sorted(BUCKETS)


def test_an_unknown_runtime_in_the_catalogue_is_told(tiny: ModelFiles) -> None:
    files = replace(tiny, entry=replace(tiny.entry, forms=("abacus:int8",)))
    with pytest.raises(ModelError, match="abacus"):
        load_encoder(files, threads=1)
