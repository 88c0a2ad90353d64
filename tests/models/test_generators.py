"""Forms of generators by name."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from ondol.core.errors import ModelError
from ondol.core.extras import install_command
from ondol.models import generators
from ondol.models.generators import GeneratorSetup, is_loadable, load_generator

SETUP = GeneratorSetup(model="tiny")


@pytest.mark.parametrize(
    ("form", "known"),
    [
        ("openvino-genai:q4", True),
        ("transformers:nf4@cuda", True),
        ("llamacpp:q4_k_m", False),
        ("onnx:int8", False),
        ("", False),
    ],
)
def test_knows_its_names(form: str, known: bool) -> None:
    assert is_loadable(form) is known


@pytest.mark.parametrize(
    "form", ["openvino-genai:fp4", "openvino-genai:q4@cuda", "transformers:q4", "llamacpp:q4_k_m"]
)
def test_another_name_is_refused_with_those_there_are(tmp_path: Path, form: str) -> None:
    with pytest.raises(ModelError, match="not the name") as error:
        load_generator(form, tmp_path, SETUP)

    assert "openvino-genai:q4" in error.value.hint
    assert "@cuda" in error.value.hint


@pytest.mark.parametrize(
    ("form", "missing", "extra"),
    [
        ("openvino-genai:q4", "openvino_genai", "openvino-genai"),
        ("transformers:bf16", "transformers", "transformers"),
        ("transformers:nf4@cuda", "bitsandbytes", "transformers"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, missing: str, extra: str
) -> None:
    spec = importlib.util.spec_from_loader("there", None)
    monkeypatch.setattr(generators, "find_spec", lambda name: None if name == missing else spec)
    with pytest.raises(ModelError, match=f"{missing} is not installed") as error:
        load_generator(form, tmp_path, SETUP)

    assert error.value.hint == install_command(extra)


def test_a_built_form_is_built_once(tmp_path: Path) -> None:
    model = tmp_path / "models" / "tiny" / "tiny.gguf"
    built = model.parent / "openvino-genai-q4"
    built.mkdir(parents=True)
    model.write_bytes(b"weights")
    (built / "form.json").write_text(json.dumps({"version": 1, "bytes": 7}))

    assert generators.build_genai(model, precision="q4") == built
    model.write_bytes(b"other weights")
    with pytest.raises(ModelError, match="tiny.gguf"):  # built anew, of what is no GGUF file
        generators.build_genai(model, precision="q4")
    assert [path.name for path in model.parent.iterdir() if path.name.startswith(".")] == []
