"""Which form a generator runs in: named, measured here, built here, or the wheel's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ondol.models.generator_form import NATIVE, PORTABLE, KnownGenerator, choose_generator_form
from ondol.models.profile import Chosen, ModelProfile, ProfileKey

KEY = ProfileKey(cpu="x", cores=2, versions={}, fingerprint="f")
PROFILE = ModelProfile(
    model="tiny",
    key=KEY,
    tuned="2026-11-21",
    chosen={
        "chat": Chosen(NATIVE, threads=2, token_budget=96),
        "batch": Chosen(PORTABLE, threads=1, token_budget=256),
    },
    evidence=(
        {"form": NATIVE, "prefill_tokens_per_second": 390.0},
        {"form": PORTABLE, "prefill_tokens_per_second": 210.0},
        {"form": NATIVE, "failure": "it did not start"},
    ),
)
BOTH = KnownGenerator(
    cores=2, weight_bytes=491_400_064, offered=(PORTABLE, NATIVE), profile=PROFILE
)
UNTUNED = replace(BOTH, profile=None)


def test_takes_what_was_measured_here_with_its_figures() -> None:
    found = choose_generator_form(BOTH)

    assert (found.form, found.threads, found.batch_tokens) == (NATIVE, 2, 96)
    assert found.prefill_rate == 390.0
    assert "tune" in found.reason


def test_each_purpose_has_its_own_choice() -> None:
    found = choose_generator_form(BOTH, purpose="batch")

    assert (found.form, found.threads, found.batch_tokens) == (PORTABLE, 1, 256)


@pytest.mark.parametrize(
    ("known", "form"),
    [(UNTUNED, NATIVE), (replace(UNTUNED, offered=(PORTABLE,)), PORTABLE)],
)
def test_without_a_measurement_a_build_goes_before_the_wheel(
    known: KnownGenerator, form: str
) -> None:
    found = choose_generator_form(known)

    assert found.form == form
    assert found.batch_tokens == 64
    assert found.prefill_rate == pytest.approx(275 if form == NATIVE else 203, rel=0.02)


def test_a_measured_form_that_is_gone_is_not_taken() -> None:
    found = choose_generator_form(replace(BOTH, offered=(PORTABLE,)))

    assert (found.form, found.prefill_rate) == (PORTABLE, 210.0)


def test_the_settings_have_the_last_word() -> None:
    named = choose_generator_form(BOTH, wanted=PORTABLE, threads=1, batch_tokens=128)
    untuned = choose_generator_form(BOTH, tuned=False)

    assert (named.form, named.threads, named.batch_tokens) == (PORTABLE, 1, 128)
    assert (untuned.form, untuned.batch_tokens) == (NATIVE, 64)
