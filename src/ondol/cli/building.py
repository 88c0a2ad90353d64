"""``ondol models build``: the way from a command to a compiled program, with its progress shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ondol.cli.invocation import Invocation
from ondol.cli.progress import meter

if TYPE_CHECKING:
    from ondol.models.builds.native import Build, BuildProgress


def build_program(
    invocation: Invocation, name: str, *, force: bool, jobs: int
) -> tuple[Path, Build]:
    """Return the program and its record, compiled now unless it is here."""
    from ondol.models.builds.native import Builder
    from ondol.models.builds.recipe import RECIPES
    from ondol.services.generator_assembly import builds_folder

    settings = invocation.settings
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:

        def show(progress: BuildProgress) -> None:
            note = f"{name}: {progress.phase} {Path(progress.note).name}".strip()
            shown.update(done=progress.done, total=progress.total, note=note)

        builder = Builder(
            RECIPES[name],
            root=builds_folder(settings.home),
            offline=settings.offline,
            jobs=jobs,
            progress=show,
            clock=invocation.clock,
        )
        try:
            return builder.build(force=force)
        except KeyboardInterrupt:
            invocation.output.note("what was compiled is kept; run it again to go on")
            raise
