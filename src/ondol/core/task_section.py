"""The section of the settings about tasks: where packs come from, and what a run may take."""

from __future__ import annotations

from pydantic import Field

from ondol.core.section import Positive, Seconds, Section


class TaskSettings(Section):
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
