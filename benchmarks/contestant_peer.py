"""Contestant in the peers' environment: sentence-transformers as its documentation runs it.

``model.encode`` with its own length sorting; the model is a local folder and nothing is fetched.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contestant import claim_stdout, memory, serve


class SentenceTransformersPeer:
    """Loads once, then embeds all texts or one at a time."""

    def load(self, *, folder: str, threads: int, batch: int) -> Mapping[str, Any]:
        started = time.perf_counter()
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self._model = SentenceTransformer(folder, device="cpu")
        self._batch = batch
        self._model.encode(["warm up"], show_progress_bar=False)
        return {"seconds": time.perf_counter() - started, **memory(reset=True)}

    def texts(self, *, path: str) -> Mapping[str, Any]:
        self._texts: list[str] = json.loads(Path(path).read_text("utf-8"))
        return {"texts": len(self._texts)}

    def bulk(self) -> Mapping[str, Any]:
        started = time.perf_counter()
        self._vectors = self._model.encode(
            self._texts,
            batch_size=self._batch,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return {"seconds": time.perf_counter() - started}

    def lone(self) -> Mapping[str, Any]:
        taken = []
        for text in self._texts:
            started = time.perf_counter()
            self._model.encode([text], normalize_embeddings=True, show_progress_bar=False)
            taken.append(time.perf_counter() - started)
        return {"seconds": taken}

    def save(self, *, path: str) -> Mapping[str, Any]:
        """Write the vectors of the last ``bulk``."""
        import numpy as np

        np.save(path, np.asarray(self._vectors, dtype=np.float32))
        return {}


def main() -> None:
    answers = claim_stdout()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    peer = SentenceTransformersPeer()
    serve(
        {
            "load": peer.load,
            "texts": peer.texts,
            "bulk": peer.bulk,
            "lone": peer.lone,
            "save": peer.save,
            "memory": memory,
        },
        answers,
    )


if __name__ == "__main__":
    main()
