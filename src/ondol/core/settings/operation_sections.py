"""The sections of the settings about operating a server: resources, idleness, telemetry.

The section of the settings about jobs: how much may be handed in, how it is worked, how long kept.

The section of the settings about tasks: where packs come from, and what a run may take.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ondol.core.settings.sections import Percent, Positive, Seconds, SettingsSection, Share


class ResourceSettings(SettingsSection):
    """When the machine counts as short of something; see docs/concepts/resources.md."""

    memory_percent: Percent = Field(
        90.0,
        description="Memory in use, by anyone, from which fewer requests run at once and then `batch` "
        "is shed; 0 never. Raise where the models alone fill the memory.",
    )
    cpu_percent: Percent = Field(
        90.0,
        description="Share of our cores that other programs take, from which the same happens; "
        "0 never. Lower where other programs must not be slowed down.",
    )
    gpu_percent: Percent = Field(
        90.0,
        description="Share of our GPU's memory that other programs hold, from which the same "
        "happens; 0 never.",
    )
    release_percent: Percent = Field(
        80.0,
        description="Below this a resource is plentiful again. Must be below every percentage above; "
        "lower it where the level changes too often.",
    )
    sample_seconds: Seconds = Field(3.0, description="How often the machine is looked at.")

    @model_validator(mode="after")
    def _released_below(self) -> Self:
        for name in ("memory_percent", "cpu_percent", "gpu_percent"):
            limit = getattr(self, name)
            if 0 < limit <= self.release_percent:
                raise ValueError(
                    f"{name} = {limit:g} is not above release_percent = {self.release_percent:g}: "
                    "nothing would ever be released; lower release_percent too"
                )
        return self


class WatchdogSettings(SettingsSection):
    """What happens when nothing has happened for a while; see docs/guides/watchdog.md."""

    action: Literal["none", "unload", "exit", "command"] = Field(
        "none",
        description="What an idle service does: unload its models, exit, or run watchdog.command.",
    )
    command: tuple[str, ...] = Field(
        (),
        description="Program and arguments that stop the machine, such as "
        "['systemctl', 'poweroff']; never run by a shell.",
    )
    idle_seconds: Seconds = Field(
        1800.0, description="How long it must have been idle without a break."
    )
    busy_below: Share = Field(
        0.05, description="Share of the GPU or the processor below which it counts as idle."
    )
    sample_seconds: Seconds = Field(5.0, description="How often it is looked at.")
    dry_run: bool = Field(False, description="Log what would be done, and do nothing.")

    @model_validator(mode="after")
    def _has_a_command(self) -> Self:
        if self.action == "command" and not (self.command and self.command[0]):
            raise ValueError("action = command without watchdog.command, the program to run")
        return self


class TelemetrySettings(SettingsSection):
    """What is kept of finished requests, and where it goes; nothing leaves the machine unasked."""

    record: bool = Field(
        True,
        description="Keep a row of figures for every request in ondol.db, for "
        "`ondol metrics summary`. Turn off where not even times may be kept.",
    )
    retention_days: Seconds = Field(
        30.0, description="Days a row is kept. Raise to compare months, lower to keep less."
    )
    retention_rows: Positive = Field(
        1_000_000,
        description="Most rows kept, about 300 bytes each. Lower on a small disk.",
    )
    log_requests: bool = Field(
        True,
        description="Write one log line per finished request: codes, counts and times, never text. "
        "Turn off where the log is full of them.",
    )
    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="Base URL of an OpenTelemetry collector (http://host:4318) that gets a span per "
        "request; needs the extra 'otel'. Empty: nothing is sent.",
    )


class JobSettings(SettingsSection):
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


class TaskSettings(SettingsSection):
    """Declared analyses; see docs/concepts/tasks.md."""

    packs: tuple[str, ...] = Field(
        (),
        description="Folders of packs of your own, beside ONDOL_HOME/packs. Set to share packs "
        "between homes.",
    )
    seconds: Seconds = Field(
        600.0,
        description="Longest time one run of a task may take, waiting included; a task may allow "
        "less. Raise for a slow machine.",
    )
    max_tokens: Positive = Field(
        4096,
        description="Most tokens a task may put before the generator, whatever its pack says. Lower "
        "on a slow machine.",
    )
