"""What this processor can do, as Linux tells it in ``/proc/cpuinfo``."""

from __future__ import annotations

from pathlib import Path

NEEDED_FLAGS = frozenset({"avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"})
"""What the C kernels are made of (Zen 4, Cooper Lake, Sapphire Rapids and later)."""

_CPUINFO = Path("/proc/cpuinfo")


def cpu_flags(*, cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Return the processor's feature flags as Linux names them; empty where they are not told."""
    try:
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    line = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    return frozenset(line.partition(":")[2].split())


def processor_suits() -> bool:
    """Whether this processor has the instructions that the C kernels are made of."""
    return cpu_flags() >= NEEDED_FLAGS


def weight_levels(*, cpuinfo: Path = _CPUINFO) -> int:
    """Return 127, or 63 on an x86 CPU without VNNI.

    There, ONNX Runtime adds pairs of u8 x s8 products in 16 bits, which overflow with full-range
    weights (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html,
    "when and why do I need to try U8U8").
    """
    flags = cpu_flags(cpuinfo=cpuinfo)
    is_x86 = "fpu" in flags
    return 63 if is_x86 and not flags & {"avx512_vnni", "avx_vnni"} else 127
