"""What the cost model learns from requests it has seen, and how it stays on its feet."""

from __future__ import annotations

import random

import pytest

from ondol.core.types import Message
from ondol.runtime.generation.cost import CostModel, FadingFit, PromptShape, Served


def served(
    prompt: int, *, cached: int = 0, output: int = 20, others: int = 0, noise: float = 1.0
) -> Served:
    uncached = prompt - cached
    prefill = 0.05 + 0.004 * uncached + 1e-6 * uncached * (cached + uncached / 2)
    prefill += 0.0005 * uncached * others
    return Served(
        shape=PromptShape(2, prompt * 4, 0),
        lane="chat",
        prompt_tokens=prompt,
        cached_tokens=cached,
        output_tokens=output,
        max_tokens=2 * output,
        prefill=prefill * noise,
        decode=(0.02 + 0.01 * others) * (output - 1) * noise,
        others=others,
        beside=others,
        expected_prefill=prefill,
    )


def taught(*, noise: float = 0.0, seed: int = 5) -> CostModel:
    model = CostModel(slots=4, tokens_per_second=100.0)
    draw = random.Random(seed)
    for _ in range(200):
        prompt = draw.randrange(50, 1500)
        cached = draw.choice([0, 0, prompt // 2])
        rough = draw.uniform(1 - noise, 1 + noise)
        model.learn(served(prompt, cached=cached, others=draw.randrange(4), noise=rough))
    return model


@pytest.mark.parametrize("prompt", [60, 300, 1200])
@pytest.mark.parametrize("others", [0, 3])
def test_predicts_what_it_was_taught(prompt: int, others: int) -> None:
    model = taught()
    estimate = model.estimate(
        PromptShape(2, prompt * 4, 0), lane="chat", max_tokens=100, others=others
    )
    truth = served(prompt, others=others)
    assert estimate.prompt_tokens == pytest.approx(prompt, rel=0.1)
    assert estimate.prefill == pytest.approx(truth.prefill, rel=0.2)
    assert estimate.output_tokens == pytest.approx(50, rel=0.1)
    assert estimate.decode == pytest.approx(49 * (0.02 + 0.01 * others), rel=0.2)


def test_what_is_cached_need_not_be_read() -> None:
    model = taught()
    shape = PromptShape(2, 4000, 0)
    cold = model.estimate(shape, lane="chat", max_tokens=10)
    warm = model.estimate(shape, lane="chat", max_tokens=10, cached_chars=3600)
    assert warm.uncached_tokens == pytest.approx(cold.uncached_tokens / 10, rel=0.05)
    assert warm.prefill < cold.prefill / 4
    assert warm.work < cold.work


def test_noise_widens_the_margin_of_caution() -> None:
    calm, rough = taught(noise=0.0), taught(noise=0.5)
    shape = PromptShape(2, 2000, 0)

    def margin(model: CostModel) -> float:
        estimate = model.estimate(shape, lane="chat", max_tokens=10)
        return estimate.surest / estimate.prefill

    assert 1.0 < margin(calm) < margin(rough) <= 2.0


def test_follows_a_machine_that_has_become_slower() -> None:
    model = taught()
    for _ in range(120):
        model.learn(served(random.Random(1).randrange(50, 1500), noise=3.0))
    estimate = model.estimate(PromptShape(2, 2000, 0), lane="chat", max_tokens=10)
    assert estimate.prefill == pytest.approx(3 * served(500).prefill, rel=0.4)


def test_trusts_nothing_before_three_requests_and_starts_from_the_prior() -> None:
    model = CostModel(slots=2, tokens_per_second=100.0)
    assert not model.measured
    estimate = model.estimate(PromptShape(1, 2000, 0), lane="chat", max_tokens=10)
    assert estimate.prefill == pytest.approx(estimate.uncached_tokens / 100.0, rel=0.01)
    for _ in range(3):
        model.learn(served(500))
    assert model.measured


def test_korean_costs_more_tokens_a_character_than_english() -> None:
    model = CostModel(slots=1)
    korean = PromptShape.of([Message("user", "연차휴가는 며칠인가요" * 20)])
    english = PromptShape.of([Message("user", "how many days" * 20)])
    per_char = [
        model.estimate(shape, lane="chat", max_tokens=1).prompt_tokens / shape.chars
        for shape in (korean, english)
    ]
    assert per_char[0] > 1.5 * per_char[1]


def test_a_fit_never_goes_below_zero_and_survives_nonsense() -> None:
    fit = FadingFit((0.0, 1.0), scale=(1, 1), floor=0.01)
    for x in range(1, 30):
        fit.learn((1.0, float(x)), 5.0 - 0.1 * x)
        fit.learn((1.0, float("nan")), 1.0)
        fit.learn((1.0, 1.0), -3.0)
    assert min(fit.coefficients) >= 0.0
    assert fit.seen == 29
