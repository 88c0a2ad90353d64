"""The steps that tasks are made of, by name: the one table of what a pack may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ondol.tasks.step_context import StepContext
from ondol.tasks.steps.aspects import Aspects, AspectsParameters
from ondol.tasks.steps.classify import Classify, ClassifyParameters
from ondol.tasks.steps.contrast import Contrast, ContrastParameters
from ondol.tasks.steps.fields import Fields, FieldsParameters
from ondol.tasks.steps.generate import Generate, GenerateParameters
from ondol.tasks.steps.represent import Represent, RepresentParameters
from ondol.tasks.steps.retrieve import Retrieve, RetrieveParameters
from ondol.tasks.steps.step import Parameters, Step
from ondol.tasks.steps.tags import Tags, TagsParameters
from ondol.tasks.steps.verify import Verify, VerifyParameters


@dataclass(frozen=True, slots=True)
class StepKind:
    """A step that packs may use: its parameters, and how it is made."""

    parameters: type[Parameters]
    make: Callable[[Any, StepContext], Step]


STEPS: dict[str, StepKind] = {
    "aspects": StepKind(AspectsParameters, Aspects),
    "classify": StepKind(ClassifyParameters, Classify),
    "contrast": StepKind(ContrastParameters, Contrast),
    "fields": StepKind(FieldsParameters, Fields),
    "generate": StepKind(GenerateParameters, Generate),
    "represent": StepKind(RepresentParameters, Represent),
    "retrieve": StepKind(RetrieveParameters, Retrieve),
    "tags": StepKind(TagsParameters, Tags),
    "verify": StepKind(VerifyParameters, Verify),
}
