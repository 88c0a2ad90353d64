"""``python -m ondol``: the same as the ``ondol`` command."""

from __future__ import annotations

from ondol.cli.main import run

if __name__ == "__main__":
    run()
