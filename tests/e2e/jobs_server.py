"""``ondol serve`` over fake models and a task of its own: ``python jobs_server.py PORT``.

The task asks the fake generator in the lane ``batch`` and says its words; each run is a line in
``worked.log`` of the home. An item whose text begins with ``poison`` cannot be worked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.errors import InvalidInput
from ondol.core.events import Observer, Timing
from ondol.core.request_terms import RequestTerms
from ondol.core.settings import Settings, load_settings
from ondol.core.types import GenerationRequest, Message
from ondol.jobs.work import FakeWork, WorkOutput
from ondol.server.app import serve


class SayingWork(FakeWork):
    """The fake task, done by the generator."""

    container: Container

    async def run(
        self, task: str, input: Mapping[str, Any], *, terms: RequestTerms, timing: Timing
    ) -> WorkOutput:
        text: str = input["text"]
        with (self.container.settings.home / "worked.log").open("a", encoding="utf-8") as log:
            log.write(f"{text}\n")
        if text.startswith("poison"):
            raise InvalidInput("this item is poisoned", hint="leave it out", code="poisoned")
        request = GenerationRequest(messages=(Message("user", text),), max_tokens=64)
        said = await self.container.chat.complete(request, terms=terms, timing=timing)
        return WorkOutput({"said": said.text}, {"usage": {"tokens": said.usage.completion_tokens}})


def container(settings: Settings, observer: Observer) -> Container:
    work = SayingWork()
    parts = Parts(embedder=False, reranker=False, keywords=False, fake=True)
    work.container = Container.open(settings, parts=parts, observer=observer, work=work)
    return work.container


if __name__ == "__main__":
    serve(load_settings(flags={"server.port": int(sys.argv[1])}), opener=container)
