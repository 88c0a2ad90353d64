"""PyTorch encoder, on the CPU or an NVIDIA GPU: a BERT straight from its weights.

Owns the weights on one device and a tokenizer; no transformers. On a GPU batches are packed: every
product but attention runs on the tokens alone, without padding. Exactly one thread calls ``run``.
Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ondol.backends.protocols import EncoderSpec, finite_rows, load_failure, run_failure
from ondol.backends.tokenizer import TextTokenizer
from ondol.core.errors import OndolError
from ondol.core.types import Encoded, FloatMatrix, Pair

Array = NDArray[np.float32]
Read = Callable[[str], Array]
Precision = Literal["fp32", "fp16", "bf16"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchEncoder:
    """Runs an encoder in torch.

    ``matrix`` and ``vector`` read a tensor by its canonical name (``kernels.bert``) as float32;
    ``segments`` says that the two texts of a pair are told apart. ``gpu_memory_fraction`` is how
    much of the device this process may take, for all its models together. ``packs`` says whether
    batches run without padding.
    """

    def __init__(
        self,
        tokenizer_path: Path,
        *,
        matrix: Read,
        vector: Read,
        layers: int,
        heads: int,
        eps: float,
        spec: EncoderSpec,
        threads: int,
        precision: Precision,
        pooling: Literal["mean", "cls"],
        segments: bool = False,
        gpu_memory_fraction: float = 1.0,
    ) -> None:
        self._layers, self._heads, self._eps = layers, heads, eps
        self._pooling, self._segments = pooling, segments
        self._device, self._dtype = torch.device(spec.device), _DTYPES[precision]
        try:
            self._tokenizer = TextTokenizer(
                tokenizer_path, model=spec.model, max_tokens=spec.max_tokens
            )
            _prepare(self._device, threads=threads, fraction=gpu_memory_fraction)
            reranks = spec.role == "reranker"
            self._t = self._tensors(matrix, vector, reranks=reranks)
        except Exception as error:
            raise load_failure(error, spec=spec) from error
        self._reranks = reranks
        self.packs = self._device.type == "cuda"
        self._spec = replace(spec, vocabulary=self._tokenizer.vocabulary, padded=not self.packs)

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]:
        """Tokenise each item alone; see ``backends.base.Encoder``."""
        return self._tokenizer.tokenize(items, truncate=truncate)

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        """Return float32 ``(n, dimensions)`` for ``batch``; raises ``BackendError``.

        ``OutOfMemory`` when the device's memory did not do; what it had cached is given back then.
        """
        try:
            with torch.inference_mode():
                output = self._forward(batch).float().cpu().numpy()
        except Exception as error:
            failure = run_failure(error, spec=self._spec, items=len(batch))
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            raise failure from error
        return finite_rows(output, spec=self._spec, items=len(batch))

    def close(self) -> None:
        """Release the weights' memory."""
        self._t = {}
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def free_bytes(self) -> int | None:
        """Return what batches can still get of the GPU; ``None`` on the CPU."""
        if self._device.type != "cuda":
            return None
        cached = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(
            self._device
        )
        return int(torch.cuda.mem_get_info(self._device)[0] + cached)

    def _tensors(self, matrix: Read, vector: Read, *, reranks: bool) -> dict[str, torch.Tensor]:
        """Put every tensor on the device, one at a time; queries, keys and values as one product."""
        tables = {f"emb.{name}": matrix(f"emb.{name}") for name in ("word", "pos", "type")}
        found = {name: self._put(table) for name, table in tables.items()}
        parts = ["emb.ln"]
        for p in (f"l{layer}." for layer in range(self._layers)):
            for end, read in (("w", matrix), ("b", vector)):
                stacked = np.concatenate([read(f"{p}{part}.{end}") for part in "qkv"])
                found[f"{p}qkv.{end}"] = self._put(stacked)
                for part in ("ao", "fi", "fo"):
                    found[f"{p}{part}.{end}"] = self._put(read(f"{p}{part}.{end}"))
            parts += [f"{p}aln", f"{p}oln"]
        for name in parts:
            for end in ("w", "b"):
                found[f"{name}.{end}"] = self._put(vector(f"{name}.{end}"))
        for name in ("head.d", "head.o") if reranks else ():
            found[f"{name}.w"] = self._put(matrix(f"{name}.w"))
            found[f"{name}.b"] = self._put(vector(f"{name}.b"))
        return found

    def _put(self, values: Array) -> torch.Tensor:
        return torch.tensor(values).to(device=self._device, dtype=self._dtype)

    def _forward(self, batch: Sequence[Encoded]) -> torch.Tensor:
        padded = self._tokenizer.pad(batch, dtype=np.int64)
        mask = torch.from_numpy(padded.mask).to(self._device).bool()
        kept = TokenPacking(mask) if self.packs else None
        ids = self._indices(padded.ids, kept)
        places = torch.arange(mask.shape[1], device=self._device).expand(mask.shape)
        positions = places if kept is None else kept.pack(places)
        x = self._t["emb.word"][ids] + self._t["emb.pos"][positions]
        types = self._indices(padded.types, kept) if self._segments else torch.zeros_like(ids)
        x = self._norm(x + self._t["emb.type"][types], "emb.ln")
        whole = bool(padded.mask.all())
        for layer in range(self._layers):
            x = self._layer(f"l{layer}.", x, None if whole else mask, kept)
        if kept is not None:
            x = kept.unpack(x)
        return self._pooled(x, mask)

    def _indices(self, values: Any, kept: TokenPacking | None) -> torch.Tensor:
        found = torch.from_numpy(values).to(self._device)
        return found if kept is None else kept.pack(found)

    def _layer(
        self, p: str, x: torch.Tensor, mask: torch.Tensor | None, kept: TokenPacking | None
    ) -> torch.Tensor:
        stacked = self._dense(x, f"{p}qkv")
        if kept is not None:
            stacked = kept.unpack(stacked)
        attended = self._attention(stacked, mask)
        if kept is not None:
            attended = kept.pack(attended)
        x = self._norm(self._dense(attended, f"{p}ao") + x, f"{p}aln")
        wide = F.gelu(self._dense(x, f"{p}fi"))
        return self._norm(self._dense(wide, f"{p}fo") + x, f"{p}oln")

    def _attention(self, stacked: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        items, longest, width = stacked.shape
        split = stacked.view(items, longest, 3, self._heads, width // (3 * self._heads))
        q, k, v = split.permute(2, 0, 3, 1, 4)
        allowed = None if mask is None else mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return mixed.transpose(1, 2).reshape(items, longest, width // 3)

    def _pooled(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self._reranks:
            return self._dense(torch.tanh(self._dense(x[:, 0], "head.d")), "head.o")
        if self._pooling == "cls":
            return x[:, 0]
        weights = mask[:, :, None].float()
        return (x.float() * weights).sum(1) / weights.sum(1)

    def _dense(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self._t[f"{name}.w"], self._t[f"{name}.b"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self._t[f"{name}.w"], self._t[f"{name}.b"]
        return F.layer_norm(x, weight.shape, weight, bias, self._eps)


class TokenPacking:
    """Takes the padding out of ``(items, longest, …)`` and puts it back; ``mask`` is bool."""

    def __init__(self, mask: torch.Tensor) -> None:
        self._shape = mask.shape
        self._places = mask.flatten().nonzero().flatten()

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """Return the tokens ``(tokens, …)``, item after item."""
        return x.reshape(-1, *x.shape[2:])[self._places]

    def unpack(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(items, longest, …)`` with zeros for padding."""
        whole = x.new_zeros((self._shape[0] * self._shape[1], *x.shape[1:]))
        whole[self._places] = x
        return whole.view(*self._shape, *x.shape[1:])


def _prepare(device: torch.device, *, threads: int, fraction: float) -> None:
    """Set what is one for the whole process: threads, TF32 products, share of the GPU's memory."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.cuda.set_per_process_memory_fraction(fraction, device.index or 0)
