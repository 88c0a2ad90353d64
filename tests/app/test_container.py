from __future__ import annotations

from pathlib import Path

import pytest

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.errors import NotFound, NotReady
from ondol.core.settings import Settings


def settings(home: Path, **more: object) -> Settings:
    return Settings.model_validate({"home": home, **more})


async def test_search_goes_on_without_a_reranker_that_was_never_pulled(tmp_path: Path) -> None:
    parts = Parts(embedder=False, keywords=False, generator=False)
    async with Container.open(settings(tmp_path), parts=parts) as container:
        state = container.readiness().components["reranker"]
        assert state.state == "off"
        assert "ondol models pull" in state.reason
        assert container.readiness().ready
        with pytest.raises(NotReady, match="ondol models pull"):
            _ = container.reranking


async def test_a_reranker_that_must_rerank_is_missed(tmp_path: Path) -> None:
    parts = Parts(embedder=False, keywords=False, generator=False)
    wanted = settings(tmp_path, retrieval={"rerank": "on"})
    with pytest.raises(NotFound, match="ms-marco"):
        async with Container.open(wanted, parts=parts):
            pass


async def test_a_missing_embedder_names_the_command_that_gets_it(tmp_path: Path) -> None:
    parts = Parts(reranker=False, keywords=False, generator=False)
    with pytest.raises(NotFound) as caught:
        async with Container.open(settings(tmp_path), parts=parts):
            pass
    assert caught.value.hint == "ondol models pull multilingual-e5-small"


async def test_a_service_asked_for_before_it_is_loaded_says_when_to_come_back(
    tmp_path: Path,
) -> None:
    container = Container.open(settings(tmp_path), parts=Parts(fake=True))
    with pytest.raises(NotReady, match="loading") as caught:
        _ = container.embedding
    assert caught.value.retry_after > 0
    await container.close()


async def test_reload_swaps_the_embedder_under_the_service_that_is_held(
    container: Container,
) -> None:
    held = container.embedding
    await container.reload("embedder", form="fake:int8")
    assert container.encoders["embedder"].spec.form == "fake:int8"
    result = await held.embed(["하나"], role="query")
    assert result.vectors.shape == (1, held.dimensions)
