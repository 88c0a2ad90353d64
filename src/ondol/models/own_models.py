"""Models made here: catalogue entries of the user's own, each kept in its model's folder.

``<models>/<id>/entry.json`` holds the entry and how the model came to be: its base, the data's
digest, the seed, the figures of its gate. A shipped entry of the same id wins. Delete the folder to
be rid of the model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ondol.core.errors import Conflict, InvalidInput, ModelError
from ondol.models.catalogue import CatalogueEntry, catalogue, make_entry

NAME = "entry.json"
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_new_id(root: Path, model_id: str) -> None:
    """Raise ``InvalidInput`` for an id that is not allowed, ``Conflict`` for one that is taken."""
    if not _ID.fullmatch(model_id):
        raise InvalidInput(
            f"{model_id!r} cannot name a model",
            hint="use up to 64 small letters, digits, dots, dashes and underscores, a letter or digit first",
            param="name",
        )
    if model_id in catalogue() or (root / model_id).exists():
        raise Conflict(
            f"there is a model {model_id!r} already",
            hint="choose another name: collections remember their embedder by it",
            param="name",
        )


def own_entry(root: Path, model_id: str) -> CatalogueEntry | None:
    """Return the entry of a model made here; ``None`` where there is none of that id."""
    if not _ID.fullmatch(model_id):
        return None
    kept = _read(root / model_id / NAME)
    return None if kept is None else _entry(model_id, kept)


def own_entries(root: Path) -> dict[str, CatalogueEntry]:
    """Return all entries of models made here, by id; folders whose entry is damaged are left out."""
    return {entry.id: entry for entry in _readable(root)}


def making_of(folder: Path) -> Mapping[str, Any]:
    """Return how the model in ``folder`` was made; empty where it was not made here."""
    kept = _read(folder / NAME)
    made = {} if kept is None else kept.get("made")
    return made if isinstance(made, dict) else {}


def write_own_entry(folder: Path, entry: CatalogueEntry, *, made: Mapping[str, Any]) -> None:
    """Write the entry into the model's ``folder``, in one step; the model is known from then on."""
    part = folder / f"{NAME}.part"
    fields = asdict(entry)
    fields.pop("id")
    kept = ("name", "part", "bytes", "sha256")  # it comes from nowhere but here
    fields["files"] = [{key: file[key] for key in kept} for file in fields["files"]]
    with part.open("w", encoding="utf-8") as out:
        json.dump({"entry": fields, "made": dict(made)}, out, indent=2, ensure_ascii=False)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, folder / NAME)


def _readable(root: Path) -> Iterator[CatalogueEntry]:
    for path in sorted(root.glob(f"*/{NAME}")):
        try:
            found = own_entry(root, path.parent.name)
        except ModelError:
            continue
        if found is not None and found.id not in catalogue():
            yield found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        kept = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(kept, dict):
        raise _damaged(path, "it is no JSON object")
    return kept


def _entry(model_id: str, kept: Mapping[str, Any]) -> CatalogueEntry:
    try:
        return make_entry(model_id, dict(kept["entry"]))
    except (TypeError, KeyError, ValueError) as error:
        raise _damaged(Path(model_id) / NAME, repr(error)) from None


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path.parent.name}/{path.name} is damaged: {why}",
        hint="delete the model's folder and make the model again",
    )
