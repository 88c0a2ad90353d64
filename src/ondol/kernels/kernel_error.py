"""The one error of this room: a file that cannot be read, or a run that cannot be made."""

from __future__ import annotations


class KernelError(ValueError):
    """Says what came and which rule it breaks; ``hint`` is the remedy in one sentence, if any."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
