"""The rows of the metrics table about models, batches, caches and documents."""

from __future__ import annotations

from ondol.telemetry.series import AGREEMENT, SHARES, TOKENS, WORK, Series, each

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
