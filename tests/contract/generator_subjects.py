"""The generators under contract, each with what a test may ask of the world behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ondol.backends import llamacpp_child
from ondol.backends.fake_generator import FakeGenerator, echo
from ondol.backends.http_endpoint import Endpoint
from ondol.backends.llamacpp_generator import LlamaCppGenerator
from ondol.backends.openai_generator import OpenAIGenerator
from ondol.backends.openvino_genai_generator import OpenVinoGenAIGenerator
from ondol.backends.protocols import Generator
from ondol.core.errors import OndolError
from ondol.core.types import GenerationRequest
from ondol.models.generators import GeneratorSetup, load_generator

CONTEXT = 2048
SLOTS = 2
PATIENCE_SECONDS = 60.0


class Subject(ABC):
    """A generator that is ready, and a look behind it."""

    generator: Generator

    @abstractmethod
    def true_prompt_tokens(self, request: GenerationRequest) -> int:
        """Return the prompt's length, counted another way than by generating."""

    @abstractmethod
    def busy(self) -> int:
        """Return how many slots compute now."""

    def wait_busy(self, count: int) -> None:
        """Return when ``count`` slots compute; fails after a minute."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self.busy() != count:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.busy()} slots are busy, not {count}")
            time.sleep(0.005)

    @contextmanager
    def holding(self, *, prefill: bool) -> Iterator[None]:
        """Keep generations from getting past prefill (or past the first piece) for a while."""
        yield


class FakeSubject(Subject):
    def __init__(self) -> None:
        self._prefill, self._decode = threading.Event(), threading.Event()
        self._prefill.set()
        self._decode.set()
        self._fake = FakeGenerator(
            script=_endless, prefill_gate=self._prefill, decode_gate=self._decode
        )
        self.generator = self._fake

    def true_prompt_tokens(self, request: GenerationRequest) -> int:
        return sum(len(message.content.split()) for message in request.messages)

    def busy(self) -> int:
        return next(n for n in range(SLOTS + 1) if self._fake.wait_active(n, timeout=0))

    @contextmanager
    def holding(self, *, prefill: bool) -> Iterator[None]:
        gate = self._prefill if prefill else self._decode
        gate.clear()
        try:
            yield
        finally:
            gate.set()


class ServerSubject(Subject):
    """A generator with a llama.cpp server behind it, whose own pages tell the truth."""

    def __init__(self, generator: Generator, server: Endpoint) -> None:
        self.generator = generator
        self.server = server

    def true_prompt_tokens(self, request: GenerationRequest) -> int:
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        prompt = self.post("/apply-template", {"messages": messages})["prompt"]
        body = {"content": prompt, "add_special": True, "parse_special": True}
        return len(self.post("/tokenize", body)["tokens"])

    def busy(self) -> int:
        slots = self.server.call("GET", "/slots", timeout=PATIENCE_SECONDS).payload
        return sum(bool(slot["is_processing"]) for slot in slots)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = self.server.call("POST", path, body=body, timeout=PATIENCE_SECONDS)
        assert reply.status == 200, reply
        payload: dict[str, Any] = reply.payload
        return payload


def open_llamacpp(model: Path, *, program: Path | None = None) -> ServerSubject:
    generator = LlamaCppGenerator(
        model, model="tiny", context_tokens=CONTEXT, slots=SLOTS, batch_tokens=64, program=program
    )
    return ServerSubject(generator, endpoint_of(generator))


def endpoint_of(generator: LlamaCppGenerator) -> Endpoint:
    assert generator.child is not None
    assert generator.child.endpoint is not None
    return generator.child.endpoint


@contextmanager
def llama_server(model: Path, *, key: str) -> Iterator[Endpoint]:
    """A real llama.cpp HTTP server in a process of its own."""
    params = {
        "model.path": str(model),
        "n_ctx": CONTEXT * SLOTS,
        "n_parallel": SLOTS,
        "kv_unified": False,
        "n_batch": 64,
        "n_ubatch": 64,
        "cache_ram_mib": 0,
        "api_keys": [key],
        "port": 0,
        "verbosity": 1,
    }
    with subprocess.Popen(
        [sys.executable, "-P", llamacpp_child.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"GOMP_SPINCOUNT": "1000"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"parent": os.getpid(), "params": params}).encode() + b"\n")
        process.stdin.flush()
        address = json.loads(process.stdout.readline())["address"]
        yield Endpoint(address, key=key)
        process.stdin.close()
        process.wait(PATIENCE_SECONDS)


def open_upstream(server: Endpoint) -> ServerSubject:
    generator = OpenAIGenerator(
        f"{server.url}/v1", model="tiny", key=server.key, context_tokens=CONTEXT, slots=SLOTS
    )
    return ServerSubject(generator, server)


class GenAISubject(Subject):
    """OpenVINO GenAI; llama.cpp's own pages tell how long a prompt truly is."""

    def __init__(self, generator: OpenVinoGenAIGenerator, judge: Endpoint) -> None:
        self.generator = self._genai = generator
        self._judge = ServerSubject(generator, judge)

    def true_prompt_tokens(self, request: GenerationRequest) -> int:
        return self._judge.true_prompt_tokens(request)

    def busy(self) -> int:
        return self._genai.busy()


def open_genai(model: Path, folder: Path) -> OpenVinoGenAIGenerator:
    """Return the generator on a form that is built in ``folder``, beside a link to ``model``."""
    link = folder / model.name
    if not link.exists():
        link.symlink_to(model)
    setup = GeneratorSetup(model="tiny", context_tokens=CONTEXT, slots=SLOTS, batch_tokens=64)
    generator = load_generator("openvino-genai:q4", link, setup)
    assert isinstance(generator, OpenVinoGenAIGenerator)
    return generator


def _endless(request: GenerationRequest) -> list[str] | OndolError:
    """Echo; like a real model, go on until ``max_tokens`` when asked for a story."""
    pieces = echo(request)
    if "story" in request.messages[-1].content:
        return [*pieces, *(f" w{i}" for i in range(request.max_tokens))]
    return pieces
