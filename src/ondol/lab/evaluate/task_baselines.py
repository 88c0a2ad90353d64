"""What a task is compared with: everything in the prompt, or nothing looked up. Pure.

``all``: the same task, but every entry goes before the generator, in the order of the input, as far as
the context allows. ``no-retrieval``: the same task without its collections; the generator names
provisions and precedents from what it knows, and nothing takes out what does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from ondol.core.errors import InvalidInput
from ondol.tasks.declaration import EntriesRule, StepDeclaration, Task
from ondol.tasks.steps.generate import GenerateParameters
from ondol.tasks.steps.represent import RepresentParameters
from ondol.tasks.steps.retrieve import RetrieveParameters
from ondol.tasks.steps.verify import VerifyParameters
from ondol.tasks.task_answers import MARKERS

Baseline = Literal["all", "no-retrieval"]
BASELINES: tuple[Baseline, ...] = ("all", "no-retrieval")

FRAME_TOKENS = 700
"""What a prompt holds beside its entries: instructions, the list of topics, the chat template."""
_LEAST = 256
_NAME = {"type": "string", "minLength": 4, "maxLength": 60}
_NOTE = {
    "ko": "- 법령과 판례는 주어지지 않습니다. 아는 대로 '민법 제750조'처럼 법률 이름과 조문, 사건번호를 적습니다.",
    "en": "- No provisions or precedents are given. Name them from what you know: the law, its article.",
}


def baseline_of(task: Task, baseline: Baseline, *, context_tokens: int) -> Task:
    """Return ``task`` as the baseline runs it; raises ``InvalidInput`` where it has no such baseline.

    ``context_tokens`` is what one request may hold, prompt and answer.
    """
    if baseline == "all":
        room = context_tokens - task.limits.answer_tokens - FRAME_TOKENS
        return task.altered("represent", method="all", clauses=False, tokens=max(room, _LEAST))
    return _without_retrieval(task)


def _without_retrieval(task: Task) -> Task:
    retrieving = [s.parameters for s in task.steps if isinstance(s.parameters, RetrieveParameters)]
    asking = [s.parameters for s in task.steps if isinstance(s.parameters, GenerateParameters)]
    if not retrieving or not asking:
        raise InvalidInput(
            f"task {task.name} has no baseline no-retrieval: it does not both retrieve and generate",
            hint="leave --baseline no-retrieval out",
            param="baseline",
        )
    gone = {f"{MARKERS}:{one.marker}" for one in retrieving}
    if task.entries is None:
        gone.add(MARKERS)
    schemas = dict(task.schemas)
    changed: dict[str, Any] = {}
    for parameters in asking:
        before = schemas[parameters.answer]
        after = schemas[parameters.answer] = _named(before, gone)
        changed |= {
            key: inner
            for key, inner in after.get("properties", {}).items()
            if inner != before["properties"][key]
        }
    steps = [step for step in task.steps if _stays(step, changed)]
    entries = task.entries
    if entries is None:
        entries = EntriesRule(field=retrieving[0].query, marker="s", split="sentences")
        whole = RepresentParameters(method="all", order="text", into="", tokens=100_000)
        steps.insert(0, StepDeclaration("represent", whole))
    prompts = {
        (name, language): replace(prompt, system=f"{prompt.system}\n{_NOTE[language]}")
        for (name, language), prompt in task.prompts.items()
    }
    output = {
        **task.output,
        "properties": {
            **task.output["properties"],
            **{key: _loose(one) for key, one in changed.items()},
        },
    }
    return replace(
        task, entries=entries, steps=steps, schemas=schemas, output=output, prompts=prompts
    )


def _stays(step: StepDeclaration, changed: Mapping[str, Any]) -> bool:
    """Whether a step still makes sense where the rows of ``changed`` cite nothing."""
    if isinstance(step.parameters, VerifyParameters):
        return changed.keys().isdisjoint(step.parameters.claims)
    return step.use not in ("retrieve", "tags")


def _named(schema: Mapping[str, Any], gone: set[str]) -> dict[str, Any]:
    """Return ``schema`` with a name, in words, in place of evidence by markers that are gone."""
    made = dict(schema)
    if "items" in made:
        made["items"] = _named(made["items"], gone)
    properties = made.get("properties")
    if not isinstance(properties, Mapping):
        return made
    kept: dict[str, Any] = {}
    for key, inner in properties.items():
        if not _cites(inner, gone):
            kept[key] = _named(inner, gone)
        elif "text" not in properties:
            kept["name"] = dict(_NAME)
    required = [key if key in kept else "name" for key in made.get("required", ())]
    made["properties"] = kept
    made["required"] = [key for key in dict.fromkeys(required) if key in kept]
    return made


def _cites(schema: Mapping[str, Any], gone: set[str]) -> bool:
    enum = schema.get("items", {}).get("enum") or schema.get("enum") or ()
    return any(one in gone for one in enum)


def _loose(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part of an answer's schema as a result may hold it: empty, or null, as well."""
    made = {key: value for key, value in schema.items() if key not in ("minItems", "maxItems")}
    if made.get("type") == "object":
        made["type"] = ["object", "null"]
    return made
