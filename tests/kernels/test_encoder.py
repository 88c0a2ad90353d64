"""The public encoder: a folder as on the Hub is packed, opened and encodes, without the rest of Ondol."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.kernels.random_encoder import (
    SHAPE,
    needs_kernels,
    random_items,
    random_weights,
)
from tests.kernels.synthetic_weights import hub_name, write_tensors
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import ondol.kernels
from ondol.kernels import Encoder, KernelError, TextSettings, pack
from ondol.kernels.bert import BertWeights, FloatArray, as_float
from ondol.kernels.calibration.calibration_statistics import hidden_states
from ondol.kernels.packed_weights import write_packed

WORDS = ["[UNK]", "query", "passage", ":", "온돌", "바닥", "난방", "heat", "floor"]
E5 = TextSettings(query_prefix="query: ", document_prefix="passage: ")

STRANGERS = """
import sys
strangers = [n for n in sys.modules if n.startswith("ondol.") and not n.startswith("ondol.kernels")]
assert not strangers, strangers
"""
ENCODE = """
import sys
from ondol.kernels import Encoder
with Encoder.open(sys.argv[1], threads=1) as encoder:
    print(*encoder.encode(["온돌 바닥"], role="query").shape)
"""
IMPORT = """
import ondol.kernels
for name in ondol.kernels.__all__:
    print(name, getattr(ondol.kernels, name).__name__)
"""


def hub_folder(folder: Path) -> BertWeights:
    """Write a small random encoder as the Hub has it; returns its weights."""
    weights = random_weights()
    names = ["emb.word", "emb.pos", "emb.type"]
    names += [f"l{i}.{p}.w" for i in range(SHAPE.layers) for p in ("q", "k", "v", "ao", "fi", "fo")]
    tensors = {name: as_float(weights.matrix(name)) for name in names}
    biased = [name.removesuffix(".w") for name in names if name.startswith("l")]
    norms = ["emb.ln", *(f"l{i}.{p}" for i in range(SHAPE.layers) for p in ("aln", "oln"))]
    vectors = [*(f"{n}.b" for n in [*biased, *norms]), *(f"{n}.w" for n in norms)]
    tensors |= {name: weights.vector(name) for name in vectors}
    write_tensors(folder / "model.safetensors", {hub_name(n): v for n, v in tensors.items()})
    config = {
        "model_type": "bert",
        "hidden_size": SHAPE.hidden,
        "num_hidden_layers": SHAPE.layers,
        "num_attention_heads": SHAPE.heads,
        "intermediate_size": SHAPE.ffn,
        "vocab_size": SHAPE.vocab,
        "max_position_embeddings": SHAPE.positions,
        "type_vocab_size": SHAPE.types,
        "layer_norm_eps": SHAPE.eps,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    write_tokenizer(folder)
    return weights


def write_tokenizer(folder: Path) -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    hub_folder(folder)
    return pack(folder, texts=E5)


def expected(texts: list[str], folder: Path) -> FloatArray:
    """Return the unit vectors of the float32 encoder."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    means = [
        hidden_states(random_weights(), [tokenizer.encode(text)]).mean(axis=0) for text in texts
    ]
    return np.stack([mean / np.linalg.norm(mean) for mean in means])


def test_the_public_names_are_there() -> None:
    assert sorted(ondol.kernels.__all__) == dir(ondol.kernels)
    assert all(getattr(ondol.kernels, name).__doc__ for name in ondol.kernels.__all__)
    with pytest.raises(AttributeError, match="Decoder"):
        _ = ondol.kernels.Decoder


def fresh(code: str, *arguments: str) -> str:
    """Run ``code`` in a new interpreter; returns what it printed if no stranger was imported."""
    command = [sys.executable, "-c", code + STRANGERS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_load_without_the_rest_of_ondol() -> None:
    assert fresh(IMPORT).split() == [n for name in ondol.kernels.__all__ for n in (name, name)]


@needs_kernels
def test_it_encodes_without_the_rest_of_ondol(packed: Path) -> None:
    assert fresh(ENCODE, str(packed)).split() == ["1", str(SHAPE.hidden)]


@needs_kernels
@pytest.mark.parametrize(("role", "prefix"), [("query", "query: "), ("document", "passage: ")])
def test_vectors_are_the_float32_ones_with_the_prefix_of_their_role(
    packed: Path, role: str, prefix: str
) -> None:
    texts = ["온돌 바닥 난방", "heat", "floor heat 온돌 " * 40]
    with Encoder.open(packed) as encoder:
        vectors = encoder.encode(texts, role=role)  # type: ignore[arg-type]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    reference = expected([prefix + text for text in texts], packed.parent)
    assert (vectors * reference).sum(axis=1).min() > 0.999


@needs_kernels
def test_many_texts_keep_their_order_and_their_bits(packed: Path) -> None:
    texts = [" ".join(WORDS[3 + i % 5 :] * (i % 30 + 1)) for i in range(200)]  # several batches
    with Encoder.open(packed, threads=3) as encoder:
        together = encoder.encode(texts, role="document")
        alone = [encoder.encode([text], role="document")[0] for text in texts]
        assert encoder.encode([], role="query").shape == (0, SHAPE.hidden)
    np.testing.assert_array_equal(together, np.stack(alone))


@needs_kernels
def test_a_text_that_is_too_long_is_refused_rather_than_cut(packed: Path) -> None:
    with (
        Encoder.open(packed) as encoder,
        pytest.raises(KernelError, match=r"takes 1 to 300") as refusal,
    ):
        encoder.encode(["온돌 " * 300], role="query")
    assert refusal.value.hint


@needs_kernels
def test_a_role_that_is_none_and_text_that_is_none_are_refused(packed: Path) -> None:
    with Encoder.open(packed) as encoder:
        with pytest.raises(KernelError, match="passage"):
            encoder.encode(["온돌"], role="passage")  # type: ignore[arg-type]
        with pytest.raises(KernelError, match="tokenised"):
            encoder.encode(["\ud800"], role="query")
    with pytest.raises(KernelError, match="closed"):
        encoder.encode(["온돌"], role="query")


@needs_kernels
def test_a_file_without_text_settings_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed.bin"
    with pytest.raises(KernelError, match="cannot be opened"):
        Encoder.open(path)
    write_packed(random_weights(replace(SHAPE, layers=1)), random_items(4), path)
    with pytest.raises(KernelError, match="does not say how texts are given"):
        Encoder.open(path)


def test_a_folder_that_lacks_its_tokenizer_is_refused(tmp_path: Path) -> None:
    hub_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(KernelError, match="is no tokenizer"):
        pack(tmp_path, texts=E5)
    assert not list(tmp_path.glob("native*"))
