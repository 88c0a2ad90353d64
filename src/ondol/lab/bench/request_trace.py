"""What is asked: rows of (arrival, prompt tokens, answer tokens), from a trace file or from flags.

Reads the Azure LLM inference traces (CSV: TIMESTAMP, ContextTokens, GeneratedTokens; CC BY 4.0, cite
Splitwise, ISCA 2024) and Mooncake's (JSON lines: timestamp in ms, input_length, output_length,
hash_ids of 512-token blocks; FAST 2025). Knows no text and no server. Pure but for the file.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ondol.core.errors import InvalidInput

BLOCK_TOKENS = 512
"""Tokens that one of Mooncake's hash ids stands for."""

_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MOONCAKE = ("timestamp", "input_length", "output_length")
_SIZE = re.compile(r"(\d+)x(\d+)(?:@(\d+))?")


@dataclass(frozen=True, slots=True)
class Row:
    """One request: seconds after the first, tokens in and out, and the blocks its prompt is of."""

    at: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def read_trace(path: Path) -> tuple[Row, ...]:
    """Return the rows of ``path`` in order of arrival, the first at 0 s.

    Raises ``InvalidInput`` naming the line that is not a row.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path} cannot be read as a trace: {error}",
            hint="name an Azure CSV or a Mooncake JSONL file",
            param="trace",
        ) from None
    read = _mooncake if text.lstrip().startswith("{") else _azure
    rows = sorted(read(path, text), key=lambda row: row.at)
    if not rows:
        raise InvalidInput(
            f"{path} holds no requests", hint="name a trace with rows", param="trace"
        )
    first = rows[0].at
    return tuple(replace(row, at=row.at - first) for row in rows)


def rows_of_sizes(text: str, *, count: int, seed: int) -> tuple[Row, ...]:
    """Return ``count`` rows of the sizes in ``text``, mixed by their weights; all arrive at 0 s.

    ``text`` is ``PROMPTxANSWER[@WEIGHT],…`` in tokens: ``60x16@9,1200x32`` is nine short to one
    long. Raises ``InvalidInput``.
    """
    sizes: list[tuple[int, int]] = []
    weights: list[int] = []
    for part in text.split(","):
        found = _SIZE.fullmatch(part.strip())
        if found is None or "0" in found.groups():
            raise InvalidInput(
                f"{part.strip()!r} is not a size",
                hint="write PROMPTxANSWER[@WEIGHT] in tokens, such as 60x16@9,1200x32",
                param="sizes",
            )
        sizes.append((int(found[1]), int(found[2])))
        weights.append(int(found[3] or 1))
    chance = random.Random(f"sizes:{seed}")
    return tuple(Row(0.0, *size) for size in chance.choices(sizes, weights, k=count))


def scaled(
    rows: Iterable[Row], *, scale: float, context_tokens: int, most_output: int
) -> tuple[Row, ...]:
    """Return ``rows`` with token counts times ``scale``, clipped so that each fits the context.

    Blocks keep their ids: the prompt maker scales what one of them stands for.
    """

    def clip(row: Row) -> Row:
        output = min(max(1, round(row.output_tokens * scale)), most_output, context_tokens // 2)
        room = context_tokens - output - 1
        return replace(
            row,
            prompt_tokens=min(max(1, round(row.prompt_tokens * scale)), room),
            output_tokens=output,
        )

    return tuple(clip(row) for row in rows)


def strata(rows: Sequence[Row], *, count: int, seed: int) -> tuple[Row, ...]:
    """Return ``count`` of ``rows`` that have their mix of sizes, in a seeded order."""
    ordered = sorted(rows, key=lambda row: (row.prompt_tokens, row.output_tokens))
    step = len(ordered) / count
    picked = [ordered[min(len(ordered) - 1, int((at + 0.5) * step))] for at in range(count)]
    random.Random(f"strata:{seed}").shuffle(picked)
    return tuple(picked)


def _azure(path: Path, text: str) -> Iterable[Row]:
    reader = csv.DictReader(io.StringIO(text))
    if not set(_AZURE) <= set(reader.fieldnames or ()):
        raise InvalidInput(
            f"{path} has the columns {', '.join(reader.fieldnames or ()) or 'none'}",
            hint=f"an Azure trace has {', '.join(_AZURE)}; a Mooncake trace is JSON lines",
            param="trace",
        )
    for record in reader:
        try:
            at = datetime.fromisoformat(record["TIMESTAMP"]).timestamp()
            yield _row(at, record["ContextTokens"], record["GeneratedTokens"])
        except (TypeError, ValueError) as error:
            raise _bad(path, reader.line_num, error, "a time and two whole numbers") from None


def _mooncake(path: Path, text: str) -> Iterable[Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            at, prompt, output = (record[key] for key in _MOONCAKE)
            blocks = tuple(int(block) for block in record.get("hash_ids", ()))
            yield replace(_row(float(at) / 1e3, prompt, output), blocks=blocks)
        except (KeyError, TypeError, ValueError) as error:
            raise _bad(path, number, error, f"an object with {', '.join(_MOONCAKE)}") from None


def _row(at: float, prompt: Any, output: Any) -> Row:
    row = Row(at, int(prompt), int(output))
    if row.prompt_tokens < 1 or row.output_tokens < 0:
        raise ValueError(f"{prompt} tokens in and {output} out")
    return row


def _bad(path: Path, number: int, error: Exception, rule: str) -> InvalidInput:
    said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return InvalidInput(
        f"{path}, line {number}: {said}",
        hint=f"a row is {rule}; mend the line or cut it out",
        param="trace",
    )
