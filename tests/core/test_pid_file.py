"""Which process serves: found only for certain, and a signal reaches that process or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ondol.core.pid_file import NAME, announced, server_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_server_is_known_while_it_runs(tmp_path: Path) -> None:
    assert server_process(tmp_path) is None
    with announced(tmp_path / "home", port=8400):
        found = server_process(tmp_path / "home")
        assert found is not None
        assert (found.pid, found.port) == (os.getpid(), 8400)
    assert server_process(tmp_path / "home") is None
    assert not (tmp_path / "home" / NAME).exists()


def test_a_second_server_keeps_its_own_name(tmp_path: Path) -> None:
    with announced(tmp_path, port=1):
        second = (tmp_path / NAME).read_text().replace('"port": 1', '"port": 2')
        (tmp_path / NAME).write_text(second)
    found = server_process(tmp_path)
    assert found is not None
    assert found.port == 2


@pytest.mark.parametrize("text", ["", "12", "{}", '{"pid": "x"}', "[1]", "\ud800"])
def test_a_file_that_says_nothing_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert server_process(tmp_path) is None


def test_a_process_id_that_is_used_again_is_not_the_server(tmp_path: Path) -> None:
    """A killed server leaves its file; whoever has its number now must not be hit."""
    with announced(tmp_path, port=1):
        said = json.loads((tmp_path / NAME).read_text())
        found = server_process(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        try:
            (tmp_path / NAME).write_text(json.dumps(said | {"pid": other.pid}))
            assert server_process(tmp_path) is None
            assert found is not None
            stale = type(found)(pid=other.pid, started_ticks=found.started_ticks, port=1)
            assert not stale.terminate()
            assert other.poll() is None
            real = json.loads((tmp_path / NAME).read_text())
            real["started_ticks"] = int(
                Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19]
            )
            (tmp_path / NAME).write_text(json.dumps(real))
            known = server_process(tmp_path)
            assert known is not None
            assert known.terminate()
            assert other.wait(30) == -15
            assert not known.terminate()
        finally:
            other.kill()
