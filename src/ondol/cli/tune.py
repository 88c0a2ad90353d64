"""``ondol tune``: measure every form on this machine and keep the fastest that passes the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.progress import meter

if TYPE_CHECKING:
    from ondol.models.library import ModelFiles
    from ondol.services.tuning.service import Tuned, TuneService, Wish

BAR = 24


@click.command()
@click.option(
    "--model",
    "names",
    multiple=True,
    metavar="ID",
    help="Tune this embedder or reranker; may be repeated. Default: those of the settings.",
)
@click.option("--quick", is_flag=True, help="Under a minute: fewer texts, no form made anew.")
@click.option("--force", is_flag=True, help="Measure again although nothing has changed.")
@global_options()
@click.pass_obj
def tune(invocation: Invocation, *, names: tuple[str, ...], quick: bool, force: bool) -> None:
    """Measure how each model runs best on this machine and write it to profile.json.

    Every form runs in a process of its own, side by side with its rivals. Chosen is the fastest
    whose loss is within fidelity.default_max_loss, for lone queries and for bulk work. Nothing is
    done while processor, cores, library versions and weights are those of the last time. Ctrl-C
    keeps what was measured; the next run goes on from there.
    """
    from ondol.services.tuning.service import Wish

    invocation.start_logging()
    models = names or _from_settings(invocation)
    wish = Wish(quick=quick, force=force).shared_by(len(models))
    library = invocation.container().library
    found = [_tune(invocation, library.files(name), wish) for name in models]
    if invocation.output.as_json:
        invocation.output.data({"models": [_as_json(one) for one in found]})
        return
    for one in found:
        _show(invocation, one)


def _tune(invocation: Invocation, files: ModelFiles, wish: Wish) -> Tuned:
    service = _service(invocation)
    total = service.steps(files, wish=wish)
    done = 0
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:

        def note(text: str) -> None:
            nonlocal done
            shown.update(done=min(done, total - 1), total=total, note=f"{files.entry.id}: {text}")
            done += 1

        try:
            return service.tune(files, wish=wish, note=note)
        except KeyboardInterrupt:
            invocation.output.note("what was measured is kept; run `ondol tune` again to go on")
            raise


def _service(invocation: Invocation) -> TuneService:
    from ondol.core.machine import describe
    from ondol.services.tuning.service import TuneService

    settings = invocation.settings
    return TuneService(
        settings.home, machine=describe(), fidelity=settings.fidelity, clock=invocation.clock
    )


def _from_settings(invocation: Invocation) -> tuple[str, ...]:
    models = invocation.settings.models
    return tuple(name for name in (models.embedder, models.reranker) if name != "none")


def _as_json(one: Tuned) -> dict[str, Any]:
    return {
        "model": one.profile.model,
        "measured": one.fresh,
        "quick": one.profile.quick,
        "tuned": one.profile.tuned,
        "key": one.profile.key,
        "chosen": one.profile.chosen,
        "evidence": one.profile.evidence,
        "picture": one.picture,
    }


def _show(invocation: Invocation, one: Tuned) -> None:
    output = invocation.output
    profile = one.profile
    quick = ", quickly" if profile.quick else ""
    state = f"measured now{quick}" if one.fresh else f"unchanged since {profile.tuned}{quick}"
    output.text(f"{profile.model}: {state}")
    rows = [row for row in profile.evidence if "failure" not in row]
    best = max((float(row["texts_per_second"]) for row in rows), default=1.0)
    output.table(
        ("CANDIDATE", "TEXTS/S", "", "P50 MS", "P99 MS", "PEAK MB", "LOSS", "VERDICT"),
        [
            (
                _name(row),
                f"{row['texts_per_second']:.1f}",
                "█" * round(BAR * float(row["texts_per_second"]) / best),
                f"{row['p50_ms']:.2f}",
                f"{row['p99_ms']:.2f}",
                f"{row['peak_rss_mb']:.0f}",
                f"{row['loss']:.3%}",
                row["verdict"],
            )
            for row in rows
        ],
    )
    for row in profile.evidence:
        if "failure" in row:
            output.text(f"{_name(row)}: {row['verdict']}")
    for purpose, chosen in profile.chosen.items():
        output.text(
            f"{purpose}: {chosen.form}, {chosen.threads} threads, {chosen.token_budget} tokens a batch"
        )
    if one.picture is not None:
        output.note(f"picture: {one.picture}")


def _name(row: Any) -> str:
    streams = f"{row['streams']}x" if row["streams"] > 1 else ""
    return f"{row['form']} {streams}{row['threads']}t {row['token_budget']} {row['policy']}"
