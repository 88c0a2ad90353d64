"""``ondol ask``: an answer that streams, then the citations that stood up."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Literal

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import collection_option, global_options, read_option
from ondol.cli.output import Output
from ondol.language.language import has_hangul

if TYPE_CHECKING:
    from ondol.answers.ask import Answer
    from ondol.app.container import Container
    from ondol.core.types import Citation, Reading, SearchMode

NO_CITATION_EXIT = 3


@click.command()
@click.argument("question")
@collection_option
@click.option("-k", "--top-k", type=click.IntRange(min=1), help="How many passages to consider.")
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "dense", "lexical"]),
    help="How passages are found; as in `ondol search`.",
)
@read_option
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer in tokens.")
@click.option(
    "--language", type=click.Choice(["ko", "en"]), help="Language of the answer (default: yours)."
)
@click.option(
    "--after",
    "earlier",
    multiple=True,
    metavar="QUESTION",
    help="An earlier question that this one may lean on; oldest first. May be repeated.",
)
@click.option(
    "--require-citation",
    is_flag=True,
    help="Exit with 3 unless the answer has at least one verified citation.",
)
@global_options()
@click.pass_obj
def ask(
    invocation: Invocation,
    *,
    question: str,
    collection: str,
    top_k: int | None,
    mode: SearchMode | None,
    read: Reading | None,
    max_tokens: int | None,
    language: Literal["ko", "en"] | None,
    earlier: tuple[str, ...],
    require_citation: bool,
) -> None:
    """Answer QUESTION from the documents of a collection.

    Every citation names document, page and character range, and its quote stands there word for
    word. When nothing relevant is found the answer says so.
    """
    answer = invocation.run(
        _answer(
            invocation,
            collection,
            question,
            top_k=top_k,
            mode=mode,
            read=read,
            max_tokens=max_tokens,
            language=language,
            earlier=earlier,
        )
    )
    output = invocation.output
    if output.as_json:
        output.data(answer)
    else:
        _show_citations(output, answer)
    if require_citation and not any(citation.verified for citation in answer.citations):
        output.error(
            "the answer has no verified citation",
            hint="ask more precisely, or check with `ondol search` that the collection knows it",
        )
        raise click.exceptions.Exit(NO_CITATION_EXIT)


async def _answer(
    invocation: Invocation,
    collection: str,
    question: str,
    *,
    top_k: int | None,
    mode: SearchMode | None,
    read: Reading | None,
    max_tokens: int | None,
    language: Literal["ko", "en"] | None,
    earlier: tuple[str, ...],
) -> Answer:
    from ondol.answers.ask import AnswerDone
    from ondol.answers.rewriting import ConversationTurn
    from ondol.core.errors import BackendError
    from ondol.core.types import TokenEvent

    output = invocation.output
    wanted = invocation.container(
        embedder=True,
        reranker=invocation.settings.retrieval.rerank != "off",
        keywords=mode != "dense" and has_hangul(" ".join((question, *earlier))),
        generator=True,
    )
    async with wanted as container:
        output.note(_about_generator(container))
        stream = container.ask.stream(
            collection,
            question,
            history=[ConversationTurn(one) for one in earlier],
            top_k=top_k,
            mode=mode,
            read=read,
            max_tokens=max_tokens,
            language=language,
        )
        async with aclosing(stream) as events:
            async for event in events:
                if isinstance(event, TokenEvent) and not output.as_json:
                    output.text(event.text, newline=False)
                elif isinstance(event, AnswerDone):
                    return event.answer
    raise BackendError("the answer ended too early", hint="run it again with -v for the log")


def _about_generator(container: Container) -> str:
    model = container.chat.model
    reason = container.generator_reason
    return f"generator: {model} ({reason})" if reason else f"generator: {model}"


def _show_citations(output: Output, answer: Answer) -> None:
    output.text()
    for citation in answer.citations:
        output.text()
        _show(output, citation)
    timings = answer.timings
    dropped = f", {answer.dropped_citations} dropped" if answer.dropped_citations else ""
    count = len(answer.citations)
    noun = "citation" if count == 1 else "citations"
    output.note(
        f"\n{count} {noun} verified{dropped}; "
        f"{answer.usage.completion_tokens} tokens by {answer.model}, first after "
        f"{timings.ttft_ms / 1000:.1f} s, all after {timings.total_ms / 1000:.1f} s"
    )


def _show(output: Output, citation: Citation) -> None:
    page = f", p. {citation.page}" if citation.page is not None else ""
    title = click.style(citation.title or citation.document, bold=True)
    place = click.style(f"{citation.document} [{citation.start}:{citation.end}]", dim=True)
    output.text(f"[{citation.marker}] {title}{page}  {place}")
    output.text(f"    “{' '.join(citation.quote.split())}”")
