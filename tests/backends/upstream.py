"""A small HTTP server that plays an OpenAI-compatible upstream, well or badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = {"data": [{"id": "tiny"}, {"id": "large"}]}


@dataclass
class Upstream:
    """What the server answers to chats, and what it was asked.

    ``chat`` writes a whole answer with the handler it is given.
    """

    chat: Callable[[Handler], None]
    models_status: int = 200
    models: dict[str, Any] = field(default_factory=lambda: dict(MODELS))
    tokenize: dict[str, Any] | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """One request; ``upstream`` is set on the class made for each server."""

    upstream: Upstream

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.answer(self.upstream.models_status, self.upstream.models)
        else:
            self.answer(404, {"error": {"message": "no such page"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/chat/completions":
            self.upstream.bodies.append(body)
            self.upstream.headers.append(dict(self.headers))
            self.upstream.chat(self)
        elif self.path == "/tokenize" and self.upstream.tokenize is not None:
            self.answer(200, self.upstream.tokenize)
        else:
            self.answer(404, {"detail": "Not Found"})

    def answer(self, status: int, payload: Any, **headers: str) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()

    def event(self, payload: Any) -> None:
        data = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def wait_for_departure(self) -> None:
        """Block until the client has closed the connection."""
        self.connection.recv(1)
        self.upstream.left.set()

    def log_message(self, *args: Any) -> None:
        return None


@contextmanager
def serving(upstream: Upstream) -> Iterator[Upstream]:
    handler = type("BoundHandler", (Handler,), {"upstream": upstream})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        upstream.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield upstream
        finally:
            server.shutdown()
            thread.join()


def piece(text: str, *, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def streaming(*events: Any) -> Callable[[Handler], None]:
    """Answer with these events, then ``[DONE]``."""

    def chat(handler: Handler) -> None:
        handler.begin_stream()
        for event in events:
            handler.event(event)
        handler.event("[DONE]")

    return chat


def refusing(status: int, payload: Any, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(status, payload, **headers)
