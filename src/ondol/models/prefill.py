"""How fast a generator reads prompts, before that was measured, and how large its chunks may be.

Between two chunks of somebody's prompt the other slots decode one token each, and a cancelled
request is noticed: so a chunk may take about a quarter of a second. Pure functions.
"""

from __future__ import annotations

CHUNK_SECONDS = 0.25
"""How long the other slots may wait for one chunk."""

SMALLEST, LARGEST, STEP = 32, 512, 32
BYTES_PER_CORE_SECOND = 50e9
"""Weights read per core and second while prefilling, in bytes: llama.cpp on AVX2, Q4_K_M, 0.49 GB
203 tokens/s and 1.12 GB 91 tokens/s on two Zen 5 cores; a fifth less on Zen 4."""
FASTEST_PER_CORE = 200.0
"""Small models do not get faster for ever: 0.1 GB reads 370 tokens/s on two cores."""
NATIVE_GAIN = 1.35
"""What a native build gains with AVX-512 VNNI: 1.33 (1.12 GB) to 1.47 (0.49 GB) on Zen 4."""


def estimated_rate(weight_bytes: int, *, cores: int, native: bool = False) -> float:
    """Return about how many prompt tokens a second a generator reads; unknown weights count 1 GB."""
    rate = min(BYTES_PER_CORE_SECOND / (weight_bytes or 1e9), FASTEST_PER_CORE)
    return cores * rate * (NATIVE_GAIN if native else 1.0)


def chunk_tokens(rate: float) -> int:
    """Return the prefill chunk, in tokens, of a generator that reads ``rate`` tokens a second.

    The multiple of 32 nearest to a quarter of a second's, at least 32 and at most 512.
    """
    steps = round(CHUNK_SECONDS * rate / STEP)
    return min(LARGEST, max(SMALLEST, steps * STEP))
