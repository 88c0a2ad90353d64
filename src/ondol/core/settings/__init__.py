"""Settings: one frozen object, read once, passed down.

Order: flag > ``ONDOL_<SECTION>_<KEY>`` > ``ondol.toml`` > default. Unknown keys are errors that
name the nearest known key. Every field's description says what it is and when to change it.
"""

from __future__ import annotations

import difflib
import os
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from ondol.core.errors import SettingsError
from ondol.core.settings.lane_sections import LanesSettings
from ondol.core.settings.operation_sections import (
    JobSettings,
    ResourceSettings,
    TaskSettings,
    TelemetrySettings,
    WatchdogSettings,
)
from ondol.core.settings.sections import (
    AbSettings,
    AnswerSettings,
    CacheSettings,
    FidelitySettings,
    GenerationSettings,
    IngestSettings,
    ModelSettings,
    RetrievalSettings,
    ServerSettings,
    SettingsSection,
    VectorSettings,
)

_OPTIMIZED = "USE_OPTIMIZED_MODELS"
_TRUTH = {"true": "auto", "1": "auto", "false": "off", "0": "off"}
_LISTS = {
    "server.api_keys",
    "server.key_lanes",
    "models.sources",
    "generation.adapters",
    "tasks.packs",
}
_TOP_LEVEL = {"ONDOL_HOME", "ONDOL_OFFLINE", "ONDOL_CONFIG", "ONDOL_LOG_LEVEL"}


class Settings(SettingsSection):
    """All settings. ``home`` holds ``ondol.db``, ``vectors/``, ``models/`` and ``profile.json``."""

    home: Path = Field(
        default_factory=lambda: Path.home() / ".local/share/ondol",
        description="Where state lives (ONDOL_HOME).",
    )
    offline: bool = Field(False, description="Never touch the network (ONDOL_OFFLINE=1).")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line written."
    )
    server: ServerSettings = ServerSettings()
    models: ModelSettings = ModelSettings()
    ab: AbSettings = AbSettings()
    fidelity: FidelitySettings = FidelitySettings()
    generation: GenerationSettings = GenerationSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    answer: AnswerSettings = AnswerSettings()
    ingest: IngestSettings = IngestSettings()
    lanes: LanesSettings = LanesSettings()
    tasks: TaskSettings = TaskSettings()
    jobs: JobSettings = JobSettings()
    cache: CacheSettings = CacheSettings()
    vectors: VectorSettings = VectorSettings()
    resources: ResourceSettings = ResourceSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    telemetry: TelemetrySettings = TelemetrySettings()


def load_settings(
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Settings:
    """Read settings from all sources; ``flags`` maps dotted keys (``server.port``) to values.

    Raises ``SettingsError`` naming the key, the source and the nearest known key.
    """
    merged: dict[str, Any] = {}
    for dotted, value, source in _said(flags=flags, environ=environ, config=config):
        _put(merged, dotted, value, source)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"setting {key} = {first.get('input')!r}: {first['msg']}",
            hint=f"see `ondol doctor --settings` for what {key} accepts",
            param=key,
        ) from None


def setting_sources(
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> dict[str, str]:
    """Return, for every setting said somewhere, who has the last word: a file, a variable, a flag."""
    said = _said(flags=flags, environ=environ, config=config)
    return {dotted: source for dotted, _, source in said}


def known_keys() -> dict[str, str]:
    """Return every dotted key with its description."""
    return _keys_of(Settings, "")


def _keys_of(section: type[BaseModel], prefix: str) -> dict[str, str]:
    keys: dict[str, str] = {}
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys |= _keys_of(inner, f"{prefix}{name}.")
        else:
            keys[f"{prefix}{name}"] = field.description or ""
    return keys


def _said(
    *,
    flags: Mapping[str, Any] | None,
    environ: Mapping[str, str] | None,
    config: Path | None,
) -> list[tuple[str, Any, str]]:
    """Return (key, value, source) from all sources, weakest first."""
    env = os.environ if environ is None else environ
    given = ((key, value) for key, value in (flags or {}).items() if value is not None)
    return [
        *_from_file(config, env),
        *_from_environ(env),
        *((key, _parse_list(key, value), "flag") for key, value in given),
    ]


def _from_file(config: Path | None, env: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    named = config or (Path(env["ONDOL_CONFIG"]) if env.get("ONDOL_CONFIG") else None)
    path = named or Path("ondol.toml")
    if not path.exists():
        if named is None:
            return []
        raise SettingsError(
            f"settings file {path} does not exist", hint="check --config or ONDOL_CONFIG"
        )
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} is not valid TOML: {error}", hint="mend the line named"
        ) from None
    return [(key, value, str(path)) for key, value in _flat(data, "")]


def _flat(table: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Return the dotted keys of nested tables with their values."""
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def _from_environ(env: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    by_name = {f"ONDOL_{key.replace('.', '_').upper()}": key for key in known_keys()}
    pairs = _from_alias(env)
    for name, value in env.items():
        if not name.startswith("ONDOL_") or name == "ONDOL_CONFIG":
            continue
        key = by_name.get(name)
        if key is None:
            near = difflib.get_close_matches(name, [*by_name, *_TOP_LEVEL], n=1)
            raise SettingsError(
                f"environment variable {name} is not a setting",
                hint=f"did you mean {near[0]}?" if near else "see `ondol doctor --settings`",
                param=name,
            )
        if value != "":
            pairs.append((key, _parse_list(key, value), name))
    return pairs


def _from_alias(env: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    """Return what ``USE_OPTIMIZED_MODELS`` says; ``ONDOL_MODELS_OPTIMIZE`` has the last word."""
    value = env.get(_OPTIMIZED, "").strip().lower()
    if not value:
        return []
    if value not in _TRUTH:
        raise SettingsError(
            f"{_OPTIMIZED} = {env[_OPTIMIZED]!r}, it is true or false",
            hint="or set ONDOL_MODELS_OPTIMIZE to auto, recipe or off",
            param=_OPTIMIZED,
        )
    return [("models.optimize", _TRUTH[value], _OPTIMIZED)]


def _parse_list(key: str, value: Any) -> Any:
    if isinstance(value, str) and key in _LISTS:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, str) and key == "watchdog.command":
        return _parse_command(key, value)
    return value


def _parse_command(key: str, value: str) -> tuple[str, ...]:
    """Return program and arguments, quoted as in a shell; no shell ever reads them."""
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise SettingsError(
            f"setting {key} = {value!r}: {error}", hint="close the quotation marks", param=key
        ) from None


def _put(merged: dict[str, Any], dotted: str, value: Any, source: str) -> None:
    known = known_keys()
    if dotted not in known:
        near = difflib.get_close_matches(dotted, known, n=1)
        raise SettingsError(
            f"unknown setting {dotted!r} in {source}",
            hint=f"did you mean {near[0]!r}?" if near else "see `ondol doctor --settings`",
            param=dotted,
        )
    *sections, key = dotted.split(".")
    target = merged
    for section in sections:
        target = target.setdefault(section, {})
    target[key] = value
