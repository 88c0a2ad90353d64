"""A pack's folder read and checked: TOML, JSON schemas, templates, lexicons, classifiers.

Everything wrong is collected, not only the first: each problem names file, key, rule and remedy. What a
pack may refer to lies inside its folder. Knows no model and runs nothing; a pack brings no code.

The shape of ``pack.toml``: which keys there are and of what kind; unknown keys are errors.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ondol.core.errors import InvalidInput, NotFound
from ondol.core.settings.lane_sections import LANES
from ondol.packs.reviews.aspect_lexicon import lexicon_faults
from ondol.tasks.classifier import load_classifier
from ondol.tasks.declaration import (
    LANGUAGES,
    EntriesRule,
    Language,
    Pack,
    PackProblem,
    StepDeclaration,
    Task,
    TaskLimits,
)
from ondol.tasks.json_schema import faults_of
from ondol.tasks.steps import STEPS
from ondol.tasks.steps.step import Parameters
from ondol.tasks.templates import Prompt, read_prompt

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
_Texts = Mapping[str, str]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LimitsTable(_Table):
    """``[tasks.NAME.limits]``."""

    max_items: int = Field(2_000, gt=0, le=100_000)
    max_chars: int = Field(1_000_000, gt=0, le=50_000_000)
    prompt_tokens: int = Field(1_500, gt=0, le=32_000)
    answer_tokens: int = Field(300, gt=0, le=4_000)
    seconds: float = Field(120.0, gt=0, le=86_400)


class EntriesTable(_Table):
    """``[tasks.NAME.entries]``."""

    field: str
    marker: Annotated[str, Field(pattern=r"^[a-z]$")] = "r"
    split: Literal["none", "sentences"] = "none"


class TaskTable(_Table):
    """``[tasks.NAME]``."""

    title: _Texts
    lane: str
    input: str
    output: str
    notice: _Texts = Field(default_factory=dict)
    limits: LimitsTable = LimitsTable()
    entries: EntriesTable | None = None
    steps: list[dict[str, Any]] = Field(min_length=1, max_length=32)


class PackTable(_Table):
    """The whole file."""

    name: _Name
    version: str
    title: _Texts
    languages: list[Literal["ko", "en"]] = Field(min_length=1)
    tasks: dict[str, TaskTable] = Field(min_length=1)


def strange_languages(texts: Mapping[str, str]) -> list[str]:
    """Return the languages of a table of texts that are none of ours."""
    return sorted(set(texts) - set(LANGUAGES))


def shape_problems(file: str, error: ValidationError, *, at: str = "") -> Iterator[PackProblem]:
    """Yield a problem for everything pydantic found."""
    for one in error.errors():
        key = at + ".".join(str(part) for part in one["loc"])
        unknown = one["type"] == "extra_forbidden"
        rule = (
            "the key is unknown" if unknown else f"{one['msg']} (it is {str(one['input'])[:60]!r})"
        )
        remedy = "take it out, or mend its spelling" if unknown else "see docs/guides/packs.md"
        yield PackProblem(file, key.rstrip("."), rule, remedy)


PACK_FILE = "pack.toml"
_MOST_BYTES = 1_000_000
_CODE = (".py", ".pyc", ".so", ".pyd", ".pkl", ".pickle")


def check_pack(folder: Path, *, built_in: bool = False) -> list[PackProblem]:
    """Return everything wrong with the pack in ``folder``; nothing where it may be used."""
    return _Reading(folder, built_in=built_in).read()[1]


def read_pack(folder: Path, *, built_in: bool = False) -> Pack:
    """Return the pack in ``folder``; raises ``InvalidInput`` for the first of its problems."""
    pack, problems = _Reading(folder, built_in=built_in).read()
    if pack is None or problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise InvalidInput(
            f"the pack in {folder} cannot be used: {first}{more}",
            hint=first.remedy,
            code="invalid_pack",
            param=f"{first.file}:{first.key}",
        )
    return pack


@dataclass(slots=True)
class _Reading:
    """One folder being read."""

    folder: Path
    built_in: bool = False
    problems: list[PackProblem] = field(default_factory=list)

    def read(self) -> tuple[Pack | None, list[PackProblem]]:
        table = self._table()
        if table is None:
            return None, self.problems
        self._refuse_code()
        for language in strange_languages(table.title):
            self._say(PACK_FILE, f"title.{language}", "it is no language of ours", "use ko or en")
        tasks = {}
        for name, row in table.tasks.items():
            if not NAME.fullmatch(name):
                self._say(PACK_FILE, f"tasks.{name}", "a name is a-z, 0-9 and _", "rename it")
                continue
            tasks[f"{table.name}.{name}"] = self._task(table, name, row)
        return (
            Pack(
                name=table.name,
                version=table.version,
                title=table.title,
                folder=self.folder,
                tasks=tasks,
                built_in=self.built_in,
            ),
            self.problems,
        )

    def _say(self, file: str, key: str, rule: str, remedy: str) -> None:
        self.problems.append(PackProblem(file, key, rule, remedy))

    def _table(self) -> PackTable | None:
        text = self._text(PACK_FILE, "", "write a pack.toml; see docs/guides/packs.md")
        if text is None:
            return None
        try:
            return PackTable.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            self._say(PACK_FILE, "", f"it is not valid TOML: {error}", "mend the line named")
        except ValidationError as error:
            self.problems += shape_problems(PACK_FILE, error)
        return None

    def _refuse_code(self) -> None:
        if self.built_in:  # the plug-ins of a shipped pack's field are part of Ondol
            return
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in _CODE:
                name = str(path.relative_to(self.folder))
                self._say(name, "", "a pack holds no code", "take the file away")

    def _task(self, table: PackTable, name: str, row: TaskTable) -> Task:
        key = f"tasks.{name}"
        if row.lane not in LANES:
            self._say(
                PACK_FILE,
                f"{key}.lane",
                f"there is no lane {row.lane!r}",
                f"use one of {', '.join(LANES)}",
            )
        languages: tuple[Language, ...] = tuple(one for one in LANGUAGES if one in table.languages)
        schemas: dict[str, Mapping[str, Any]] = {}
        prompts: dict[tuple[str, str], Prompt] = {}
        lexicons: dict[str, Any] = {}
        steps: list[StepDeclaration] = []
        for number, given in enumerate(row.steps):
            step = self._step(f"{key}.steps[{number}]", given)
            if step is None:
                continue
            steps.append(step)
            parameters = step.parameters
            if not isinstance(parameters, Parameters):
                continue
            for parameter, kind, file in parameters.needs():
                place = f"{key}.steps[{number}].{parameter}"
                if kind == "schema":
                    schemas[file] = self._schema(file, place)
                elif kind == "prompt":
                    prompts |= self._prompts(file or name, place, languages)
                elif kind == "lexicon":
                    lexicons[file] = self._lexicon(file, place, languages)
                else:
                    self._classifier(file, place, languages)
        input, output = (
            self._schema(row.input, f"{key}.input"),
            self._schema(row.output, f"{key}.output"),
        )
        entries = self._entries(key, row, input)
        self._output(key, row, output)
        return Task(
            name=f"{table.name}.{name}",
            pack=table.name,
            version=table.version,
            folder=self.folder,
            title=row.title,
            lane=row.lane,
            input=input,
            output=output,
            notice=row.notice,
            limits=TaskLimits(**row.limits.model_dump()),
            entries=entries,
            steps=tuple(steps),
            prompts=prompts,
            schemas=schemas,
            lexicons=lexicons,
            languages=languages,
            built_in=self.built_in,
        )

    def _entries(self, key: str, row: TaskTable, schema: Mapping[str, Any]) -> EntriesRule | None:
        if row.entries is None:
            return None
        if row.entries.field not in schema.get("properties", {}):
            self._say(
                PACK_FILE,
                f"{key}.entries.field",
                f"{row.entries.field!r} is no field of the input",
                f"name one of {', '.join(schema.get('properties', {})) or 'its properties'}",
            )
        return EntriesRule(**row.entries.model_dump())

    def _output(self, key: str, row: TaskTable, schema: Mapping[str, Any]) -> None:
        """A result is only what its schema names, so the schema must be closed."""
        if schema and schema.get("additionalProperties", True) is not False:
            self._say(
                row.output,
                "additionalProperties",
                f"the output of {key} is not closed",
                'write "additionalProperties": false',
            )

    def _step(self, place: str, given: Mapping[str, Any]) -> StepDeclaration | None:
        values = dict(given)
        use = values.pop("use", None)
        if use not in STEPS:
            self._say(
                PACK_FILE,
                f"{place}.use",
                f"there is no step {use!r}",
                f"use one of {', '.join(STEPS)}",
            )
            return None
        try:
            return StepDeclaration(use, STEPS[use].parameters.model_validate(values))
        except ValidationError as error:
            self.problems += shape_problems(PACK_FILE, error, at=f"{place}.")
            return None

    def _schema(self, file: str, place: str) -> Mapping[str, Any]:
        text = self._text(file, place, "write a JSON schema there")
        if text is None:
            return {}
        try:
            schema = json.loads(text)
        except ValueError as error:
            self._say(file, "", f"it is not valid JSON: {error}", "mend the line named")
            return {}
        for at, rule in faults_of(schema):
            self._say(file, at, rule, "see docs/guides/packs.md for what schemas may say")
        return schema if isinstance(schema, Mapping) else {}

    def _prompts(
        self, name: str, place: str, languages: tuple[Language, ...]
    ) -> dict[tuple[str, str], Prompt]:
        found: dict[tuple[str, str], Prompt] = {}
        for language in languages:
            file = f"prompts/{name}.{language}.txt"
            text = self._text(file, place, "write the template for each of the pack's languages")
            if text is None:
                continue
            prompt, faults = read_prompt(text)
            for key, rule in faults:
                self._say(file, key, rule, "see docs/guides/packs.md for what templates may say")
            if prompt is not None:
                found[name, language] = prompt
        return found

    def _lexicon(self, file: str, place: str, languages: tuple[Language, ...]) -> Any:
        text = self._text(file, place, "write the lexicon there")
        try:
            table = tomllib.loads(text) if text is not None else None
        except tomllib.TOMLDecodeError as error:
            self._say(file, "", f"it is not valid TOML: {error}", "mend the line named")
            return None
        if table is not None:
            for key, rule in lexicon_faults(table, languages):
                self._say(file, key, rule, "see docs/guides/packs.md for what a lexicon holds")
        return table

    def _classifier(self, file: str, place: str, languages: tuple[Language, ...]) -> None:
        for language in languages:
            relative = file.replace("{language}", language)
            path = self._inside(relative, place)
            if path is None:
                continue
            try:
                load_classifier(path)
            except (InvalidInput, NotFound) as error:
                self._say(relative, place, error.message, "train it with `ondol task train`")

    def _inside(self, file: str, place: str) -> Path | None:
        path = (self.folder / file).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            self._say(
                PACK_FILE,
                place,
                f"{file!r} lies outside the pack",
                "keep what a pack uses in its folder",
            )
            return None
        return path

    def _text(self, file: str, place: str, remedy: str) -> str | None:
        path = self._inside(file, place)
        if path is None:
            return None
        try:
            if path.stat().st_size > _MOST_BYTES:
                self._say(
                    file, place, f"it is larger than {_MOST_BYTES:,} bytes", "make it smaller"
                )
                return None
            return path.read_text("utf-8-sig")
        except UnicodeDecodeError:
            self._say(file, place, "it is not UTF-8 text", "save it as UTF-8")
        except OSError:
            self._say(file, place, "the file is not there or cannot be read", remedy)
        return None
