"""What is asked and when: traces, sizes, arrivals and texts, the same for the same seed."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from ondol.core.errors import BackendError, InvalidInput
from ondol.lab.bench.load_plan import Arrivals, leaving
from ondol.lab.bench.load_prompts import WORDS, Messages, PromptMaker, Yardstick
from ondol.lab.bench.request_trace import Row, read_trace, rows_of_sizes, scaled, strata

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def words_in(messages: Messages) -> int:
    return 10 + sum(len(message["content"].split()) for message in messages)


def test_an_azure_trace_begins_at_zero_in_order_of_arrival(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(
        f"{AZURE}2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:46.6805900,374,44\n"
    )
    first, second = read_trace(path)
    assert first == Row(0.0, 374, 44)
    assert second.at == pytest.approx(4.314579, abs=1e-5)


def test_a_mooncake_trace_keeps_its_blocks(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.jsonl"
    rows = [
        {"timestamp": 1000, "input_length": 700, "output_length": 9, "hash_ids": [0, 1]},
        {"timestamp": 3500, "input_length": 600, "output_length": 8, "hash_ids": [0, 2]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_trace(path) == (Row(0.0, 700, 9, (0, 1)), Row(2.5, 600, 8, (0, 2)))


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (f"{AZURE}2023-11-16 18:15:46,many,44\n", "line 2", "two whole numbers"),
        (f"{AZURE}yesterday,374,44\n", "line 2", "a time"),
        (f"{AZURE}2023-11-16 18:15:46,0,44\n", "0 tokens in", "a time"),
        ("a,b\n1,2\n", "columns a, b", "TIMESTAMP"),
        (AZURE, "no requests", "rows"),
        ('{"timestamp": 0, "input_length": 5}\n', "'output_length' is missing", "input_length"),
        ('{"timestamp": 0,\n', "line 1", "an object"),
    ],
)
def test_a_trace_that_is_none_is_named_with_its_line(
    tmp_path: Path, text: str, said: str, hint: str
) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=said) as caught:
        read_trace(path)
    assert hint in caught.value.hint


def test_a_trace_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_trace(tmp_path / "none.csv")


@pytest.mark.parametrize("text", ["60", "60x", "x5", "0x5", "60x5@0", "60x5,,"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        rows_of_sizes(text, count=1, seed=0)
    assert "PROMPTxANSWER" in caught.value.hint


def test_sizes_come_by_their_weights_and_the_same_for_a_seed() -> None:
    rows = rows_of_sizes("60x16@9,1200x32", count=1000, seed=1)
    short = sum(row.prompt_tokens == 60 for row in rows)
    assert 850 < short < 950
    assert rows == rows_of_sizes("60x16@9,1200x32", count=1000, seed=1)
    assert rows != rows_of_sizes("60x16@9,1200x32", count=1000, seed=2)


def test_scaled_rows_fit_the_context() -> None:
    rows = [Row(0, 1000, 100), Row(1, 90_000, 9000), Row(2, 1, 0)]
    small, huge, least = scaled(rows, scale=0.5, context_tokens=2048, most_output=512)
    assert (small.prompt_tokens, small.output_tokens) == (500, 50)
    assert (huge.output_tokens, huge.prompt_tokens) == (512, 2048 - 512 - 1)
    assert (least.prompt_tokens, least.output_tokens) == (1, 1)


def test_strata_keep_the_mix() -> None:
    rows = [Row(0, size, 1) for size in range(1, 1001)]
    picked = sorted(row.prompt_tokens for row in strata(rows, count=10, seed=0))
    assert picked == [51 + 100 * at for at in range(10)]
    assert len(strata(rows[:3], count=7, seed=0)) == 7


def test_poisson_arrivals_are_one_pattern_stretched() -> None:
    rows = [Row(0, 1, 1)] * 4000
    one = Arrivals(seed=3).times(rows, rate=1.0)
    fast = Arrivals(seed=3).times(rows, rate=4.0)
    assert one == Arrivals(seed=3).times(rows, rate=1.0)
    assert one != Arrivals(seed=4).times(rows, rate=1.0)
    assert fast == pytest.approx([at / 4 for at in one])
    assert all(before < after for before, after in pairwise(one))
    assert one[-1] / 4000 == pytest.approx(1.0, rel=0.05)


def test_bursts_and_the_traces_own_rhythm() -> None:
    rows = [Row(at, 1, 1) for at in (5.0, 6.0, 9.0)]
    assert Arrivals("burst").times(rows, rate=9) == (0, 0, 0)
    assert Arrivals("burst", size=2, every=1.5).times(rows, rate=9) == (0, 0, 1.5)
    assert Arrivals("trace").times(rows, rate=0.5) == pytest.approx((0, 1, 4))


def test_leavers_are_a_share_and_the_same_for_a_seed() -> None:
    left = leaving(1000, share=0.5, within=2.0, seed=1)
    assert left == leaving(1000, share=0.5, within=2.0, seed=1)
    times = [after for after in left if after is not None]
    assert 430 < len(times) < 570
    assert 0 <= min(times) <= max(times) <= 2
    assert leaving(3, share=0, within=2.0, seed=1) == (None, None, None)


def test_prompts_have_the_wanted_number_of_tokens() -> None:
    yardstick = Yardstick.measure(words_in)
    maker = PromptMaker(yardstick, seed=1)
    for wanted in (40, 41, 500):
        assert words_in(maker.messages(Row(0, wanted, 1), number=wanted)) == wanted
    least = words_in(maker.messages(Row(0, 1, 1), number=0))
    assert least == yardstick.base + 1


def test_words_that_are_not_one_token_are_left_out() -> None:
    costly = set(WORDS[16:32])

    def count(messages: Messages) -> int:
        text = " ".join(message["content"] for message in messages).split()
        return sum(2 if word in costly else 1 for word in text)

    yardstick = Yardstick.measure(count)
    assert not costly & set(yardstick.words)
    assert yardstick.tokens_per_word == 1.0
    maker = PromptMaker(yardstick, seed=1)
    assert count(maker.messages(Row(0, 300, 1), number=0)) == 300


def test_a_tokenizer_without_whole_words_is_met_on_average() -> None:
    def count(messages: Messages) -> int:
        return sum(len(message["content"]) for message in messages)

    yardstick = Yardstick.measure(count)
    assert 4 < yardstick.tokens_per_word < 8
    maker = PromptMaker(yardstick, seed=1)
    assert count(maker.messages(Row(0, 3000, 1), number=0)) == pytest.approx(3000, rel=0.1)


def test_a_server_that_counts_nothing_is_refused() -> None:
    with pytest.raises(BackendError, match="whatever the prompt is"):
        Yardstick.measure(lambda messages: 7)


def test_texts_share_no_prefix_but_the_system_prompt() -> None:
    maker = PromptMaker(Yardstick.measure(words_in), seed=1)
    row = Row(0, 200, 1)
    one, other = (maker.messages(row, number=number)[1]["content"] for number in (0, 1))
    assert one == maker.messages(row, number=0)[1]["content"]
    shared = next(at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    assert shared < 30


def test_shared_blocks_are_shared_text() -> None:
    maker = PromptMaker(Yardstick.measure(words_in), seed=1, scale=0.25)
    one, other = (
        maker.messages(Row(0, 300, 1, blocks), number=number)[1]["content"].split()
        for number, blocks in enumerate([(7, 8, 9), (7, 8, 5)])
    )
    assert one[:257] == other[:257]  # "Notes:" and two blocks of 512 / 4 words
    assert one[257:262] != other[257:262]
    assert words_in(maker.messages(Row(0, 300, 1, (7, 8, 9)), number=0)) == 300
