"""``profile.json``: the forms that ``ondol tune`` chose for this machine, with the figures behind it.

One entry a model: the key it was measured under (processor, cores, library versions, weights), the
choice per purpose, and every candidate with its figures and why it lost. A choice counts only while
the key is the same. Written whole and atomically; a damaged file is ignored with a warning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ondol.core.machine import Machine, describe
from ondol.core.private_files import private_folder
from ondol.models.library import ModelFiles
from ondol.models.manifest import read_manifest

_log = logging.getLogger("ondol.profile")

NAME = "profile.json"
LIBRARIES = ("ondol", "onnxruntime", "openvino", "torch")
"""Packages whose version changes what is fastest; one that is not installed is left out."""

GENERATOR_LIBRARIES = ("ondol", "xllamacpp", "openvino-genai", "openvino", "torch", "transformers")
"""The same for generators."""

Purpose = Literal["query", "bulk", "chat", "batch"]
PURPOSES: tuple[Purpose, ...] = ("query", "bulk", "chat", "batch")
"""What an encoder runs for (lone queries, bulk work) and a generator (a first token soon, many)."""

LengthPolicy = Literal["nearest", "arrival"]
"""How a batch is filled: with the items nearest in length, or as they came."""


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """What a measurement holds for; any difference makes it stale."""

    cpu: str
    cores: int
    versions: Mapping[str, str]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """How a model runs for one purpose; ``threads`` per stream, ``token_budget`` per batch.

    Of a generator ``token_budget`` is the prefill chunk and ``streams`` its slots.
    """

    form: str
    threads: int
    token_budget: int
    policy: LengthPolicy = "nearest"
    streams: int = 1


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """One model's choice. ``tuned`` is the date (ISO 8601); ``evidence`` has a row a candidate.

    ``quick`` says that few texts and forms were measured: a full ``ondol tune`` measures again.
    """

    model: str
    key: ProfileKey
    tuned: str
    chosen: Mapping[Purpose, Chosen]
    evidence: tuple[Mapping[str, Any], ...] = ()
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """The choices for this machine, by model."""

    models: Mapping[str, ModelProfile] = field(default_factory=dict)

    def with_model(self, tuned: ModelProfile) -> Profile:
        """Return this profile with ``tuned`` in place of what it knew of that model."""
        return replace(self, models={**self.models, tuned.model: tuned})


def chosen(profile: Profile, model: str, purpose: Purpose, key: ProfileKey) -> Chosen | None:
    """Return how ``model`` runs for ``purpose``, or ``None`` where that was not measured for ``key``."""
    found = profile.models.get(model)
    if found is None or found.key != key:
        return None
    return found.chosen.get(purpose)


def key_of(files: ModelFiles, *, machine: Machine | None = None) -> ProfileKey:
    """Return the key of ``files`` on ``machine`` (this one unless given)."""
    found = machine or describe()
    return ProfileKey(
        cpu=found.cpu,
        cores=found.cores,
        versions=library_versions(),
        fingerprint=fingerprint_of(files),
    )


def fingerprint_of(files: ModelFiles) -> str:
    """Return 16 hex digits over the hashes of the model's fetched files (weights, tokenizer)."""
    manifest = read_manifest(files.folder)
    hashes = sorted(f"{file.name}={file.sha256}" for file in manifest.files) if manifest else []
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]


def library_versions(names: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Return the versions of those of ``names`` that are installed."""
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def read_profile(home: Path) -> Profile:
    """Return the profile of ``home``: empty where there is none, or none that can be read."""
    path = home / NAME
    try:
        data = json.loads(path.read_text("utf-8"))
        return Profile(models={name: _model(name, entry) for name, entry in data["models"].items()})
    except FileNotFoundError:
        return Profile()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning(
            "%s is ignored, it cannot be read (%s: %s); make it anew with: ondol tune",
            path,
            type(error).__name__,
            error,
        )
        return Profile()


def write_profile(home: Path, profile: Profile) -> Path:
    """Replace the profile of ``home`` in one step and return its path."""
    private_folder(home)
    path = home / NAME
    part = path.with_name(f"{NAME}.part")
    with part.open("w", encoding="utf-8") as out:
        json.dump(asdict(profile), out, ensure_ascii=False, indent=2)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, path)
    return path


def _model(name: str, data: Mapping[str, Any]) -> ModelProfile:
    return ModelProfile(
        model=name,
        key=ProfileKey(**data["key"]),
        tuned=str(data["tuned"]),
        chosen={
            purpose: _chosen(data["chosen"][purpose])
            for purpose in PURPOSES
            if purpose in data["chosen"]
        },
        evidence=tuple(data.get("evidence", ())),
        quick=bool(data.get("quick", False)),
    )


def _chosen(data: Mapping[str, Any]) -> Chosen:
    found = Chosen(**data)
    whole = (found.threads, found.token_budget, found.streams)
    if not isinstance(found.form, str) or not all(type(n) is int and n > 0 for n in whole):
        raise ValueError(f"{dict(data)} is not a way to run a model")
    if found.policy not in ("nearest", "arrival"):
        raise ValueError(f"{found.policy!r} is not a length policy")
    return found
