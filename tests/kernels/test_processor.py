"""What the processor can do decides the range of 8-bit weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondol.kernels.processor import weight_levels


@pytest.mark.parametrize(
    ("cpuinfo", "levels"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni", 127),
        ("flags\t\t: fpu avx2 avx_vnni", 127),
        ("flags\t\t: fpu avx2", 63),
        ("Features\t: fp asimd", 127),
        (None, 127),
    ],
)
def test_cpus_that_overflow_get_a_narrower_range(
    tmp_path: Path, cpuinfo: str | None, levels: int
) -> None:
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(f"processor\t: 0\n{cpuinfo}\n")
    assert weight_levels(cpuinfo=path) == levels
