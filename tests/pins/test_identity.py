"""Names, fingerprints and keys are what was pinned: what was cached and tuned stays valid."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pins.conftest import catalogue_entries, fingerprint, real_fingerprint
from tests.pins.golden import check
from tests.pins.identity import identity


def test_identity(tmp_path: Path) -> None:
    check("identity.txt", identity(tmp_path))


@pytest.mark.model
def test_the_pinned_fingerprint_is_the_one_of_the_pulled_model(
    tmp_path: Path, models_folder: Path
) -> None:
    for entry in catalogue_entries():
        if entry.id in {"multilingual-e5-small", "ms-marco-minilm-l12-v2"}:
            real = real_fingerprint(entry.id, models_folder)
            assert real == fingerprint(entry, tmp_path / entry.id)
