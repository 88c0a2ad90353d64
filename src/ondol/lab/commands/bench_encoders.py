"""``ondol bench embed|rerank|roofline``: how fast, how large and how close the encoders are here.

What the generator's benches read from the command line: lists of numbers, and which generator.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import F, global_options
from ondol.cli.output import meter, noting

if TYPE_CHECKING:
    from ondol.lab.bench.encoder_bench import Workload
    from ondol.lab.probe.operations import Subject
    from ondol.models.library import ModelFiles


def _encoder_options(function: F) -> F:
    options = [
        click.option(
            "--texts",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Lines, JSONL or a JSON list; without it, the package's own samples.",
        ),
        click.option("--model", metavar="ID", help="Default: the one of the settings."),
        click.option(
            "--form", default="auto", show_default=True, help="Form to run; auto as the server."
        ),
        click.option("--threads", type=click.IntRange(min=0), default=0, help="0: all cores."),
        click.option(
            "--token-budget", type=click.IntRange(min=0), default=0, help="0: as the server."
        ),
        click.option(
            "--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Runs."
        ),
        click.option(
            "--sweep", type=click.Choice(["batch"]), help="Try token budgets and recommend one."
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@_encoder_options
@global_options()
@click.pass_obj
def embed(
    invocation: Invocation,
    /,
    *,
    texts: Path | None,
    model: str | None,
    sweep: str | None,
    **how: Any,
) -> None:
    """Embed texts in bulk and one at a time.

    Runs through the engine's own batcher in a process of its own; the baseline is the reference
    form in a plain loop of 32 texts in order of arrival, run in turn with it.
    """
    from ondol.lab.bench.encoder_bench import embedding_work
    from ondol.lab.evaluate.datasets import read_texts, sample_texts

    subject, files = _subject(invocation, model or invocation.settings.models.embedder, "embedder")
    given = read_texts(texts) if texts else sample_texts(subject.languages)
    _report(invocation, subject, files, embedding_work(subject, given), sweep=sweep, how=how)


@click.command()
@_encoder_options
@click.option("--query", metavar="TEXT", help="Take the lines of --texts as this query's passages.")
@global_options()
@click.pass_obj
def rerank(
    invocation: Invocation,
    /,
    *,
    texts: Path | None,
    model: str | None,
    sweep: str | None,
    query: str | None,
    **how: Any,
) -> None:
    """Rerank passages in bulk and one request at a time.

    --texts is JSONL with 'query' and 'documents', or lines with --query. texts_per_second counts
    passages; p50_ms and p99_ms are of one request with all its passages.
    """
    from ondol.lab.bench.encoder_bench import reranking_work
    from ondol.lab.evaluate.datasets import read_requests, sample_lists

    if query is not None and texts is None:
        raise click.UsageError("--query needs the passages: --texts FILE")
    subject, files = _subject(invocation, model or invocation.settings.models.reranker, "reranker")
    given = read_requests(texts, query=query) if texts else sample_lists(subject.languages)
    _report(invocation, subject, files, reranking_work(given), sweep=sweep, how=how)


@click.command()
@click.option("--model", metavar="ID", help="Default: the embedder of the settings.")
@click.option(
    "--form", "forms", multiple=True, help="Form to place; may be repeated. Default: those made."
)
@click.option("--threads", type=click.IntRange(min=0), default=0, help="0: all cores.")
@global_options()
@click.pass_obj
def roofline(
    invocation: Invocation, *, model: str | None, forms: tuple[str, ...], threads: int
) -> None:
    """Measure this machine's matrix-multiply peak, and each form's share of it.

    Peaks are of fp32, bf16 and int8 products of encoder shapes, by the best library for each; the
    forms run texts of exactly 128 tokens.
    """
    from ondol.core.machine import usable_cores
    from ondol.lab.bench.encoder_bench import roofline as measure
    from ondol.lab.probe.operations import is_made

    subject, files = _subject(invocation, model or invocation.settings.models.embedder)
    chosen = forms or tuple(form for form in subject.forms if is_made(files, form))
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        found = measure(
            subject, files, chosen, threads=threads or usable_cores(), note=noting(shown)
        )
    output = invocation.output
    if output.as_json:
        output.data(found)
        return
    output.table(
        ("PEAK", "GFLOP/S"), [(kind, f"{rate:.0f}") for kind, rate in found["peak_gflops"].items()]
    )
    output.table(
        ("FORM", "TOKENS/S", "GFLOP/S", "OF FP32 PEAK", "OF INT8 PEAK"),
        [
            (
                row["form"],
                f"{row['tokens_per_second']:.0f}",
                f"{row['gflops']:.0f}",
                f"{row['share_of_fp32_peak']:.0%}",
                f"{row['share_of_int8_peak']:.0%}",
            )
            for row in found["forms"]
            if "failure" not in row
        ],
    )
    for row in found["forms"]:
        if "failure" in row:
            output.note(f"{row['form']}: {row['failure']}")


def _subject(
    invocation: Invocation, name: str, role: str | None = None
) -> tuple[Subject, ModelFiles]:
    from ondol.core.errors import InvalidInput
    from ondol.lab.probe.operations import Subject

    invocation.start_logging()
    files = invocation.container().library.files(name)
    if files.entry.role == "generator" or role not in (None, files.entry.role):
        raise InvalidInput(
            f"{name} is a {files.entry.role}, not {'an encoder' if role is None else f'a {role}'}",
            hint=f"see `ondol models list --role {role or 'embedder'}`",
            param="model",
        )
    return Subject.of(files), files


def _report(
    invocation: Invocation,
    subject: Subject,
    files: ModelFiles,
    work: Workload,
    *,
    sweep: str | None,
    how: dict[str, Any],
) -> None:
    from ondol.core.machine import describe
    from ondol.lab.bench import encoder_bench
    from ondol.lab.bench.encoder_bench import planned

    machine = describe()
    plan = planned(subject, files, invocation.settings, machine, **how)
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        note = noting(shown)
        if sweep:
            found = encoder_bench.sweep(
                subject, files, work, plan.plan.bulk, repeats=plan.plan.repeats, note=note
            )
        else:
            found = encoder_bench.run(
                subject, files, work, plan.plan, cores=machine.cores, note=note
            )
    found |= {"reason": plan.reason, "cpu": machine.cpu, "cores": machine.cores}
    if invocation.output.as_json:
        invocation.output.data(found)
    elif sweep:
        _show_sweep(invocation, found)
    else:
        _show(invocation, found)


def _show(invocation: Invocation, found: dict[str, Any]) -> None:
    baseline, fidelity = found["baseline"], found["fidelity"]
    rows = [
        ("form", f"{found['form']}, {found['threads']} threads ({found['reason']})"),
        ("texts per second", f"{found['texts_per_second']:.1f}"),
        ("tokens per second", f"{found['tokens_per_second']:.0f}"),
        ("p50, p99 of a lone request", f"{found['p50_ms']:.2f} ms, {found['p99_ms']:.2f} ms"),
        ("peak memory", f"{found['peak_rss_mb']:.0f} MB"),
        (
            "baseline",
            f"{baseline['form']}, plain loop: {baseline['texts_per_second']:.1f} texts per second, "
            f"{baseline['peak_rss_mb']:.0f} MB",
        ),
        ("times the baseline", f"{found['ratio']:.2f}"),
        (
            "cosine to the reference",
            f"mean {fidelity['cosine_mean']:.5f}, least {fidelity['cosine_min']:.5f}",
        ),
        ("cosine among batch mates", f"{found['batch_mates']:.6f}"),
    ]
    if found["failed"]:
        rows.append(("failed texts", str(found["failed"])))
    invocation.output.table(("FIGURE", "VALUE"), rows)


def _show_sweep(invocation: Invocation, found: dict[str, Any]) -> None:
    output = invocation.output
    output.table(
        ("TOKEN BUDGET", "TEXTS/S", "TOKENS/S", "PEAK MB", "PADDING"),
        [
            (
                row["token_budget"],
                f"{row['texts_per_second']:.1f}",
                f"{row['tokens_per_second']:.0f}",
                f"{row['peak_rss_mb']:.0f}",
                f"{row['padding']:.1%}",
            )
            for row in found["sweep"]
        ],
    )
    output.text(f"recommended: {found['setting']}={found['recommended']} ({found['form']})")


class Numbers(click.ParamType[tuple[float, ...]]):
    """``0.7,0.9,1.0`` as numbers above 0; empty is none."""

    name = "n,n,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(",") if part.strip())
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers, such as 0.7,0.9", param, ctx)
        if any(number <= 0 for number in numbers):
            self.fail(f"{value!r} holds a number that is not above 0", param, ctx)
        return numbers


def generator_named(invocation: Invocation, model: str | None, *, url: str | None = None) -> str:
    """Return the generator's id: the one named, the settings', or what the settings would choose.

    For a server at ``url`` the name is taken as it is. Raises ``InvalidInput`` for another role,
    and ``OfflineMissing`` or ``NotFound`` where it is not here.
    """
    from ondol.core.errors import InvalidInput
    from ondol.models.generator_form import choose_generator

    wanted = model or invocation.settings.generation.model
    if url is not None:
        if wanted in ("auto", "none"):
            raise click.UsageError("--url needs the model's name as that server knows it: --model")
        return wanted
    container = invocation.container()
    library = container.library
    if wanted == "auto":
        return choose_generator(container.machine, available=library.ready("generator")).model_id
    role = library.files(wanted).entry.role
    if role != "generator":
        raise InvalidInput(
            f"{wanted} is a {role}, not a generator",
            hint="see `ondol models list --role generator`",
            param="model",
        )
    return wanted
