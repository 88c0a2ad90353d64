"""A tiny model of the library as a source: what is chosen, what the profile says, what damage does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.kernels.synthetic_weights import e5s1_bytes
from tests.models.test_model_library import encoder_library

from ondol.core.errors import InvalidInput, ModelError
from ondol.core.events import NullObserver
from ondol.core.machine import Machine
from ondol.core.settings.sections import ModelSettings
from ondol.models.library import ModelLibrary
from ondol.models.profile import Chosen, ModelProfile, Profile, key_of, write_profile
from ondol.runtime.encoders.catalogue_encoder import CatalogueEncoder
from ondol.runtime.encoders.encoder_plan import load_exactly, load_or_fall_back

MACHINE = Machine(cores=3, memory_bytes=8_000_000_000, free_bytes=4_000_000_000, cpu="test")
EVIDENCE = {"form": "onnx:fp32", "fidelity": {"cosine_mean": 1.0, "note": "exact"}}


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    made = encoder_library(tmp_path, e5s1_bytes())
    made.pull("tiny")
    return made


def source(
    library: ModelLibrary, home: Path, *, wanted: str = "auto", **settings: object
) -> CatalogueEncoder:
    return CatalogueEncoder(
        "tiny",
        role="embedder",
        wanted=wanted,
        settings=ModelSettings.model_validate(settings),
        library=library,
        machine=MACHINE,
        home=home,
    )


def tuned(library: ModelLibrary, home: Path, *, cpu: str = "test") -> None:
    key = replace(key_of(library.files("tiny"), machine=MACHINE), cpu=cpu)
    chosen = {
        "query": Chosen(form="onnx:fp32", threads=1, token_budget=256),
        "bulk": Chosen(form="onnx:int8", threads=2, token_budget=4096),
    }
    model = ModelProfile("tiny", key, "2026-01-01", chosen, evidence=(EVIDENCE,))  # type: ignore[arg-type]
    write_profile(home, Profile().with_model(model))


def test_the_profile_gives_each_purpose_its_form(library: ModelLibrary, tmp_path: Path) -> None:
    tuned(library, tmp_path)
    plan = source(library, tmp_path).plan()
    assert (plan.query.form, plan.query.threads, plan.query.token_budget) == ("onnx:fp32", 1, 256)
    assert plan.bulk is not None
    assert (plan.bulk.form, plan.bulk.threads, plan.bulk.token_budget) == ("onnx:int8", 2, 4096)
    assert source(library, tmp_path).fidelity("onnx:fp32") == {"cosine_mean": 1.0}
    assert source(library, tmp_path).fidelity("onnx:int8") == {}


def test_settings_that_were_said_beat_the_profile(library: ModelLibrary, tmp_path: Path) -> None:
    tuned(library, tmp_path)
    said = source(library, tmp_path, threads=7, token_budget=99).plan()
    assert (said.query.form, said.query.threads, said.query.token_budget) == ("onnx:fp32", 7, 99)
    named = source(library, tmp_path, wanted="onnx:int8").plan()
    assert (named.query.form, named.bulk) == ("onnx:int8", None)
    asked = source(library, tmp_path).plan(form="onnx:int8")
    assert (asked.query.form, asked.query.reason) == ("onnx:int8", "named in the reload request")
    off = source(library, tmp_path, optimize="off").plan()
    assert (off.query.form, off.bulk) == ("onnx:fp32", None)


def test_a_profile_of_another_machine_does_not_count(library: ModelLibrary, tmp_path: Path) -> None:
    tuned(library, tmp_path, cpu="another")
    plan = source(library, tmp_path).plan()
    assert (plan.query.form, plan.query.threads) == ("onnx:int8", 3)
    assert "not tuned" in plan.query.reason
    assert source(library, tmp_path).fidelity("onnx:fp32") == {}


def test_a_damaged_form_gives_way_to_the_reference(library: ModelLibrary, tmp_path: Path) -> None:
    found = source(library, tmp_path)
    plan = found.plan()
    good = load_or_fall_back(found, plan.query, plan=plan, observer=NullObserver())
    assert (good.encoder.spec.form, good.fallback) == ("onnx:int8", "")
    good.encoder.close()
    built = library.files("tiny").model_path
    built.write_bytes(b"\0" * built.stat().st_size)
    with pytest.raises(ModelError):
        load_exactly(found, plan.query)
    loaded = load_or_fall_back(found, plan.query, plan=plan, observer=NullObserver())
    assert loaded.encoder.spec.form == "onnx:fp32"
    assert loaded.fallback.startswith("onnx:int8 failed")
    assert loaded.weight_bytes > built.stat().st_size
    loaded.encoder.close()


def test_a_model_of_another_role_is_refused(library: ModelLibrary, tmp_path: Path) -> None:
    wrong = CatalogueEncoder(
        "tiny",
        role="reranker",
        wanted="auto",
        settings=ModelSettings(),
        library=library,
        machine=MACHINE,
        home=tmp_path,
    )
    with pytest.raises(InvalidInput, match="is embedder, not reranker"):
        wrong.plan()
