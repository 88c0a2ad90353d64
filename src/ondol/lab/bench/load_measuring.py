"""What must be known of a server before it is loaded: its tokens, its prefill speed, its capacity.

Each is measured on the server itself, alone, before any load.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import httpx

from ondol.core.errors import BackendError
from ondol.lab.bench.load_plan import LoadRun, Manner, Shot, Target, ask
from ondol.lab.bench.load_prompts import Count, Messages, PromptMaker, Yardstick
from ondol.lab.bench.request_trace import Row
from ondol.lab.evaluate.statistics import percentile

LADDER = (64, 128, 256, 512, 1024, 2048)
_TURNS = 3
_CALL_SECONDS = 120.0


def counter(target: Target, http: httpx.Client) -> Count:
    """Return a function that lets the server count a prompt, at the price of one token's answer."""

    def count(messages: Messages) -> int:
        body = {"model": target.model, "messages": messages, "max_tokens": 1, "temperature": 0}
        url = f"{target.url}/v1/chat/completions"
        try:
            answer = http.post(url, json=body, headers=dict(target.headers))
        except httpx.HTTPError as error:
            raise BackendError(
                f"{target.url} does not answer: {error!r}", hint="is the server running?"
            ) from None
        if answer.status_code != 200:
            raise BackendError(
                f"{target.url} answered {answer.status_code}: {answer.text[:200]}",
                hint="name a chat model it serves with --model",
            )
        return int(answer.json()["usage"]["prompt_tokens"])

    return count


def yardstick_of(target: Target) -> Yardstick:
    """Return what text costs in tokens on ``target``. Raises ``BackendError``."""
    with httpx.Client(timeout=_CALL_SECONDS, trust_env=False) as http:
        return Yardstick.measure(counter(target, http))


def prefill_seconds(
    target: Target, yardstick: Yardstick, *, context_tokens: int, seed: int
) -> list[tuple[int, float]]:
    """Return (prompt tokens, median seconds to the first token alone), ascending."""
    sizes = [size for size in LADDER if size < context_tokens - 1]
    maker = PromptMaker(yardstick, seed=seed)
    rows = [Row(0.0, size, 1) for size in sizes for _ in range(_TURNS)]
    shots = shots_now(maker, rows, first=9_000_000)
    seen = ask(target, shots, Manner(concurrency=1)).seen
    found = []
    for size in sizes:
        mine = [one for one in seen if one.row.prompt_tokens == size and one.ttft is not None]
        if mine:
            tokens = percentile([one.prompt_tokens for one in mine], 0.5)
            found.append((round(tokens), percentile([one.ttft or 0.0 for one in mine], 0.5)))
    if not found:
        raise BackendError(
            "no prompt was answered while its speed was measured",
            hint="see the server's log; a deadline or a full queue may refuse everything",
        )
    return found


def tokens_within(ladder: Sequence[tuple[int, float]], seconds: float) -> float:
    """Return how many prompt tokens take ``seconds`` alone, between or beyond the measured sizes."""
    if seconds <= ladder[0][1] or len(ladder) == 1:
        return ladder[0][0] * seconds / max(ladder[0][1], 1e-9)
    for (few, soon), (many, late) in pairwise(ladder):
        if seconds <= late and late > soon:
            return few + (many - few) * (seconds - soon) / (late - soon)
    (few, soon), (many, late) = ladder[-2:]
    return many + (many - few) * (seconds - late) / max(late - soon, 1e-9)


def capacity(target: Target, shots: Sequence[Shot], *, slots: int, counted: int) -> float:
    """Return completed requests a second with ``slots`` askers that never pause.

    More shots than are ``counted`` keep the slots busy to the end. Raises ``BackendError``.
    """
    run: LoadRun = ask(target, shots, Manner(concurrency=slots, counted=counted))
    done = [one for one in run.seen if one.outcome == "ok"]
    if not done:
        raise BackendError(
            "no request was completed while the capacity was measured",
            hint="see the server's log; a deadline or a full queue may refuse everything",
        )
    return len(done) / max(one.end for one in done)


def shots_now(maker: PromptMaker, rows: Sequence[Row], *, first: int) -> list[Shot]:
    """Return ``rows`` as shots without a schedule, their texts numbered from ``first``."""
    return [
        Shot(0.0, row, maker.messages(row, number=first + index)) for index, row in enumerate(rows)
    ]
