"""The commands of the lab run as those of the command line do."""

from __future__ import annotations

from tests.cli.conftest import notes, run

__all__ = ["notes", "run"]
