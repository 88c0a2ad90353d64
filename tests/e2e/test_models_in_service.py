"""The life cycle with real weights: swapped under real load, memory given back, damage survived."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.api.stage import listening

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.process import resident_bytes
from ondol.core.settings import Settings
from ondol.server.app import create_app

pytestmark = pytest.mark.model

MODEL = "multilingual-e5-small"
EMBEDDER_ONLY = Parts(reranker=False, keywords=False, generator=False)


@pytest.fixture
def home(tmp_path: Path, models_folder: Path) -> Path:
    """A home whose model is made of links, so that its files can be replaced one by one."""
    source = models_folder / MODEL
    if not (source / "manifest.json").is_file():
        pytest.skip(f"{MODEL} is not here: ondol models pull {MODEL}")
    folder = tmp_path / "home" / "models" / MODEL
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "manifest.json":
            os.symlink(path.resolve(), folder / path.name)
    (folder / "manifest.json").write_bytes((source / "manifest.json").read_bytes())
    return tmp_path / "home"


def settings(home: Path, **models: object) -> Settings:
    return Settings.model_validate(
        {
            "home": home,
            "offline": True,
            "models": {"embedder": MODEL, "reranker": "none", **models},
            "server": {"port": 0, "drain_seconds": 5},
            "cache": {"embeddings": "off"},
        }
    )


@contextmanager
def serving(wanted: Settings) -> Iterator[str]:
    app = create_app(wanted, opener=lambda s, o: Container.open(s, parts=EMBEDDER_ONLY, observer=o))
    with listening(app, wanted) as process:
        yield process.url


def test_no_request_fails_while_the_form_is_swapped(home: Path) -> None:
    stop = threading.Event()
    codes: Counter[int] = Counter()
    lock = threading.Lock()

    def ask(url: str, number: int) -> None:
        seen: Counter[int] = Counter()
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                body = {"model": "auto", "input": [f"연차 휴가는 며칠인가요 {number}", "a bus"]}
                seen[client.post("/v1/embeddings", json=body).status_code] += 1
        with lock:
            codes.update(seen)

    with serving(settings(home, form="onnx:int8")) as url:
        asking = [threading.Thread(target=ask, args=(url, n)) for n in range(4)]
        for thread in asking:
            thread.start()
        with httpx.Client(base_url=url, timeout=120) as client:
            for form in ("onnx:fp32", "onnx:int8", "onnx:fp32"):
                body = {"component": "embedder", "form": form}
                assert client.post("/v1/models/reload", json=body).status_code == 200
                slot = client.get(f"/v1/models/{MODEL}").json()["slots"][0]
                assert slot["form"] == form
        stop.set()
        for thread in asking:
            thread.join(60)
    assert set(codes) == {200}


async def test_unloading_gives_the_memory_back_and_the_next_request_loads(home: Path) -> None:
    container = Container.open(settings(home, form="onnx:int8"), parts=EMBEDDER_ONLY)
    async with container:
        before = await container.embedding.embed(["온돌은 따뜻하다"], role="query")
        group = container.encoders["embedder"]
        loaded = resident_bytes()
        assert await group.unload()
        unloaded = resident_bytes()
        assert loaded is not None
        assert unloaded is not None
        (slot,) = group.slots
        assert slot.state == "cold"
        assert loaded - unloaded > 0.8 * slot.memory.weights_bytes
        after = await container.embedding.embed(["온돌은 따뜻하다"], role="query")
        assert group.slots[0].loads == 2
        np.testing.assert_allclose(after.vectors, before.vectors, atol=1e-6)


@pytest.mark.parametrize(
    ("form", "said"),
    [("onnx:int8", "onnx:int8 failed"), ("torch:fp16@cuda", "torch:fp16@cuda failed")],
)
def test_a_form_that_cannot_run_leaves_a_server_on_the_reference(
    home: Path, form: str, said: str
) -> None:
    if form == "onnx:int8":
        built = home / "models" / MODEL / "model.int8.onnx"
        size = built.stat().st_size
        built.unlink()
        with built.open("wb") as damaged:
            damaged.truncate(size)
    elif Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is a GPU here")
    with (
        serving(settings(home, form=form)) as url,
        httpx.Client(base_url=url, timeout=120) as client,
    ):
        embedder = client.get("/health/ready").json()["components"]["embedder"]
        assert (embedder["state"], embedder["form"]) == ("ready", "onnx:fp32")
        assert embedder["fallback"].startswith(said)
        body = {"model": "auto", "input": "온돌"}
        assert client.post("/v1/embeddings", json=body).status_code == 200
        slot = client.get(f"/v1/models/{MODEL}").json()["slots"][0]
        assert slot["fallback"].startswith(said)
        assert f'wanted="{form}"}} 1.0' in client.get("/metrics").text
