"""An encoder on our own 8-bit kernels: for CPUs with AVX512-VNNI and AVX512-BF16.

Puts ``kernels.packed_encoder`` and a tokenizer behind the protocol; the kernels' errors leave as
Ondol's. A text's vector does not depend on its batch mates, to the last bit. Exactly one thread
calls ``run``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ondol.backends.protocols import EncoderSpec, finite_rows, load_failure
from ondol.backends.tokenizer import TextTokenizer
from ondol.core.errors import BackendError, OndolError, OutOfMemory
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.kernels.kernel_error import KernelError
from ondol.kernels.packed_encoder import PackedEncoder
from ondol.kernels.packed_weights import PackedWeights


class NativeEncoder:
    """Runs packed weights; ``first_token`` says which row is a text's, else the tokens' mean."""

    def __init__(
        self,
        weights: PackedWeights,
        tokenizer_path: Path,
        *,
        spec: EncoderSpec,
        threads: int,
        first_token: bool,
    ) -> None:
        try:
            self._tokenizer = TextTokenizer(
                tokenizer_path, model=spec.model, max_tokens=spec.max_tokens
            )
            self._encoder = PackedEncoder(weights, threads=threads, first_token=first_token)
        except MemoryError as error:
            raise OutOfMemory(
                f"{spec.model} ({spec.form}) could not be loaded: {error}",
                hint="free memory, or set fewer models.threads",
            ) from error
        except Exception as error:
            raise load_failure(error, spec=spec) from error
        self._spec = replace(spec, vocabulary=self._tokenizer.vocabulary, padded=False)

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]:
        """Tokenise each item alone; see ``backends.base.Encoder``."""
        return self._tokenizer.tokenize(items, truncate=truncate)

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        """Return float32 ``(n, dimensions)`` for ``batch``; raises ``BackendError``."""
        try:
            rows = self._encoder.run(batch)
        except KernelError as error:
            raise BackendError(f"{self._spec.model}: {error}", hint=error.hint) from error
        except MemoryError as error:
            raise OutOfMemory(
                f"{self._spec.model}: {error}", hint="lower models.token_budget"
            ) from error
        return finite_rows(rows, spec=self._spec, items=len(batch))

    def close(self) -> None:
        """End the worker threads and let go of the weights."""
        self._encoder.close()
