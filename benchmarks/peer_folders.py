"""Write a catalogue embedder as a folder that sentence-transformers and infinity can load.

The peers must run the very weights that Ondol runs, and fetch nothing: ``all-minilm-l6-v2`` has its
original ``model.safetensors``; ``multilingual-e5-small`` comes as 4-bit weights, which are written
out as the float32 values they stand for. Run: ``python benchmarks/peer_folders.py MODEL FOLDER``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.core.settings import load_settings
from ondol.kernels.bert import BertShape, BertWeights, as_float
from ondol.kernels.e5s1 import read_e5s1
from ondol.models.library import ModelFiles, ModelLibrary

_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
}
_LINEAR = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
_NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}
_TOKENS = {
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "mask_token": ("[MASK]", "<mask>"),
}


def write_folder(model: str, target: Path) -> Path:
    """Write ``model`` to ``target`` (kept when it is there already) and return it."""
    done = target / "modules.json"
    if done.exists():
        return target
    files = ModelLibrary(load_settings().home / "models", offline=True).files(model)
    shutil.rmtree(target, ignore_errors=True)
    (target / "1_Pooling").mkdir(parents=True)
    _write_weights(files, target)
    if files.tokenizer_path is None:
        raise SystemExit(f"{model} has no tokenizer")
    _write_tokenizer(files.tokenizer_path, target, most=files.entry.max_tokens)
    _json(
        target / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": files.entry.dimensions,
            "pooling_mode_cls_token": files.entry.pooling == "cls",
            "pooling_mode_mean_tokens": files.entry.pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    _json(
        target / "sentence_bert_config.json",
        {"max_seq_length": files.entry.max_tokens, "do_lower_case": False},
    )
    kinds = ("Transformer", "Pooling", "Normalize")
    _json(
        done,
        [
            {
                "idx": place,
                "name": str(place),
                "path": f"{place}_{kind}" if place else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for place, kind in enumerate(kinds)
        ],
    )
    return target


def _write_weights(files: ModelFiles, target: Path) -> None:
    if files.entry.format == "safetensors":
        shutil.copy(files.folder / "config.json", target)
        (target / "model.safetensors").symlink_to(files.folder / files.entry.weights.name)
        return
    if files.entry.format != "e5s1":
        raise SystemExit(f"{files.entry.id} is {files.entry.format}: float weights are needed")
    weights = read_e5s1(files.folder / files.entry.weights.name)
    _json(target / "config.json", _config(weights.shape))
    _write_safetensors(target / "model.safetensors", weights)


def _config(shape: BertShape) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.types,
        "vocab_size": shape.vocab,
        "layer_norm_eps": shape.eps,
        "pad_token_id": 1,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
    }


def _tensors(weights: BertWeights) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for ours, theirs in _EMBEDDINGS.items():
        yield theirs, as_float(weights.matrix(ours))
    yield from _norm(weights, "emb.ln", "embeddings.LayerNorm")
    for layer in range(weights.shape.layers):
        for ours, theirs in _LINEAR.items():
            name = f"encoder.layer.{layer}.{theirs}"
            yield f"{name}.weight", as_float(weights.matrix(f"l{layer}.{ours}.w"))
            yield f"{name}.bias", weights.vector(f"l{layer}.{ours}.b")
        for ours, theirs in _NORMS.items():
            yield from _norm(weights, f"l{layer}.{ours}", f"encoder.layer.{layer}.{theirs}")
    hidden = weights.shape.hidden  # never used by mean pooling; named so that none is made up
    yield "pooler.dense.weight", np.zeros((hidden, hidden), np.float32)
    yield "pooler.dense.bias", np.zeros(hidden, np.float32)


def _norm(
    weights: BertWeights, ours: str, theirs: str
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    yield f"{theirs}.weight", weights.vector(f"{ours}.w")
    yield f"{theirs}.bias", weights.vector(f"{ours}.b")


def _write_safetensors(path: Path, weights: BertWeights) -> None:
    """Write the format of https://github.com/huggingface/safetensors: length, JSON, raw values."""
    directory: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, values in _tensors(weights):
        size = values.size * 4
        directory[name] = {
            "dtype": "F32",
            "shape": list(values.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    head = json.dumps(directory).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for _, values in _tensors(weights):
            out.write(np.ascontiguousarray(values, "<f4").tobytes())


def _write_tokenizer(path: Path, target: Path, *, most: int) -> None:
    shutil.copy(path, target / "tokenizer.json")
    pieces = {token["content"] for token in json.loads(path.read_text("utf-8"))["added_tokens"]}
    special = {role: name for role, names in _TOKENS.items() for name in names if name in pieces}
    _json(
        target / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": most,
            "clean_up_tokenization_spaces": False,
            **special,
        },
    )
    _json(target / "special_tokens_map.json", special)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="all-minilm-l6-v2 or multilingual-e5-small")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(write_folder(options.model, options.folder))


if __name__ == "__main__":
    main()
