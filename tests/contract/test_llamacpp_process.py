"""The llama.cpp child under violence: killed, frozen, orphaned, fed rubbish."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ondol.backends.llamacpp_generator import LlamaCppGenerator
from ondol.backends.llamacpp_process import SupervisorLimits
from ondol.backends.protocols import GeneratorHealth
from ondol.core.cancel import CancelToken
from ondol.core.errors import GeneratorDied, ModelError, NotReady
from ondol.core.types import DoneEvent, GenerationRequest, Message, TokenEvent

PATIENCE_SECONDS = 60.0


class States:
    """Hears every state, and lets a test wait for one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.heard: list[GeneratorHealth] = []

    def __call__(self, health: GeneratorHealth) -> None:
        with self._changed:
            self.heard.append(health)
            self._changed.notify_all()

    def wait_for(self, state: str, *, times: int = 1) -> None:
        def heard() -> bool:
            return sum(health.state == state for health in self.heard) >= times

        with self._changed:
            assert self._changed.wait_for(heard, PATIENCE_SECONDS), self.heard


def story(text: str = "Tell me a long story.", *, max_tokens: int = 1000) -> GenerationRequest:
    return GenerationRequest([Message("user", text)], max_tokens=max_tokens)


def answer(generator: LlamaCppGenerator) -> DoneEvent:
    *_, done = generator.generate(story(max_tokens=3), cancel=CancelToken())
    assert isinstance(done, DoneEvent)
    return done


def child_pid(generator: LlamaCppGenerator) -> int:
    assert generator.child is not None
    return generator.child.pid


def computing_pid(generator: LlamaCppGenerator) -> int:
    """Return the process that computes: a native build's is a child of the child."""
    pid = child_pid(generator)
    inner = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(inner[0]) if inner else pid


def wait_gone(pid: int) -> None:
    """Return when no process (or only a zombie of somebody else's) has this id."""
    until = time.monotonic() + PATIENCE_SECONDS
    while _state_of(pid) not in ("", "Z"):
        assert time.monotonic() < until, f"process {pid} is still there"
        time.sleep(0.01)


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.fixture(params=["portable", pytest.param("native", marks=pytest.mark.native)])
def program(request: pytest.FixtureRequest) -> Path | None:
    """What runs: the wheel's server, or the one that was built here."""
    found: Path | None = None
    if request.param == "native":
        found = request.getfixturevalue("native_program")
    return found


@pytest.fixture
def opened(
    tiny_generator: Path, program: Path | None
) -> Iterator[Callable[..., LlamaCppGenerator]]:
    """Open generators that are closed when the test ends."""
    generators: list[LlamaCppGenerator] = []

    def open_one(*, states: States | None = None, **patience: float) -> LlamaCppGenerator:
        generator = LlamaCppGenerator(
            tiny_generator,
            model="tiny",
            context_tokens=2048,
            program=program,
            patience=SupervisorLimits(first_delay=0.01, **patience),  # type: ignore[arg-type]
            on_state=states,
        )
        generators.append(generator)
        return generator

    yield open_one
    for generator in generators:
        generator.close()


@pytest.mark.model
def test_a_killed_child_fails_its_requests_then_comes_back(
    opened: Callable[..., LlamaCppGenerator],
) -> None:
    states = States()
    generator = opened(states=states)
    events = iter(generator.generate(story(), cancel=CancelToken()))
    assert isinstance(next(events), TokenEvent)
    first = child_pid(generator)

    os.kill(first, signal.SIGKILL)
    with pytest.raises(GeneratorDied, match="signal 9"):
        list(events)

    health = generator.health()
    assert not health.ready
    with pytest.raises(NotReady) as refused:
        answer(generator)
    assert refused.value.retry_after > 0
    states.wait_for("ready", times=2)
    assert answer(generator).usage.completion_tokens == 3
    assert [h.state for h in states.heard] == ["ready", "restarting", "ready"]
    assert generator.health().restarts == 1
    assert child_pid(generator) != first
    assert _state_of(first) == ""


@pytest.mark.model
def test_death_is_noticed_while_nobody_asks(opened: Callable[..., LlamaCppGenerator]) -> None:
    states = States()
    generator = opened(states=states)

    os.kill(child_pid(generator), signal.SIGKILL)

    states.wait_for("restarting")
    states.wait_for("ready", times=2)
    assert generator.count_tokens("one") == 1


@pytest.mark.model
def test_a_frozen_child_is_killed_and_replaced(opened: Callable[..., LlamaCppGenerator]) -> None:
    states = States()
    generator = opened(states=states, stall=0.5, probe=0.1)
    events = iter(generator.generate(story(), cancel=CancelToken()))
    next(events)
    frozen = computing_pid(generator)

    os.kill(frozen, signal.SIGSTOP)
    with pytest.raises(GeneratorDied):
        list(events)

    states.wait_for("restarting")
    assert "hung" in states.heard[1].reason
    wait_gone(frozen)
    states.wait_for("ready", times=2)
    assert answer(generator).finish_reason == "length"


@pytest.mark.model
def test_too_many_deaths_in_a_row_are_final(opened: Callable[..., LlamaCppGenerator]) -> None:
    states = States()
    generator = opened(states=states, deaths=2)

    os.kill(child_pid(generator), signal.SIGKILL)
    states.wait_for("ready", times=2)
    os.kill(child_pid(generator), signal.SIGKILL)

    states.wait_for("failed")
    assert "2 times in a row" in generator.health().reason
    with pytest.raises(NotReady, match="failed"):
        answer(generator)


@pytest.mark.model
def test_a_finished_request_clears_the_count_of_deaths(
    opened: Callable[..., LlamaCppGenerator],
) -> None:
    states = States()
    generator = opened(states=states, deaths=2)

    for times in (2, 3):
        os.kill(child_pid(generator), signal.SIGKILL)
        states.wait_for("ready", times=times)
        answer(generator)

    assert generator.health().ready


@pytest.mark.model
def test_closing_in_mid_request_leaves_no_process(
    opened: Callable[..., LlamaCppGenerator],
) -> None:
    generator = opened()
    events = iter(generator.generate(story(), cancel=CancelToken()))
    next(events)
    pids = [child_pid(generator), computing_pid(generator)]

    generator.close()

    with pytest.raises(NotReady, match="closed"):
        list(events)
    for pid in pids:
        wait_gone(pid)


@pytest.mark.model
def test_a_process_that_ends_by_itself_is_described_as_it_ended(
    opened: Callable[..., LlamaCppGenerator],
) -> None:
    states = States()
    generator = opened(states=states)

    os.kill(computing_pid(generator), signal.SIGABRT)

    states.wait_for("restarting")
    assert f"signal {signal.SIGABRT:d}" in states.heard[1].reason


ORPHAN = """
import sys, time
from pathlib import Path
from ondol.backends.llamacpp_generator import LlamaCppGenerator
program = Path(sys.argv[2]) if sys.argv[2:] else None
generator = LlamaCppGenerator(Path(sys.argv[1]), model="tiny", context_tokens=512, program=program)
pid = generator.child.pid
print(pid, *Path(f"/proc/{pid}/task/{pid}/children").read_text().split(), flush=True)
sys.stdin.read()
"""


@pytest.mark.model
@pytest.mark.parametrize("end", ["killed", "exited"])
def test_the_child_does_not_outlive_its_parent(
    tiny_generator: Path, program: Path | None, end: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(tiny_generator), *([str(program)] if program else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        if end == "killed":
            parent.kill()
        else:
            parent.stdin.close()
        parent.wait(PATIENCE_SECONDS)

    for pid in pids:
        wait_gone(pid)


@pytest.mark.model
def test_secrets_are_not_on_the_command_line(opened: Callable[..., LlamaCppGenerator]) -> None:
    generator = opened()
    assert generator.child is not None
    assert generator.child.endpoint is not None
    key = generator.child.endpoint.key

    assert len(key) >= 32
    for pid in (child_pid(generator), computing_pid(generator)):
        for page in ("cmdline", "environ"):
            assert key.encode() not in Path(f"/proc/{pid}/{page}").read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "not a GGUF file"),
        (b"%PDF-1.7 hello", "not a GGUF file"),
        (b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 64, "could not be loaded"),
    ],
)
def test_a_bad_file_is_named_and_leaves_no_process(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "broken.gguf"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ModelError, match=said) as error:
        LlamaCppGenerator(path, model="broken")

    assert "broken.gguf" in error.value.message
    assert error.value.hint
    assert not [t for t in threading.enumerate() if t.name == "ondol-llamacpp"]
