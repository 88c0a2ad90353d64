"""The names of forms."""

from __future__ import annotations

import pytest

from ondol.core.errors import ModelError
from ondol.models.form import Form, parse_form


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("onnx:int8", Form("onnx", "int8")),
        ("openvino:int8-weights", Form("openvino", "int8-weights")),
        ("torch:fp16@cuda", Form("torch", "fp16", device="cuda")),
        ("onnx:int8+trimmed", Form("onnx", "int8", trimmed=True)),
    ],
)
def test_a_form_is_read_and_written_back(text: str, form: Form) -> None:
    assert parse_form(text) == form
    assert str(form) == text


@pytest.mark.parametrize("text", ["", "onnx", "onnx:", ":int8", "ONNX:int8", "onnx:int8 ", "a:b@"])
def test_what_is_no_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ModelError, match="not the name of a form") as caught:
        parse_form(text)
    assert "onnx:int8" in caught.value.hint
