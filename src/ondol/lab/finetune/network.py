"""A BERT in torch whose upper layers can learn: the same arithmetic as the forms that will run it.

Owns the tensors. Embeddings and the layers below the first trained one stay as they are: the word
table is read row by row, 4-bit where the file is, so that 250,000 words cost no float32 copy, no
gradient and no moments. LoRA: Hu et al. 2021, arXiv:2106.09685.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from ondol.core.types import Encoded
from ondol.kernels.bert import BertWeights, FloatArray, Q4Matrix, as_float
from ondol.kernels.processor import cpu_flags
from ondol.lab.finetune.recipe import Recipe

_MATRICES = ("q", "k", "v", "ao", "fi", "fo")
_NORMS = ("aln", "oln")


@dataclass(frozen=True, slots=True)
class States:
    """What enters the first trained layer: ``x`` ``(items, longest, hidden)``, ``mask`` bool."""

    x: torch.Tensor
    mask: torch.Tensor


class TrainableEncoder:
    """An encoder as ``recipe`` trains it.

    ``trained`` are the tensors that learn, by canonical name (LoRA's with ``.down`` and ``.up``).
    With ``head``, ``outputs`` are relevance logits ``(n, 1)`` of a head that the weights have or that
    starts from noise drawn with the recipe's seed; else unit vectors ``(n, hidden)``.
    """

    def __init__(
        self,
        weights: BertWeights,
        *,
        pooling: Literal["mean", "cls"],
        recipe: Recipe,
        head: bool = False,
    ) -> None:
        shape = weights.shape
        self._shape, self._pooling, self._head = shape, pooling, head
        self._first = recipe.first_layer(shape.layers)
        self._scale = 2.0  # LoRA's alpha over its rank
        wanted = recipe.precision
        self._bf16 = wanted == "bf16" or (wanted == "auto" and "avx512_bf16" in cpu_flags())
        self._segments = head and shape.types > 1
        self._words = weights.matrix("emb.word")
        self._fixed: dict[str, torch.Tensor] = {}
        self.trained: dict[str, torch.Tensor] = {}
        noise = torch.Generator().manual_seed(recipe.seed)
        for name in ("emb.pos", "emb.type"):
            self._fixed[name] = _tensor(as_float(weights.matrix(name)))
        for name in ("emb.ln.w", "emb.ln.b"):
            self._fixed[name] = _tensor(weights.vector(name))
        for layer in range(shape.layers):
            self._take_layer(weights, layer, recipe, noise)
        if head:
            self._take_head(weights, noise)

    def states(self, batch: Sequence[Encoded]) -> States:
        """Run ``batch`` up to the first trained layer, without gradients."""
        with torch.no_grad(), self._autocast():
            x, mask = self._embedded(batch)
            for layer in range(self._first):
                x = self._layer(layer, x, mask)
        return States(x, mask)

    def outputs(self, states: States) -> torch.Tensor:
        """Run the trained layers; returns float32 unit vectors, or logits with a head."""
        with self._autocast():
            x = states.x
            for layer in range(self._first, self._shape.layers):
                x = self._layer(layer, x, states.mask)
        return self._pooled(x.float(), states.mask)

    def learned(self) -> dict[str, FloatArray]:
        """Return every tensor that may have changed, by canonical name, LoRA's products added in."""
        names = [f"l{n}.{part}" for n in range(self._first, self._shape.layers) for part in _PARTS]
        names += [f"head.{part}" for part in ("d.w", "d.b", "o.w", "o.b")] if self._head else []
        with torch.no_grad():
            return {name: self._value(name).detach().numpy().copy() for name in names}

    def load(self, trained: Mapping[str, torch.Tensor]) -> None:
        """Take over the values of ``trained``; raises ``ValueError`` when they do not fit."""
        if {n: t.shape for n, t in trained.items()} != {
            n: t.shape for n, t in self.trained.items()
        }:
            raise ValueError("the checkpoint's tensors are not this run's")
        with torch.no_grad():
            for name, value in trained.items():
                self.trained[name].copy_(value)

    def _take_layer(
        self, weights: BertWeights, layer: int, recipe: Recipe, noise: torch.Generator
    ) -> None:
        learns = layer >= self._first
        for part in _MATRICES:
            name = f"l{layer}.{part}"
            matrix = _tensor(as_float(weights.matrix(f"{name}.w")))
            self._keep(f"{name}.w", matrix, learns=learns and recipe.method == "full")
            self._keep(
                f"{name}.b",
                _tensor(weights.vector(f"{name}.b")),
                learns=learns and recipe.method == "full",
            )
            if learns and recipe.method == "lora":
                out, inner = matrix.shape
                down = torch.randn(recipe.rank, inner, generator=noise) * inner**-0.5
                self._keep(f"{name}.w.down", down, learns=True)
                self._keep(f"{name}.w.up", torch.zeros(out, recipe.rank), learns=True)
        for part in _NORMS:
            for end in ("w", "b"):
                name = f"l{layer}.{part}.{end}"
                vector = _tensor(weights.vector(name))
                self._keep(name, vector, learns=learns and recipe.method == "full")

    def _take_head(self, weights: BertWeights, noise: torch.Generator) -> None:
        hidden = self._shape.hidden
        for name, out in (("head.d", hidden), ("head.o", 1)):
            if self._shape.classifier:
                matrix = _tensor(as_float(weights.matrix(f"{name}.w")))
                bias = _tensor(weights.vector(f"{name}.b"))
            else:
                matrix = torch.randn(out, hidden, generator=noise) * 0.02
                bias = torch.zeros(out)
            self._keep(f"{name}.w", matrix, learns=True)
            self._keep(f"{name}.b", bias, learns=True)

    def _keep(self, name: str, value: torch.Tensor, *, learns: bool) -> None:
        if learns:
            self.trained[name] = value.requires_grad_()
        else:
            self._fixed[name] = value

    def _value(self, name: str) -> torch.Tensor:
        found = self.trained.get(name)
        if found is None:
            found = self._fixed[name]
        down = self.trained.get(f"{name}.down")
        if down is None:
            return found
        return found + self._scale * (self.trained[f"{name}.up"] @ down)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._bf16)

    def _embedded(self, batch: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(item.tokens for item in batch)
        ids = np.zeros((len(batch), longest), np.int64)
        types = np.zeros((len(batch), longest), np.int64)
        mask = np.zeros((len(batch), longest), bool)
        for row, item in enumerate(batch):
            ids[row, : item.tokens] = item.ids
            types[row, : item.tokens] = item.type_ids if self._segments else 0
            mask[row, : item.tokens] = True
        x = torch.from_numpy(self._rows(ids)) + self._fixed["emb.pos"][:longest]
        x = x + self._fixed["emb.type"][torch.from_numpy(types)]
        return self._norm(x, "emb.ln"), torch.from_numpy(mask)

    def _rows(self, ids: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> FloatArray:
        used, places = np.unique(ids, return_inverse=True)
        words = self._words
        if isinstance(words, Q4Matrix):
            rows = Q4Matrix(packed=words.packed[used], scales=words.scales[used]).dequantised()
        else:
            rows = words[used]
        found: FloatArray = rows[places.reshape(ids.shape)]
        return found

    def _layer(self, layer: int, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        p = f"l{layer}."
        items, longest, width = x.shape
        heads = self._shape.heads
        q, k, v = (
            self._dense(x, p + part).view(items, longest, heads, width // heads).transpose(1, 2)
            for part in "qkv"
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        mixed = mixed.transpose(1, 2).reshape(items, longest, width)
        x = self._norm(self._dense(mixed, f"{p}ao") + x, f"{p}aln")
        wide = F.gelu(self._dense(x, f"{p}fi"))
        return self._norm(self._dense(wide, f"{p}fo") + x, f"{p}oln")

    def _pooled(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self._head:
            return self._dense(torch.tanh(self._dense(x[:, 0], "head.d")), "head.o")
        if self._pooling == "cls":
            return F.normalize(x[:, 0], dim=-1)
        weights = mask[:, :, None].float()
        return F.normalize((x * weights).sum(1) / weights.sum(1), dim=-1)

    def _dense(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self._value(f"{name}.w"), self._value(f"{name}.b"))

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight = self._value(f"{name}.w")
        return F.layer_norm(x, weight.shape, weight, self._value(f"{name}.b"), self._shape.eps)


_PARTS = tuple(f"{part}.{end}" for part in (*_MATRICES, *_NORMS) for end in ("w", "b"))


def _tensor(values: FloatArray) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)
