"""What every section of the settings is made of: a frozen base, and the kinds of numbers.

The sections of the settings, one class each.

Every field's description says what it is and when to change it; the reference page and
``ondol doctor --settings`` are made of them. How they are read is ``settings``' business.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ondol.core.chunk_options import ChunkStrategy

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
FormName = Annotated[
    str, Field(pattern=r"^(auto|[a-z][a-z-]*:[a-z0-9_-]+(@[a-z0-9]+)?(\+trimmed)?)$")
]


class SettingsSection(BaseModel):
    """A frozen group of settings; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(SettingsSection):
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
    key_lanes: tuple[str, ...] = Field(
        (),
        description="Lanes of keys, as KEY=LANE or KEY=LANE:SHARE (share of the lane's places). Set to "
        "keep one client from taking all.",
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


class ModelSettings(SettingsSection):
    embedder: str = Field(
        "multilingual-e5-small",
        description="Embedding model, or 'none' for a server that only generates and finds words. "
        "Change per language or quality; needs re-ingest.",
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
    memory_low_mb: int = Field(
        1024,
        ge=0,
        description="Free memory (MB) below which a batch gets a quarter of token_budget. "
        "Lower on a small machine that is often this full; 0 never.",
    )
    memory_tight_mb: int = Field(
        2048,
        ge=0,
        description="Free memory (MB) below which a batch gets half of token_budget; 0 never.",
    )
    form: FormName = Field(
        "auto",
        description="Form of the embedder, such as onnx:int8. 'auto' leaves it to models.optimize.",
    )
    reranker_form: FormName = Field(
        "auto", description="Form of the reranker. 'auto' leaves it to models.optimize."
    )
    optimize: Literal["auto", "recipe", "off"] = Field(
        "auto",
        description="'auto' takes what `ondol tune` found here, 'recipe' FP16 on GPU and INT8 on CPU, "
        "'off' the reference form. USE_OPTIMIZED_MODELS=true|false is an alias of auto|off.",
    )
    gpu_memory_fraction: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Share of a GPU's memory that encoders may take. Lower it where the generator "
        "or another program uses the same GPU.",
    )
    keep_alive: float = Field(
        0.0,
        ge=0,
        description="Seconds without a request after which an encoder is unloaded; 0 never. "
        "Set where memory is short: the next request waits for the load.",
    )


class AbSettings(SettingsSection):
    """A second form or model beside the one in service, compared live."""

    component: Literal["embedder", "reranker"] = Field(
        "embedder", description="Which model the candidate is compared with."
    )
    candidate: str = Field(
        "", description="A form (onnx:fp32) or a model id to try. Empty turns the comparison off."
    )
    share: Share = Field(0.1, description="Share of requests the candidate gets too, or answers.")
    mode: Literal["shadow", "split"] = Field(
        "shadow",
        description="'shadow' runs it beside and never returns its answer; 'split' lets it answer: "
        "rerankers, or forms of the same embedder.",
    )

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        """Vectors of two models mean nothing to each other: one index must not hold both."""
        another = bool(self.candidate) and ":" not in self.candidate
        if self.mode == "split" and self.component == "embedder" and another:
            raise ValueError(
                f"vectors of {self.candidate} are not comparable with those of models.embedder; "
                "name a form of it (onnx:fp32), or use ab.mode = shadow"
            )
        return self


class FidelitySettings(SettingsSection):
    max_loss: Share = Field(
        0.03,
        description="Largest loss against the reference form with which a form passes the gate. "
        "Lower it where answers must not change; see docs/guides/tuning.md.",
    )
    default_max_loss: Share = Field(
        0.005,
        description="Largest loss of a form that `ondol tune` may choose by itself. "
        "Raise it to trade fidelity for speed.",
    )


class GenerationSettings(SettingsSection):
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
        4, description="Requests generated at once. Raise on many cores or a GPU."
    )
    threads: int = Field(
        0, ge=0, description="Threads for llama.cpp; 0 takes the cores this process may use."
    )
    batch_tokens: int = Field(
        0,
        ge=0,
        description="Prefill chunk in tokens; 0 takes what is read in about 250 ms, which others wait "
        "for. Smaller cancels sooner, larger prefills faster.",
    )
    form: FormName = Field(
        "auto",
        description="Form of the generator: llamacpp:portable, llamacpp:native "
        "(`ondol models build llamacpp`). 'auto' takes what `ondol tune` found here, else a native "
        "build where there is one.",
    )
    adapters: tuple[str, ...] = Field(
        (),
        description="LoRA adapters for llama.cpp, each name=path.gguf (or name=path.gguf@0.5 for half "
        "strength); a request chooses one by its name as the model.",
    )
    max_tokens: Positive = Field(1024, description="Most tokens one answer may have.")
    policy: Literal["slo", "sjf", "fifo"] = Field(
        "slo",
        description="Who is next: by work and slack with early refusal, shortest job first with "
        "aging, or first come first served. Change to compare; see docs/concepts/lanes.md.",
    )
    age_seconds: Seconds = Field(
        30.0,
        description="A request without a deadline that has waited so long goes before others. "
        "Lower where bulk work must not wait.",
    )
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


class RetrievalSettings(SettingsSection):
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
    dense_weight: Share = Field(
        0.5,
        description="Share of the vector leg in fusion, where none was measured for the collection.",
    )
    calibration: Literal["on", "off"] = Field(
        "on",
        description="'on' uses what `ondol eval calibrate` measured for a collection. Turn off to "
        "compare with the settings alone.",
    )
    rerank: Literal["auto", "on", "off"] = Field(
        "auto",
        description="'auto' reranks a language where `ondol eval calibrate --rerank` measured a gain, "
        "and where nothing was measured those the reranker is made for.",
    )
    rerank_depth: Positive = Field(20, description="How many fused hits are reranked.")
    rewrite: Literal["off", "rules", "generator"] = Field(
        "rules",
        description="How a follow-up question is completed from earlier turns: by rules, or by the "
        "generator, which takes seconds. 'off' searches for follow-ups as they are.",
    )
    rewrite_seconds: Seconds = Field(
        5.0, description="How long the generator may take to rewrite; then the rules hold."
    )
    read: Literal["passage", "parent"] = Field(
        "passage",
        description="What a hit is: the passage found, or what stands around it in its article, section "
        "or record ('parent'). Change where answers need more context than one passage.",
    )
    parent_chars: Positive = Field(
        1200, description="Most characters of a hit where retrieval.read is 'parent'."
    )
    law_names: str = Field(
        "",
        description='TOML file of further short names of laws, as in `"근로기준법" = ["근기법"]`. '
        "Set it when questions name laws or house rules in a way of their own.",
    )


class AnswerSettings(SettingsSection):
    passages: Positive = Field(5, description="Most passages put before the generator.")
    context_tokens: int = Field(
        0,
        ge=0,
        description="Token budget of the passages; 0 suits it to the machine's prefill speed.",
    )
    read_seconds: Seconds = Field(
        2.0,
        description="How long the generator may read passages where answer.context_tokens is 0. "
        "Lower for a sooner first token, raise where answers need more context.",
    )
    max_tokens: Positive = Field(256, description="Most tokens of an answer.")
    min_support: Share = Field(
        0.5,
        description="How much of a statement its cited sentence must cover. Raise to be stricter.",
    )
    min_relevance: Share = Field(
        0.5, description="Below this relevance of the best passage the answer abstains."
    )


class IngestSettings(SettingsSection):
    chunking: ChunkStrategy = Field(
        "auto",
        description="How new collections are cut. 'auto' recognises statutes, judgments, records and "
        "headings; name one where the documents are of one kind. See docs/concepts/reading.md.",
    )
    chunk_chars: Positive = Field(
        400,
        description="Target chunk length in characters for new collections. Smaller finds facts, "
        "larger keeps context.",
    )
    chunk_overlap: int = Field(
        60, ge=0, description="Characters repeated between neighbouring chunks."
    )
    max_file_bytes: Positive = Field(200 * 1024 * 1024, description="Largest file read.")
    max_pages: Positive = Field(5000, description="Most pages of one PDF.")
    max_chars: Positive = Field(20_000_000, description="Most characters of one document's text.")
    read_seconds: Seconds = Field(120.0, description="Longest time one file may take to read.")
    ocr: Literal["off", "tesseract"] = Field(
        "off",
        description="'tesseract' has scanned PDF pages recognised by the program of that name, where it "
        "is installed. Raise ingest.read_seconds with it.",
    )
    ocr_languages: str = Field(
        "kor+eng",
        pattern=r"^[A-Za-z0-9_]+(\+[A-Za-z0-9_]+)*$",
        description="Languages of scans, as tesseract names them; their data must be installed.",
    )
    ocr_page_seconds: Seconds = Field(
        20.0, description="Longest time for one scanned page; then it stays an image."
    )


class VectorSettings(SettingsSection):
    index: Literal["auto", "exact", "ann", "postgres"] = Field(
        "auto",
        description="What finds the nearest vectors: every row compared (exact), a graph above "
        "vectors.ann_above (ann; extra `ann`), or pgvector. 'auto' takes the graph where installed.",
    )
    ann_above: Positive = Field(
        50_000, description="Vectors in a collection from which on the graph is used."
    )
    postgres_url: str = Field(
        "",
        description="PostgreSQL with pgvector 0.8.4 or later, for 'postgres' (extra `postgres`).",
    )
    postgres_schema: str = Field("ondol", description="Schema of the tables there.")


class CacheSettings(SettingsSection):
    embeddings: Literal["memory", "sqlite", "redis", "off"] = Field(
        "memory",
        description="Where vectors of texts seen before are kept. 'sqlite' keeps them over a restart, "
        "those of deleted documents too; 'redis' shares them between servers.",
    )
    memory_mb: Positive = Field(
        64,
        description="Memory for the vectors used last, in MiB (about 550 texts of 384 dimensions each). "
        "Raise for many repeated texts, lower where memory is short.",
    )
    disk_mb: Positive = Field(
        1024,
        description="Largest embeddings.db in MiB (about 600 texts each), for 'sqlite'. "
        "Raise so that everything you ingest fits.",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="The Redis to use, for 'redis': redis://, rediss:// or unix://.",
    )
    ttl_seconds: Seconds = Field(
        604_800.0,
        description="How long Redis keeps a vector. Lower where Redis is small or texts must go soon.",
    )
