"""LoRA adapters of a llama.cpp generator: read from settings, checked, chosen by a request.

All are loaded at start and none is applied unless a request names it. Knows no process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.core.errors import InvalidInput, SettingsError

_SCALE = re.compile(r"-?\d+(\.\d+)?")
_SETTING = "generation.adapters"
_SHAPE = "write each as name=path.gguf, or name=path.gguf@0.5 to apply it at half strength"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA file in GGUF, the name requests choose it by, and how strongly it is applied."""

    name: str
    path: Path
    scale: float = 1.0


def parse_adapters(texts: Sequence[str]) -> tuple[Adapter, ...]:
    """Return the adapters that ``name=path[@scale]`` texts name; raises ``SettingsError``."""
    adapters = tuple(_parse(text) for text in texts)
    names = [adapter.name for adapter in adapters]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"{_SETTING} names {name!r} twice", hint="give each its own name", param=_SETTING
            )
    return adapters


def check_adapters(adapters: Sequence[Adapter]) -> None:
    """Raise ``SettingsError`` for an adapter file that cannot be read or is no GGUF file."""
    for adapter in adapters:
        try:
            with adapter.path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise SettingsError(
                f"adapter {adapter.name}: {adapter.path} cannot be read: {error.strerror}",
                hint=f"mend the path in {_SETTING}",
                param=_SETTING,
            ) from None
        if magic != b"GGUF":
            raise SettingsError(
                f"adapter {adapter.name}: {adapter.path} is not a GGUF file",
                hint="convert it with llama.cpp's convert_lora_to_gguf.py",
                param=_SETTING,
            )


def lora_body(adapters: Sequence[Adapter], *, chosen: str) -> dict[str, Any]:
    """Return the part of a request body that applies ``chosen`` and no other.

    Empty without adapters. Raises ``InvalidInput`` for a name that is not loaded.
    """
    if chosen and chosen not in {adapter.name for adapter in adapters}:
        known = ", ".join(adapter.name for adapter in adapters) or "none"
        raise InvalidInput(
            f"there is no adapter {chosen!r}; loaded are: {known}",
            hint=f"choose one of GET /v1/models, or add it to {_SETTING} and restart",
            param="model",
        )
    if not adapters:
        return {}
    return {
        "lora": [
            {"id": index, "scale": adapter.scale if adapter.name == chosen else 0.0}
            for index, adapter in enumerate(adapters)
        ]
    }


def _parse(text: str) -> Adapter:
    name, equals, rest = text.partition("=")
    name, path, scale = name.strip(), rest.strip(), 1.0
    before, at, after = path.rpartition("@")
    if at and _SCALE.fullmatch(after):  # another @ belongs to the path
        path, scale = before, float(after)
    if not (name and equals and path) or "," in path:
        raise SettingsError(f"{_SETTING} has {text!r}", hint=_SHAPE, param=_SETTING)
    return Adapter(name=name, path=Path(path).expanduser().absolute(), scale=scale)
