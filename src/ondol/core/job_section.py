"""The section of the settings about jobs: how much may be handed in, how it is worked, how long kept."""

from __future__ import annotations

from pydantic import Field

from ondol.core.section import Positive, Seconds, Section


class JobSettings(Section):
    """Durable batches of task items; see docs/concepts/jobs.md."""

    concurrency: Positive = Field(
        4,
        description="Items worked at once. More than the generator has slots keeps the encoder busy "
        "meanwhile; lower to disturb interactive requests less.",
    )
    attempts: Positive = Field(
        4,
        description="How often an item is tried that fails in a way that may pass. Raise where the "
        "generator is far away or restarts often.",
    )
    crashes: Positive = Field(
        5,
        description="How often the process may die while an item is under way before the item is "
        "given up. From the second time on it runs alone, last.",
    )
    backoff_seconds: Seconds = Field(
        2.0,
        description="Wait before the second attempt; doubled for each further one, with jitter.",
    )
    patience_seconds: Seconds = Field(
        6 * 3600.0,
        description="How long an item may be refused (machine short, model not there) before it is "
        "given up. Raise for machines that are busy all day.",
    )
    item_seconds: Seconds = Field(
        1800.0, description="Longest time of one attempt. Raise for very long analyses."
    )
    lease_seconds: Seconds = Field(
        60.0,
        description="How long an item stays taken without a sign of life of who works it. Change "
        "only where the clock of the machine jumps.",
    )
    give_way_seconds: float = Field(
        30.0,
        ge=0,
        description="How long jobs begin nothing while people ask; then one item, and they wait "
        "again. 0 never gives way; raise where nights are long and days are busy.",
    )
    age_seconds: Seconds = Field(
        600.0, description="A job's priority rises by one for each such time that it has waited."
    )
    poll_seconds: Seconds = Field(
        2.0, description="How often work handed in by other processes is looked for."
    )
    max_items: Positive = Field(
        20_000, description="Most items of one job. Raise for larger batches."
    )
    max_queued_items: Positive = Field(
        100_000, description="Most items of all jobs that have no outcome yet. Beyond it: 429."
    )
    max_item_bytes: Positive = Field(
        2**20, description="Largest input of one item, as JSON. A larger one fails alone."
    )
    max_job_bytes: Positive = Field(
        256 * 2**20,
        description="Largest job, all inputs together. Over HTTP server.max_body_bytes is in force too.",
    )
    max_result_bytes: Positive = Field(
        2 * 2**20, description="Largest result of one item, as JSON. A larger one fails alone."
    )
    retention_days: Seconds = Field(
        30.0,
        description="Days that a job that has ended is kept with its inputs and results. Lower where "
        "texts must not stay.",
    )
