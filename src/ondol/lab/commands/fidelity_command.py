"""``ondol eval fidelity``: the gate each form must pass against its model's reference form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import meter

if TYPE_CHECKING:
    from ondol.lab.evaluate.datasets import FidelityMaterial
    from ondol.lab.evaluate.form_fidelity import FormFidelity
    from ondol.lab.probe.operations import Subject

COLUMNS = {
    "embedder": ("cosine_mean", "cosine_p1", "cosine_min", "sts_spearman", "ndcg_at_10"),
    "reranker": ("cosine_mean", "cosine_min", "kendall_tau", "top1_agreement", "ndcg_at_10"),
}


@click.command()
@click.option("--model", metavar="ID", help="Embedder or reranker. Default: settings' embedder.")
@click.option(
    "--form",
    "forms",
    multiple=True,
    help="Form to measure, or all; may be repeated. Default: all that this machine can run.",
)
@click.option(
    "--texts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Your own texts for the cosine: lines, JSONL or a JSON list.",
)
@click.option(
    "--sts",
    type=click.Path(path_type=Path),
    metavar="TSV",
    help="Rated pairs: columns score, sentence1, sentence2.",
)
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="BEIR folder for nDCG@10, and for the passages a reranker scores.",
)
@global_options()
@click.pass_obj
def fidelity(
    invocation: Invocation,
    *,
    model: str | None,
    forms: tuple[str, ...],
    texts: Path | None,
    sts: Path | None,
    dataset: Path | None,
) -> None:
    """Compare each form's outputs with the reference form's; exit code 3 when one fails.

    A form passes with a loss of at most fidelity.max_loss: the largest of 1 - mean cosine and the
    relative drops of Spearman's rho and nDCG@10. Without files of yours, the package's own Korean
    and English samples are used.
    """
    from ondol.core.errors import GateFailed
    from ondol.lab.evaluate.datasets import material

    invocation.start_logging()
    subject = _subject(invocation, model or invocation.settings.models.embedder)
    wanted = subject.forms if not forms or "all" in forms else forms
    found = material(subject.role, subject.languages, texts=texts, sts=sts, dataset=dataset)
    results = _measure(invocation, subject, wanted, found)
    limits = invocation.settings.fidelity
    _report(invocation, subject, results, found)
    failed = [one.form for one in results if not one.passes(limits.max_loss)]
    if failed:
        raise GateFailed(
            f"{', '.join(failed)} of {subject.model} did not pass the gate of {limits.max_loss:.2%}",
            hint="use another form, or raise fidelity.max_loss if this loss is acceptable",
        )


def _subject(invocation: Invocation, name: str) -> Subject:
    from ondol.core.errors import InvalidInput
    from ondol.lab.probe.operations import Subject

    files = invocation.container().library.files(name)
    if files.entry.role == "generator":
        raise InvalidInput(
            f"{name} is a generator; fidelity is measured of embedders and rerankers",
            hint="see `ondol models list --role embedder`",
            param="model",
        )
    return Subject.of(files)


def _measure(
    invocation: Invocation, subject: Subject, forms: tuple[str, ...], found: FidelityMaterial
) -> list[FormFidelity]:
    from ondol.core.machine import usable_cores
    from ondol.lab.evaluate.form_fidelity import evaluate

    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        return evaluate(
            subject,
            forms,
            found,
            threads=usable_cores(),
            told=lambda done, total, note: shown.update(done=done, total=total, note=note),
        )


def _report(
    invocation: Invocation, subject: Subject, results: list[FormFidelity], found: FidelityMaterial
) -> None:
    limits = invocation.settings.fidelity
    output = invocation.output
    if output.as_json:
        output.data(
            {
                "model": subject.model,
                "reference": subject.reference,
                "max_loss": limits.max_loss,
                "default_max_loss": limits.default_max_loss,
                "passed": all(one.passes(limits.max_loss) for one in results),
                "texts": len(found.texts),
                "pairs": len(found.pairs),
                "queries": len(found.retrieval.queries if found.retrieval else found.lists),
                "forms": [
                    {
                        **one.as_json(),
                        "passed": one.passes(limits.max_loss),
                        "may_be_default": one.defaultable(limits.default_max_loss),
                    }
                    for one in results
                ],
            }
        )
        return
    columns = COLUMNS[subject.role]
    output.table(
        ("FORM", "GATE", "LOSS", *(column.upper() for column in columns), "BATCH_MATES"),
        [_row(one, columns, limits.max_loss, limits.default_max_loss) for one in results],
    )
    for one in results:
        if one.error:
            output.note(f"{one.form}: {one.error}")


def _row(
    one: FormFidelity, columns: tuple[str, ...], max_loss: float, default_max_loss: float
) -> tuple[str, ...]:
    data = one.as_json()
    if one.fidelity is None:
        return (one.form, "failed", "-", *("-" for _ in columns), "-")
    gate = "passed" if one.passes(max_loss) else "failed"
    if one.passes(max_loss) and not one.defaultable(default_max_loss):
        gate = "passed, never by itself"
    return (
        one.form,
        gate,
        f"{one.fidelity.loss:.3%}",
        *(_figure(data[column]) for column in columns),
        _figure(data["batch_mates"]),
    )


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:.5f}"
