"""Which of two libraries must be loaded first.

usearch and ONNX Runtime carry the same C++ symbols: with usearch loaded first, importing ONNX Runtime
ends the process (seen with usearch 2.26 and onnxruntime 1.31); the other way round both work.
"""

from __future__ import annotations

import importlib
import importlib.util


def load_onnx_runtime_first() -> None:
    """Import ONNX Runtime now, where it is installed; later imports of it cost nothing."""
    if importlib.util.find_spec("onnxruntime") is not None:
        importlib.import_module("onnxruntime")
