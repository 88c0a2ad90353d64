"""What an encoder in service says of itself, and what a change of its form changes."""

from __future__ import annotations

from collections.abc import Callable

from ondol.backends.fake_encoder import FakeEmbedder
from ondol.models.form_choice import FormChoice
from ondol.runtime.encoders.batcher import BatcherLimits
from ondol.runtime.encoders.encoder_plan import LoadedEncoder
from ondol.runtime.encoders.encoder_slot import EncoderSlot


def builder(form: str, *, token_budget: int = 0) -> Callable[[], LoadedEncoder]:
    choice = FormChoice(form, "the test says so", threads=1, token_budget=token_budget)
    return lambda: LoadedEncoder(FakeEmbedder(form=form), choice, weight_bytes=7)


async def test_an_unloaded_encoder_says_what_it_was_and_holds_no_memory() -> None:
    slot = EncoderSlot(builder("fake:fp32"), name="fake", limits=BatcherLimits())
    assert (slot.info().model, slot.info().form) == ("fake", "")
    await slot.load()
    assert slot.info().memory.weights_bytes == 7
    assert await slot.unload()
    info = slot.info()
    assert (info.form, info.memory.resident_bytes) == ("fake:fp32", 0)
    assert slot.spec.dimensions == 64, "what it is stays known"
    await slot.close()


async def test_a_form_that_was_reloaded_survives_the_idle_time() -> None:
    slot = EncoderSlot(builder("fake:fp32"), name="fake", limits=BatcherLimits())
    await slot.load()
    await slot.reload_from(builder("fake:int8", token_budget=99))
    assert await slot.unload()
    result = await slot.submit(["a"])
    assert result.spec is not None
    assert result.spec.form == "fake:int8"
    batch = slot.info().batch
    assert batch is not None
    assert batch.token_budget == 99
    await slot.close()
