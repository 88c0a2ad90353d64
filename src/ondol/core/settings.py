"""Settings: one frozen object, read once, passed down.

Order: flag > ``ONDOL_<SECTION>_<KEY>`` > ``ondol.toml`` > default. Unknown keys are errors that
name the nearest known key. Every field's description says what it is and when to change it.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ondol.core.errors import SettingsError

_TOP_LEVEL = {"ONDOL_HOME", "ONDOL_OFFLINE", "ONDOL_CONFIG", "ONDOL_LOG_LEVEL"}

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Section):
    host: str = Field(
        "127.0.0.1",
        description="Bind address. Change to serve other machines; then API keys are required.",
    )
    port: int = Field(
        8400,
        ge=0,
        le=65535,
        description="TCP port. Change when 8400 is taken; 0 lets the system choose.",
    )
    api_keys: tuple[str, ...] = Field(
        (), description="Accepted bearer keys. Set as soon as anyone but you can reach the port."
    )
    max_body_bytes: Positive = Field(
        64 * 1024 * 1024, description="Largest request body. Raise to upload larger files."
    )
    max_items: Positive = Field(
        2048, description="Most texts, documents or records in one request. Raise for bulk clients."
    )
    max_text_chars: Positive = Field(
        1_000_000, description="Longest single text in characters. Raise for very long records."
    )
    max_connections: Positive = Field(
        512, description="Most open connections. Lower on a machine with few file handles."
    )
    drain_seconds: Seconds = Field(
        20.0,
        description="How long running requests may finish after SIGTERM. Raise for long answers.",
    )
    docs: bool = Field(
        True, description="Serve the OpenAPI pages under /docs. Turn off when exposed."
    )


class ModelSettings(_Section):
    embedder: str = Field(
        "multilingual-e5-small",
        description="Embedding model. Change per language or quality; needs re-ingest.",
    )
    reranker: str = Field(
        "ms-marco-minilm-l12-v2",
        description="Reranking model, or 'none'. Change to match your language.",
    )
    threads: int = Field(
        0, ge=0, description="Threads per encoder; 0 takes the cores this process may use."
    )
    sources: tuple[str, ...] = Field(
        (), description="Extra folders with model files, looked at before any download."
    )
    token_budget: Positive = Field(
        2048,
        description="Most padded tokens in one encoder batch. Lower to save memory, raise on large CPUs.",
    )
    max_batch: Positive = Field(64, description="Most items in one encoder batch.")
    form: Literal["auto", "onnx:fp32", "onnx:int8"] = Field(
        "auto", description="How the default embedder runs. 'onnx:fp32' is the reference form."
    )


class GenerationSettings(_Section):
    model: str = Field(
        "auto",
        description="Generator id, 'auto' (by cores and memory), or 'none'. Change for quality or speed.",
    )
    upstream: str = Field(
        "",
        description="Base URL of an OpenAI-compatible server (…/v1) to use instead of llama.cpp.",
    )
    upstream_key: str = Field("", description="Bearer key for the upstream.")
    context_tokens: Positive = Field(
        4096,
        description="Context of one request, prompt and answer. Raise for long chats; costs memory.",
    )
    slots: Positive = Field(
        2, description="Requests generated at once. Raise on many cores or a GPU."
    )
    threads: int = Field(
        0, ge=0, description="Threads for llama.cpp; 0 takes the cores this process may use."
    )
    batch_tokens: Positive = Field(
        256, description="Prefill chunk in tokens: smaller cancels sooner, larger prefills faster."
    )
    max_tokens: Positive = Field(1024, description="Most tokens one answer may have.")
    queue: Positive = Field(25, description="Most requests waiting for a slot. Beyond it: 429.")
    queue_seconds: Seconds = Field(60.0, description="Longest wait for a slot.")
    first_token_seconds: Seconds = Field(
        120.0, description="Longest wait for the first token once running."
    )
    total_seconds: Seconds = Field(300.0, description="Longest whole generation once running.")
    cache_mb: int = Field(
        0,
        ge=0,
        description="llama.cpp's RAM prompt cache in MiB. Off by default: it may mix conversations (upstream bug).",
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="Where layers are put. 'cpu' forces the processor."
    )


class RetrievalSettings(_Section):
    mode: Literal["hybrid", "dense", "lexical"] = Field(
        "hybrid", description="Default search mode."
    )
    top_k: Positive = Field(10, description="Hits returned by search.")
    candidates: Positive = Field(
        100, description="Candidates each leg hands to fusion. Raise for recall, lower for speed."
    )
    fusion: Literal["scores", "ranks"] = Field(
        "scores",
        description="How the two legs are fused: standardised scores, or reciprocal ranks (RRF).",
    )
    rrf_k: Positive = Field(
        10, description="Reciprocal-rank-fusion constant: smaller trusts the first ranks more."
    )
    dense_weight: Share = Field(0.5, description="Share of the vector leg in fusion.")
    rerank: Literal["auto", "on", "off"] = Field(
        "auto",
        description="'auto' reranks only languages the reranker knows and where it was measured to help.",
    )
    rerank_depth: Positive = Field(20, description="How many fused hits are reranked.")


class AnswerSettings(_Section):
    passages: Positive = Field(5, description="Most passages put before the generator.")
    context_tokens: int = Field(
        0,
        ge=0,
        description="Token budget of the passages; 0 suits it to the machine's prefill speed.",
    )
    max_tokens: Positive = Field(256, description="Most tokens of an answer.")
    min_support: Share = Field(
        0.5,
        description="How much of a statement its cited sentence must cover. Raise to be stricter.",
    )
    min_relevance: Share = Field(
        0.5, description="Below this relevance of the best passage the answer abstains."
    )


class IngestSettings(_Section):
    chunk_chars: Positive = Field(
        400,
        description="Target chunk length in characters. Smaller finds facts, larger keeps context.",
    )
    chunk_overlap: int = Field(
        60, ge=0, description="Characters repeated between neighbouring chunks."
    )
    max_file_bytes: Positive = Field(200 * 1024 * 1024, description="Largest file read.")
    max_pages: Positive = Field(5000, description="Most pages of one PDF.")
    max_chars: Positive = Field(20_000_000, description="Most characters of one document's text.")
    read_seconds: Seconds = Field(120.0, description="Longest time one file may take to read.")


class LaneSettings(_Section):
    embeddings_queue: Positive = Field(
        512, description="Most waiting embedding requests before 429."
    )
    rerank_queue: Positive = Field(128, description="Most waiting rerank requests before 429.")
    queue_seconds: Seconds = Field(60.0, description="Longest wait of an encoder request.")


class Settings(_Section):
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
    generation: GenerationSettings = GenerationSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    answer: AnswerSettings = AnswerSettings()
    ingest: IngestSettings = IngestSettings()
    lanes: LaneSettings = LaneSettings()


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
    keys: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            for key, inner in section.model_fields.items():
                keys[f"{name}.{key}"] = inner.description or ""
        else:
            keys[name] = field.description or ""
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
    pairs: list[tuple[str, Any, str]] = []
    for key, value in data.items():
        if isinstance(value, dict):
            pairs += [(f"{key}.{inner}", v, str(path)) for inner, v in value.items()]
        else:
            pairs.append((key, value, str(path)))
    return pairs


def _from_environ(env: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    by_name = {f"ONDOL_{key.replace('.', '_').upper()}": key for key in known_keys()}
    pairs: list[tuple[str, Any, str]] = []
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


def _parse_list(key: str, value: Any) -> Any:
    if isinstance(value, str) and key in {"server.api_keys", "models.sources"}:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _put(merged: dict[str, Any], dotted: str, value: Any, source: str) -> None:
    known = known_keys()
    if dotted not in known:
        near = difflib.get_close_matches(dotted, known, n=1)
        raise SettingsError(
            f"unknown setting {dotted!r} in {source}",
            hint=f"did you mean {near[0]!r}?" if near else "see `ondol doctor --settings`",
            param=dotted,
        )
    section, _, key = dotted.rpartition(".")
    target = merged.setdefault(section, {}) if section else merged
    target[key] = value
