"""Which vector search is chosen, and that choosing it harms nothing that loads later."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("usearch")

CHOOSE_THEN_LOAD = """
from ondol.core.settings import load_settings
from ondol.search.vector_choice import vector_search
assert vector_search(load_settings(flags={"vectors.index": "ann"})) is not None
import usearch.index
import onnxruntime
print("both")
"""


def test_onnx_runtime_still_loads_beside_the_graph() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHOOSE_THEN_LOAD], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "both"), done.stderr
