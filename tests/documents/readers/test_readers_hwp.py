"""HWP and HWPX: every real file of the shared data, and hostile ones made from them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.documents.readers.documents import DATA
from tests.documents.readers.packed import packed

from ondol.core.types import ReadDocument
from ondol.documents.readers import (
    IsolatedReader,
    ReadFailure,
    ReadItem,
    ReadLimits,
    read,
    read_bytes,
    table_place,
)

LIMITS = ReadLimits()
EXPECTED = json.loads((DATA.parent / "hostile_files.json").read_text("utf-8"))["hwp"]
REFUSED = {name: wanted["refused"] for name, wanted in EXPECTED.items() if "refused" in wanted}
SAYS = {name: wanted["says"] for name, wanted in EXPECTED.items() if "says" in wanted}
PASSWORD_FLAG = 1 << 1


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    pytest.importorskip("unhwp")
    return shared_data / "hwp"


def only(path: Path) -> ReadItem:
    (item,) = read(path, limits=LIMITS)
    return item


def code(data: bytes, name: str) -> str:
    (item,) = read_bytes(data, name=name, limits=LIMITS)
    assert isinstance(item, ReadFailure), item
    assert repr(name) in item.error.message
    assert item.error.hint
    return item.error.code


def test_every_shared_file_has_its_outcome(folder: Path) -> None:
    lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines()
    names = {json.loads(line)["file"] for line in lines}
    assert names == REFUSED.keys() | SAYS.keys()
    for name in sorted(names):
        item = only(folder / name)
        if name in REFUSED:
            assert isinstance(item, ReadFailure), name
            assert (name, item.error.code) == (name, REFUSED[name])
        else:
            assert isinstance(item, ReadDocument), (name, item)
            assert SAYS[name] in item.text, (name, item.text[:300])
            assert item.title, name
            assert not item.warnings, name


def test_rows_know_their_table_and_row(folder: Path) -> None:
    item = only(folder / "hwpx_table.hwpx")
    assert isinstance(item, ReadDocument)
    place = table_place(item.text, item.text.index("팔푼이"))
    assert place is not None
    assert (place.table, place.row) == (1, 4)
    assert table_place(item.text, item.text.index("날짜")) is None


def test_damaged_and_mislabelled_files(folder: Path) -> None:
    hwp = (folder / "hwp5_table.hwp").read_bytes()
    hwpx = (folder / "hwpx_table.hwpx").read_bytes()
    assert code(hwp[:9000], "a.hwp") == "damaged"
    assert code(hwp[:600], "a.hwp") == "damaged"
    assert code(hwpx[:9000], "a.hwpx") == "damaged"
    assert code(b"%!PS nothing", "a.hwp") == "wrong_type"
    assert code(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a.doc") == "unsupported"
    (item,) = read_bytes(hwpx, name="upload", limits=LIMITS)
    assert isinstance(item, ReadDocument)


def test_a_password_is_seen_in_the_header(folder: Path) -> None:
    data = bytearray((folder / "hwp5_table.hwp").read_bytes())
    data[data.index(b"HWP Document File") + 36] |= PASSWORD_FLAG
    assert code(bytes(data), "a.hwp") == "encrypted"


def test_packed_files_are_looked_into_before_they_are_parsed() -> None:
    kind = {"mimetype": "application/hwp+zip"}
    locked = "<manifest><file-entry><encryption-data/></file-entry></manifest>"
    assert code(packed({**kind, "META-INF/manifest.xml": locked}), "a.hwpx") == "encrypted"
    bomb = packed({**kind, "Contents/section0.xml": b"<a>" + b" " * 170_000_000})
    assert len(bomb) < 400_000
    assert code(bomb, "a.hwpx") == "too_large"


def test_without_its_library_an_hwp_file_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unhwp", None)
    packed_document = packed({"mimetype": "application/hwp+zip", "Contents/section0.xml": "<a/>"})
    assert code(packed_document, "a.hwpx") == "unsupported"


def test_noise_inside_never_passes_for_a_document(folder: Path) -> None:
    data = (folder / "hwp5_noori_report.hwp").read_bytes()
    for at in range(2_000, len(data) - 4_000, 30_000):
        broken = data[:at] + bytes(range(256)) * 8 + data[at + 2_048 :]
        (item,) = read_bytes(broken, name="a.hwp", limits=LIMITS)
        assert isinstance(item, ReadDocument) or item.error.code in {
            "damaged",
            "unsupported",
            "empty",
        }


def test_it_reads_in_the_child_process_too(folder: Path) -> None:
    with IsolatedReader() as reader:
        for name in ("hwpx_table.hwpx", "hwp5_table.hwp"):
            (item,) = reader.read(folder / name, limits=LIMITS)
            assert isinstance(item, ReadDocument)
