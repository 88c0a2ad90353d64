"""What a pack declares, read and checked: packs, tasks, their limits, their steps.

Frozen values; ``pack_file`` makes them. A task names no code: its steps are ours, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from ondol.core.errors import InvalidInput
from ondol.tasks.templates import Prompt

Language = Literal["ko", "en"]
LANGUAGES: tuple[Language, ...] = ("ko", "en")


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """The bounds of one run; beyond them an input is refused, or a run ends."""

    max_items: int = 2_000
    max_chars: int = 1_000_000
    prompt_tokens: int = 1_500
    answer_tokens: int = 300
    seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class EntriesRule:
    """Which field of the input holds the many texts, and how they are marked.

    ``split`` cuts one text into its sentences; else the field is a list of objects with ``text``.
    """

    field: str
    marker: str = "r"
    split: Literal["none", "sentences"] = "none"


@dataclass(frozen=True, slots=True)
class StepDeclaration:
    """One step: the name of what is ours, and its checked parameters."""

    use: str
    parameters: BaseModel


@dataclass(frozen=True, slots=True)
class Task:
    """One declared analysis. ``name`` is ``pack.task``; schemas are of our part of JSON Schema."""

    name: str
    pack: str
    version: str
    folder: Path
    title: Mapping[str, str]
    lane: str
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    notice: Mapping[str, str]
    limits: TaskLimits
    entries: EntriesRule | None
    steps: Sequence[StepDeclaration]
    prompts: Mapping[tuple[str, str], Prompt] = field(default_factory=dict)
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lexicons: Mapping[str, Any] = field(default_factory=dict)
    languages: Sequence[Language] = LANGUAGES
    built_in: bool = False

    def generates(self, input: Mapping[str, Any]) -> bool:
        """Whether a run on ``input`` asks the generator: for an answer, or about unsure labels."""
        return any(
            step.use == "generate"
            or (step.use == "classify" and input.get("ask", getattr(step.parameters, "ask", 0)))
            for step in self.steps
        )

    def altered(self, use: str, **parameters: Any) -> Task:
        """Return the task with other parameters of its steps named ``use``, to compare the two."""
        if not any(step.use == use for step in self.steps):
            raise InvalidInput(
                f"task {self.name} has no step {use!r}",
                hint=f"its steps are {', '.join(step.use for step in self.steps)}",
                param="steps",
            )
        steps = [
            replace(
                step,
                parameters=type(step.parameters).model_validate(
                    {**step.parameters.model_dump(), **parameters}
                ),
            )
            if step.use == use
            else step
            for step in self.steps
        ]
        return replace(self, steps=steps)


@dataclass(frozen=True, slots=True)
class Pack:
    """A folder of tasks."""

    name: str
    version: str
    title: Mapping[str, str]
    folder: Path
    tasks: Mapping[str, Task]
    built_in: bool = False


@dataclass(frozen=True, slots=True)
class PackProblem:
    """What is wrong with a pack: where, which rule, and what to do about it."""

    file: str
    key: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.key}" if self.key else self.file
        return f"{place}: {self.rule}"
