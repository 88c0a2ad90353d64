"""``ondol bench generate``: how fast the generator reads and writes, and what Ondol adds to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import meter, noting
from ondol.lab.commands.bench_encoders import generator_named

if TYPE_CHECKING:
    from ondol.core.settings import Settings


@click.command()
@click.option("--model", metavar="ID", help="Generator. Default: the one of the settings.")
@click.option(
    "--streams", type=click.IntRange(min=1), default=8, show_default=True, help="Answers at once."
)
@click.option(
    "--prompt-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Alone."
)
@click.option(
    "--answer-tokens", type=click.IntRange(min=2), default=64, show_default=True, help="Alone."
)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Both sides in turn."
)
@click.option("--seed", type=int, default=0, show_default=True)
@global_options()
@click.pass_obj
def generate(
    invocation: Invocation,
    *,
    model: str | None,
    streams: int,
    prompt_tokens: int,
    answer_tokens: int,
    rounds: int,
    seed: int,
) -> None:
    """Measure prefill, decode, many streams and a second turn, beside raw llama.cpp.

    The baseline is the same llama.cpp process with the same parameters, asked directly over HTTP by
    the same client with the same texts, in turn with ours.
    """
    from ondol.lab.bench.generator_bench import GenerateBench, Sizes, raw_child
    from ondol.lab.bench.provenance import provenance
    from ondol.lab.bench.server_child import ServedChild

    invocation.start_logging()
    name = generator_named(invocation, model)
    sizes = Sizes(
        prompt=prompt_tokens, answer=answer_tokens, streams=streams, rounds=rounds, seed=seed
    )
    settings = _with_slots(invocation.settings, name, streams)
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        note = noting(shown)
        note("starting both")
        with ServedChild(settings, model=name) as ours, raw_child(settings) as raw:
            found = GenerateBench(sizes, ours=ours, raw=raw, note=note).run()
    found |= {"seed": seed, "context_tokens": settings.generation.context_tokens, **provenance()}
    if invocation.output.as_json:
        invocation.output.data(found)
    else:
        _show(invocation, found)


def _with_slots(settings: Settings, model: str, slots: int) -> Settings:
    generation = settings.generation.model_copy(update={"model": model, "slots": slots})
    return settings.model_copy(update={"generation": generation})


def _show(invocation: Invocation, found: dict[str, Any]) -> None:
    raw = found.get("raw", {})
    names = {
        "prefill_tokens_per_second": "prompt tokens per second, alone",
        "decode_tokens_per_second": "answer tokens per second, alone",
        "ttft_p50_ms": "first token alone, ms",
        "streams_tokens_per_second": f"answer tokens per second, {found['streams']} streams",
        "peak_rss_mb": "peak memory, MB",
    }
    rows = [
        (name, f"{found[key]:.1f}", f"{raw[key]:.1f}" if raw else "-")
        for key, name in names.items()
    ]
    invocation.output.table(("FIGURE", "ONDOL", "RAW LLAMA.CPP"), rows)
    turn = found["second_turn"]
    invocation.output.text(
        f"second turn over {turn['context_tokens']} tokens: {turn['second_ttft_ms']:.0f} ms after "
        f"{turn['first_ttft_ms']:.0f} ms ({turn['ratio']:.2f} of the first)"
    )
    if raw:
        invocation.output.text(
            f"added to the first token: {found['added_ttft_ms']:.1f} ms; "
            f"share of the raw throughput: {found['throughput_ratio']:.1%}"
        )
