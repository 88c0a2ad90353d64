"""The table of metrics: every name, unit, label and bucket that ``/metrics`` can show.

Series whose label values are known exist before the first request (``before``), so that a rate over
them starts at zero. ``read`` series are looked up when asked for; the others are counted as events
come. Dashboards and alert rules may use what stands here, and a test holds them to it.

The rows of the metrics table about models, batches, caches and documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ondol.core.errors import RequestOutcome
from ondol.core.settings.lane_sections import LANES

GENERATING = tuple(lane for lane in LANES if lane not in {"embeddings", "rerank"})
OUTCOMES = get_args(RequestOutcome)
REFUSALS = (
    *("overloaded", "share_used", "shed", "not_ready", "draining"),
    *("deadline_infeasible", "deadline_lapsed", "deadline_unreachable"),
    "queue_deadline_exceeded",
)
DEADLINES = ("met", "missed", "refused")
MODEL_STATES = ("cold", "loading", "starting", "ready", "restarting", "failed", "closed")

WAIT = (
    *(0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0),
    *(300.0, 1800.0),
)
WORK = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0),
    *(15.0, 30.0, 60.0, 120.0, 300.0),
)
STEP = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0, 2.0, 5.0)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
AGREEMENT = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1.0)
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
ERRORS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Series:
    """One row: what is measured, in which unit, split by which labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    before: tuple[Mapping[str, str], ...] = ()
    read: bool = False


def each(**values: Sequence[str]) -> tuple[Mapping[str, str], ...]:
    """Return every combination of the label values."""
    rows: list[dict[str, str]] = [{}]
    for label, known in values.items():
        rows = [{**row, label: value} for row in rows for value in known]
    return tuple(rows)


_LANES = each(lane=LANES)
_GENERATING = each(lane=GENERATING)

REQUESTS: tuple[Series, ...] = (
    Series(
        "ondol_requests",
        "counter",
        "Requests by lane and how they ended.",
        ("lane", "outcome"),
        before=each(lane=LANES, outcome=OUTCOMES),
    ),
    Series(
        "ondol_refusals",
        "counter",
        "Refused requests by lane and reason.",
        ("lane", "code"),
        before=each(lane=LANES, code=REFUSALS),
    ),
    Series(
        "ondol_deadlines",
        "counter",
        "Requests with a deadline: met, missed although admitted, or refused (a broken promise too).",
        ("lane", "result"),
        before=each(lane=LANES, result=DEADLINES),
    ),
    Series(
        "ondol_request_queue_seconds",
        "histogram",
        "Time a request waited before its work began.",
        ("lane",),
        WAIT,
        _LANES,
    ),
    Series(
        "ondol_request_inference_seconds",
        "histogram",
        "Time a request spent in a model.",
        ("lane",),
        WORK,
        _LANES,
    ),
    Series(
        "ondol_request_total_seconds",
        "histogram",
        "Time from a request's arrival to its end, refusals too.",
        ("lane",),
        WORK,
        _LANES,
    ),
    Series(
        "ondol_first_token_seconds",
        "histogram",
        "Time from a request's arrival to its first generated token.",
        ("lane",),
        WORK,
        _GENERATING,
    ),
    Series(
        "ondol_first_token_error_ratio",
        "histogram",
        "How far the predicted time to the first token was off, as a share of the real one.",
        ("lane",),
        ERRORS,
        _GENERATING,
    ),
    Series(
        "ondol_time_per_output_token_seconds",
        "histogram",
        "Mean time per generated token after the first, one request (TPOT).",
        ("lane",),
        STEP,
        _GENERATING,
    ),
    Series(
        "ondol_inter_token_median_seconds",
        "histogram",
        "Median time between two tokens of one request (ITL).",
        ("lane",),
        STEP,
        _GENERATING,
    ),
    Series(
        "ondol_inter_token_tail_seconds",
        "histogram",
        "99th percentile of the time between two tokens of one request (ITL).",
        ("lane",),
        STEP,
        _GENERATING,
    ),
    Series(
        "ondol_tokens",
        "counter",
        "Tokens read (in), generated (out) and found in the prompt cache (cached).",
        ("lane", "direction"),
        before=each(lane=LANES, direction=("in", "out", "cached")),
    ),
    Series(
        "ondol_prompt_tokens",
        "counter",
        "Prompt tokens of generations: found in the cache, or computed.",
        ("lane", "found"),
        before=each(lane=GENERATING, found=("cached", "computed")),
    ),
)

STATE: tuple[Series, ...] = (
    Series("ondol_lane_depth", "gauge", "Requests waiting in a lane.", ("lane",), read=True),
    Series("ondol_lane_running", "gauge", "Requests of a lane running.", ("lane",), read=True),
    Series("ondol_lane_queue_limit", "gauge", "Most requests that may wait.", ("lane",), read=True),
    Series(
        "ondol_lane_running_limit", "gauge", "Most requests that may run.", ("lane",), read=True
    ),
    Series(
        "ondol_lane_wait_seconds",
        "gauge",
        "Estimated wait of a request that came now.",
        ("lane",),
        read=True,
    ),
    Series(
        "ondol_throughput_rps",
        "gauge",
        "Requests per second that ended well, over a sliding window.",
        ("lane", "window"),
        read=True,
    ),
    Series(
        "ondol_goodput_rps",
        "gauge",
        "Requests per second that met their deadline, over a sliding window.",
        ("lane", "window"),
        read=True,
    ),
    Series(
        "ondol_attainment_ratio",
        "gauge",
        "Share of requests with a deadline that met it: of those offered, or of those admitted; "
        "NaN where there was none.",
        ("lane", "window", "of"),
        read=True,
    ),
    Series(
        "ondol_resource_usage_ratio",
        "gauge",
        "How full or busy a resource is, as admission sees it.",
        ("resource",),
        read=True,
    ),
    Series(
        "ondol_recorder_rows",
        "counter",
        "Finished requests for ondol.db: written, dropped (too many waited) or failed.",
        ("result",),
        read=True,
    ),
    Series("ondol_recorder_waiting", "gauge", "Finished requests not yet written.", read=True),
    Series(
        "ondol_process_resident_bytes",
        "gauge",
        "Resident memory of the server process; the generator's process is not in it.",
        read=True,
    ),
    Series(
        "ondol_process_cpu_seconds",
        "counter",
        "Processor time of the server process; the generator's process is not in it.",
        read=True,
    ),
    Series(
        "ondol_process_start_time_seconds",
        "gauge",
        "When the server process started, Unix time.",
        read=True,
    ),
)


MODELS: tuple[Series, ...] = (
    Series(
        "ondol_batches",
        "counter",
        "Encoder batches by how they ended.",
        ("model", "outcome"),
    ),
    Series(
        "ondol_batch_tokens",
        "histogram",
        "Tokens in one encoder batch, padding included.",
        ("model",),
        TOKENS,
    ),
    Series(
        "ondol_batch_padding_ratio",
        "histogram",
        "Share of a batch's tokens that is padding.",
        ("model",),
        SHARES,
    ),
    Series(
        "ondol_batch_seconds",
        "histogram",
        "Time of one encoder batch in the model.",
        ("model",),
        WORK,
    ),
    Series(
        "ondol_batch_budget_ratio",
        "gauge",
        "Share of the token budget a batch may use: below 1 while memory is short, absent until then.",
        ("model",),
    ),
    Series(
        "ondol_batch_budget_changes",
        "counter",
        "Changes of a batch's token budget, by what led to them.",
        ("model", "reason"),
    ),
    Series(
        "ondol_model_state",
        "gauge",
        "1 for the state a model is in, 0 for the others.",
        ("model", "state"),
    ),
    Series(
        "ondol_form_fallbacks",
        "counter",
        "Loads in which a form failed and the reference form took its place.",
        ("model", "wanted"),
    ),
    Series(
        "ondol_ab_requests",
        "counter",
        "Requests an A/B candidate ran beside (shadowed), answered, dropped as busy, or failed.",
        ("component", "candidate", "outcome"),
    ),
    Series(
        "ondol_ab_seconds",
        "histogram",
        "Tokenising and inference of one compared request, by side; the queue is not in it.",
        ("component", "side"),
        WORK,
    ),
    Series(
        "ondol_ab_agreement",
        "histogram",
        "How far the candidate agrees, one request: least cosine, or Kendall's tau.",
        ("component", "candidate"),
        AGREEMENT,
    ),
    Series(
        "ondol_embedding_cache_texts",
        "counter",
        "Distinct texts to embed, by where the vector was found; joined: another request's work.",
        ("found",),
        before=each(found=("memory", "durable", "joined", "nowhere")),
    ),
    Series("ondol_embedding_cache_entries", "gauge", "Vectors held.", ("tier",)),
    Series("ondol_embedding_cache_bytes", "gauge", "Bytes held.", ("tier",)),
    Series(
        "ondol_embedding_cache_on", "gauge", "1 while the tier is in use, 0 while not.", ("tier",)
    ),
    Series(
        "ondol_embedding_cache_losses",
        "counter",
        "Vectors evicted, dropped because too many waited to be written, and failed look-ups.",
        ("tier", "kind"),
    ),
    Series(
        "ondol_concurrency_ratio",
        "gauge",
        "Share of the generation slots that admission uses: below 1 while resources are short.",
    ),
    Series(
        "ondol_pressure_changes",
        "counter",
        "Changes of how short of resources the machine is, by the level reached.",
        ("level",),
        before=each(level=("none", "high", "critical")),
    ),
    Series("ondol_generator_restarts", "counter", "Restarts of the generator process."),
    Series(
        "ondol_documents",
        "counter",
        "Documents that went through ingest, by outcome.",
        ("outcome",),
        before=each(outcome=("added", "updated", "unchanged", "failed", "deleted")),
    ),
    Series("ondol_chunks", "counter", "Chunks embedded and stored."),
    Series(
        "ondol_citations",
        "counter",
        "Citations of answers: verified, or dropped because the quote does not stand there.",
        ("outcome",),
        before=each(outcome=("verified", "dropped")),
    ),
)
