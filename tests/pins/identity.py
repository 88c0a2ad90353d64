"""What caches and profiles are kept under: a change here makes today's worthless, silently."""

from __future__ import annotations

from pathlib import Path

from tests.pins.conftest import (
    cache_entry,
    cache_key,
    catalogue_entries,
    encoder_forms,
    fingerprint,
)

TEXTS = ("온돌", "query: a warm floor", "")


def identity(folder: Path) -> str:
    """Return models with their fingerprints and forms, then keys and bytes of cached vectors."""
    lines = ["# fingerprints: model, the hash over the catalogue's files"]
    lines += [
        f"{entry.id} {fingerprint(entry, folder / entry.id)}" for entry in catalogue_entries()
    ]
    lines += ["", "# forms: name, stem of its file, version of its recipe"]
    for model, forms in encoder_forms().items():
        lines += [f"{model} {form} {stem} {version}" for form, stem, version in forms]
    lines += ["", "# keys of the embedding cache"]
    lines += [f"{text!r} {cache_key(text).hex()}" for text in TEXTS]
    for other in (
        {"truncate": True},
        {"form": "fake:int8"},
        {"fingerprint": "other-1"},
        {"dimensions": 32},
        {"max_tokens": 128},
    ):
        lines.append(f"{TEXTS[0]!r} {other} {cache_key(TEXTS[0], **other).hex()}")
    lines += ["", "# an entry: (0.5, -1.0, 0.0), 3 tokens"]
    lines.append(cache_entry(cache_key(TEXTS[0]), (0.5, -1.0, 0.0), tokens=3).hex())
    return "\n".join([*lines, ""])
