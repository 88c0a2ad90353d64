"""``ondol tune``: measure every form on this machine and keep the fastest that passes the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import meter

if TYPE_CHECKING:
    from ondol.lab.tune.generator_tuning import GeneratorTuneService
    from ondol.lab.tune.tuning import Tuned, TuneOptions, TuneService
    from ondol.models.library import ModelFiles
    from ondol.models.profile import ModelProfile

BAR = 24


@click.command()
@click.option(
    "--model",
    "names",
    multiple=True,
    metavar="ID",
    help="Tune this model; may be repeated. Default: those of the settings.",
)
@click.option("--quick", is_flag=True, help="Under a minute: fewer texts, no form made anew.")
@click.option("--force", is_flag=True, help="Measure again although nothing has changed.")
@global_options()
@click.pass_obj
def tune(invocation: Invocation, *, names: tuple[str, ...], quick: bool, force: bool) -> None:
    """Measure how each model runs best on this machine and write it to profile.json.

    Every form runs in a process of its own, side by side with its rivals. Chosen is the fastest
    whose loss is within fidelity.default_max_loss, for lone queries and for bulk work. A
    generator's forms run one after the other: chosen is the one that answers a chat soonest, and
    the one that gives the most tokens a second. Nothing is done while processor, cores, library
    versions and weights are those of the last time. Ctrl-C keeps what was measured; the next run
    goes on from there.
    """
    from ondol.lab.tune.tuning import TuneOptions

    invocation.start_logging()
    models = names or _from_settings(invocation)
    wish = TuneOptions(quick=quick, force=force).shared_by(len(models))
    library = invocation.container().library
    found = [_tune(invocation, library.files(name), wish) for name in models]
    if invocation.output.as_json:
        invocation.output.data({"models": [_as_json(one) for one in found]})
        return
    for one in found:
        _show(invocation, one)


def _tune(invocation: Invocation, files: ModelFiles, wish: TuneOptions) -> Tuned:
    if files.entry.role == "generator":
        generators = _generator_service(invocation)
        total, run = generators.steps(wish=wish), generators.tune
    else:
        service = _service(invocation)
        total, run = service.steps(files, wish=wish), service.tune
    done = 0
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:

        def note(text: str) -> None:
            nonlocal done
            shown.update(done=min(done, total - 1), total=total, note=f"{files.entry.id}: {text}")
            done += 1

        try:
            return run(files, wish=wish, note=note)
        except KeyboardInterrupt:
            invocation.output.note("what was measured is kept; run `ondol tune` again to go on")
            raise


def _service(invocation: Invocation) -> TuneService:
    from ondol.core.machine import describe
    from ondol.lab.tune.tuning import TuneService

    settings = invocation.settings
    return TuneService(
        settings.home, machine=describe(), fidelity=settings.fidelity, clock=invocation.clock
    )


def _generator_service(invocation: Invocation) -> GeneratorTuneService:
    from ondol.core.machine import describe
    from ondol.lab.tune.generator_tuning import GeneratorTuneService

    settings = invocation.settings
    return GeneratorTuneService(
        settings.home, machine=describe(), settings=settings.generation, clock=invocation.clock
    )


def _from_settings(invocation: Invocation) -> tuple[str, ...]:
    """Return the encoders of the settings, and the local generator where one is here."""
    from ondol.core.machine import describe
    from ondol.models.generator_form import choose_generator

    models, generation = invocation.settings.models, invocation.settings.generation
    names = [name for name in (models.embedder, models.reranker) if name != "none"]
    here = invocation.container().library.ready("generator")
    if generation.upstream or generation.model == "none" or not here:
        return tuple(names)
    if generation.model != "auto":
        return (*names, generation.model)
    return (*names, choose_generator(describe(), available=here).model_id)


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
    if "chat" in profile.chosen:
        _show_generator(invocation, profile)
        return
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


def _show_generator(invocation: Invocation, profile: ModelProfile) -> None:
    output = invocation.output
    rows = [row for row in profile.evidence if "failure" not in row]
    best = max((float(row["prefill_tokens_per_second"]) for row in rows), default=1.0)
    output.table(
        ("CANDIDATE", "PREFILL/S", "", "SHORT", "DECODE/S", "ALL SLOTS", "PEAK MB", "AGREES", "VERDICT"),
        [
            (
                f"{row['form']} {row['threads']}t {row['token_budget']}",
                f"{row['prefill_tokens_per_second']:.1f}",
                "█" * round(BAR * float(row["prefill_tokens_per_second"]) / best),
                f"{row['prefill_short_tokens_per_second']:.1f}",
                f"{row['decode_tokens_per_second']:.1f}",
                f"{row['streams_tokens_per_second']:.1f}",
                f"{row['peak_rss_mb']:.0f}",
                f"{row['agreement']:.0%}",
                row["verdict"],
            )
            for row in rows
        ],
    )  # fmt: skip
    for row in profile.evidence:
        if "failure" in row:
            output.text(f"{row['form']}: {row['verdict']}")
    for purpose, chosen in profile.chosen.items():
        output.text(
            f"{purpose}: {chosen.form}, {chosen.threads} threads, chunks of {chosen.token_budget}"
        )


def _name(row: Any) -> str:
    streams = f"{row['streams']}x" if row["streams"] > 1 else ""
    return f"{row['form']} {streams}{row['threads']}t {row['token_budget']} {row['policy']}"
