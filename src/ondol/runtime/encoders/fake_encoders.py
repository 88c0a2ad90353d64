"""An encoder source without weights: the fakes, in any form that is asked for.

For dry runs and tests. A form whose precision is ``broken`` cannot be loaded, so that what happens
then can be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ondol.backends.fake_encoder import FakeEmbedder, FakeReranker
from ondol.backends.protocols import EncoderBackend
from ondol.core.errors import ModelError
from ondol.models.form_choice import FormChoice
from ondol.runtime.encoders.encoder_plan import EncoderPlan

REFERENCE = "fake:fp32"


class FakeEncoders:
    """Fake embedders or rerankers."""

    def __init__(self, role: Literal["embedder", "reranker"], *, form: str = "auto") -> None:
        self._role = role
        self._form = form

    def plan(self, *, form: str = "auto") -> EncoderPlan:
        named = form if form != "auto" else self._form
        query = FormChoice(
            named if named != "auto" else REFERENCE,
            "named" if named != "auto" else "the only one",
            threads=1,
        )
        return EncoderPlan(
            model=f"fake-{self._role}",
            role=self._role,
            query=query,
            reference=FormChoice(REFERENCE, "the reference form", threads=1),
            languages=("en",),
            space="fake",
        )

    def encoder(self, choice: FormChoice) -> EncoderBackend:
        if choice.form.endswith(":broken"):
            raise ModelError(f"{choice.form} is broken", hint="it is meant to be")
        if self._role == "embedder":
            return FakeEmbedder(form=choice.form)
        return FakeReranker(form=choice.form)

    def weight_bytes(self, form: str) -> int:
        return 0

    def fidelity(self, form: str) -> Mapping[str, float]:
        return {}
