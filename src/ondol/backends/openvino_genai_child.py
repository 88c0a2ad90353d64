"""The OpenVINO GenAI process: one continuous-batching pipeline, and nothing else.

Run by path, imports nothing of ours but the file beside it. JSON lines on standard input are a setup and then commands, on
standard output reports; the log goes to standard error. One thread owns the pipeline and looks at
the commands between two steps, so a cancel waits for one chunk at most. A step that fails has
spoilt the pipeline: the process then ends, and its parent starts another.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import queue
import re
import signal
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

_PR_SET_PDEATHSIG = 1
_BLOCK = 32
"""Tokens of one cache block of the CPU plugin."""
_PIECE_BYTES = 8_192
_BETWEEN_WORDS = re.compile(r"[^\W\d_](?= [^\W\d_])")


def main() -> None:
    setup = json.loads(sys.stdin.buffer.readline())
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the library prints belongs to the log
    die_with_parent(setup["parent"])
    try:
        engine = GenAIEngine(setup, out)
    except Exception as error:
        report(out, {"error": str(error) or type(error).__name__})
        os._exit(1)
    commands: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=read_commands, args=(commands,), daemon=True).start()
    report(out, {"ready": True})
    engine.serve(commands)
    os._exit(0)


def report(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message, ensure_ascii=False) + "\n")
    out.flush()


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process with its parent; covers the time of loading too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def read_commands(commands: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    for line in sys.stdin.buffer:
        commands.put(json.loads(line))
    commands.put(None)  # the parent has closed the pipe


class PrefixMirror:
    """Which blocks of tokens the pipeline's prefix cache holds, as far as it can be told.

    The pipeline does not say. Its rule is followed: whole blocks, found by all tokens up to their
    end, the longest unused given up first.
    """

    def __init__(self, blocks: int) -> None:
        self._most = blocks
        self._held: OrderedDict[int, None] = OrderedDict()

    def find(self, ids: list[int]) -> int:
        """Return how many first tokens need not be computed; the last one always is."""
        found = 0
        for end, key in self._keys(ids):
            if key not in self._held:
                break
            self._held.move_to_end(key)
            found = end
        return min(found, len(ids) - 1)

    def keep(self, ids: list[int]) -> None:
        for _, key in self._keys(ids):
            self._held[key] = None
            self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def _keys(self, ids: list[int]) -> Iterator[tuple[int, int]]:
        key = 0
        for end in range(_BLOCK, len(ids) + 1, _BLOCK):
            key = hash((key, tuple(ids[end - _BLOCK : end])))
            yield end, key


def pieces_of(text: str) -> Iterator[str]:
    """Yield ``text`` in pieces that the tokenizer encodes whole, as it would have together.

    One made from a GGUF file keeps the last 8,192 tokens of what it is given, whatever is asked for.
    A token has a byte at least; a blank between two letters belongs to the second word everywhere.
    """
    start = 0
    while start < len(text):
        most = end = start + _PIECE_BYTES // 4
        if most < len(text):
            while end > start and not _BETWEEN_WORDS.match(text, end - 1):
                end -= 1
            end = end if end > start else most
        yield text[start:end]
        start = end


def streamed_text() -> Any:
    """Return the class of that name from the file beside this one."""
    path = Path(__file__).with_name("streamed_text.py")
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.StreamedText


class RunningRequest:
    """One request in the pipeline."""

    def __init__(
        self, command: dict[str, Any], handle: Any, words: Any, ids: list[int], cached: int
    ) -> None:
        self.call: int = command["call"]
        self.bound = command["schema"] is not None
        self.handle, self.words = handle, words
        self.prompt, self.cached = ids, cached
        self.out: list[int] = []
        self.began = time.perf_counter()
        self.first = 0.0


class GenAIEngine:
    """The pipeline, its tokenizer, and the requests in it."""

    def __init__(self, setup: dict[str, Any], out: TextIO) -> None:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None forbids the import
        import openvino
        import openvino_genai

        self._genai, self._tensor = openvino_genai, openvino.Tensor
        self._setup, self._out, self._text = setup, out, streamed_text()
        self._context = int(setup["context_tokens"])
        self._tokenizer = openvino_genai.Tokenizer(setup["tokenizer"])
        self._aliases: list[int] = setup["aliases"] if self._opens_alike() else []
        self._blocks = 2 * int(setup["slots"]) * -(-self._context // _BLOCK)
        self._running: dict[int, RunningRequest] = {}
        self._waiting: deque[dict[str, Any]] = deque()
        self._open()

    def _open(self) -> None:
        """Open the pipeline with an empty cache."""
        config = self._genai.SchedulerConfig()
        config.max_num_batched_tokens = self._setup["batch_tokens"]
        config.max_num_seqs = self._setup["slots"]
        config.num_kv_blocks = self._blocks
        config.dynamic_split_fuse = True
        config.enable_prefix_caching = bool(self._aliases)
        options = {"INFERENCE_NUM_THREADS": self._setup["threads"], "ENABLE_CPU_PINNING": False}
        self._pipeline = self._genai.ContinuousBatchingPipeline(
            self._setup["model"], self._tokenizer, config, "CPU", **options
        )
        self._mirror = PrefixMirror(self._blocks)
        self._salts: dict[str, int] = {}

    def _opens_alike(self) -> bool:
        """Return whether prompts begin with the token that has stand-ins."""
        user, system = {"role": "user", "content": "x"}, {"role": "system", "content": "x"}
        prompts = [self._prompt(messages) for messages in ([user], [system, user])]
        return all(ids[0] == self._setup["opening"] for ids in prompts)

    def serve(self, commands: queue.SimpleQueue[dict[str, Any] | None]) -> None:
        """Take commands and step until the parent has gone."""
        while True:
            idle = not (self._running or self._waiting)
            while idle or not commands.empty():
                command = commands.get()
                if command is None:
                    return
                self._take(command)
                idle = False
            self._admit()
            if self._pipeline.has_non_finished_requests():
                self._step()

    def _take(self, command: dict[str, Any]) -> None:
        call = command["call"]
        if "cancel" in command:
            if call in self._running:
                self._finish(self._running[call], "cancelled")
            for waiting in [w for w in self._waiting if w["call"] == call]:
                self._waiting.remove(waiting)
                self._say(call, done={"finish": "cancelled", "prompt": 0, "cached": 0, "out": 0})
        elif "count" in command:
            self._say(call, count=len(self._encode(command["count"])))
        elif "prompt" in command:
            self._say(call, prompt=self._prompt(command["prompt"]))
        elif "busy" in command:
            self._say(call, busy=len(self._running) + len(self._waiting))
        else:
            self._waiting.append(command)

    def _admit(self) -> None:
        """Hand waiting requests to the pipeline, in order."""
        while self._waiting:
            salt = self._waiting[0]["salt"]
            if self._aliases and salt not in self._salts and self._exhausted():
                if self._running:
                    return
                self._open()  # every stand-in has had an owner: only an empty cache is nobody's
            command = self._waiting.popleft()
            try:
                self._add(command)
            except Exception as error:
                self._say(command["call"], refused={"kind": "invalid", "message": str(error)})

    def _exhausted(self) -> bool:
        return len(self._salts) == len(self._aliases)

    def _add(self, command: dict[str, Any]) -> None:
        ids = self._prompt(command["messages"])
        if len(ids) >= self._context:
            refused = {"kind": "too_long", "tokens": len(ids), "context": self._context}
            self._say(command["call"], refused=refused)
            return
        cached = 0
        if self._aliases:
            if ids[0] != self._setup["opening"]:
                raise ValueError("the prompt does not begin as this model's prompts do")
            if command["salt"] not in self._salts:
                self._salts[command["salt"]] = self._aliases[len(self._salts)]
            ids[0] = self._salts[command["salt"]]
            cached = self._mirror.find(ids)
        config = self._config(command, room=self._context - len(ids))
        handle = self._pipeline.add_request(command["call"], self._shaped(ids), config)
        words = self._text(self._tokenizer.decode, command["stop"])
        self._running[command["call"]] = RunningRequest(command, handle, words, ids, cached)

    def _config(self, command: dict[str, Any], *, room: int) -> Any:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = min(command["max_tokens"], room)
        config.set_eos_token_id(self._tokenizer.get_eos_token_id())
        if command["temperature"] > 0:
            config.do_sample = True
            config.temperature = command["temperature"]
            config.top_p = command["top_p"]
            config.rng_seed = command["seed"]
        if command["grammar"] is not None:
            config.structured_output_config = self._genai.StructuredOutputConfig(
                grammar=command["grammar"]
            )
        elif command["schema"] is not None:
            config.structured_output_config = self._genai.StructuredOutputConfig(
                json_schema=json.dumps(command["schema"], ensure_ascii=False)
            )
        return config

    def _step(self) -> None:
        try:
            self._pipeline.step()
        except Exception as error:
            report(self._out, {"fatal": str(error), "blamed": self._blamed(str(error))})
            os._exit(1)
        for request in list(self._running.values()):
            self._read(request)

    def _blamed(self, message: str) -> list[int]:
        """Return the call whose JSON schema failed, if it can be told which."""
        fresh = [r.call for r in self._running.values() if r.bound and not r.first]
        return fresh if "xgrammar" in message and len(fresh) == 1 else []

    def _read(self, request: RunningRequest) -> None:
        finish = ""
        while request.handle.can_read():
            for output in request.handle.read().values():
                request.first = request.first or time.perf_counter()
                request.out += output.generated_ids
                if piece := request.words.feed(list(output.generated_ids)):
                    self._say(request.call, piece=piece)
                finish = output.finish_reason.name
        if request.words.stopped:
            self._finish(request, "stop")
        elif finish in ("STOP", "LENGTH"):
            self._finish(request, finish.lower())
        elif request.handle.get_status().name == "IGNORED":
            self._finish(request, "length")  # the cache is full

    def _finish(self, request: RunningRequest, reason: str) -> None:
        del self._running[request.call]
        if reason != "cancelled" and (piece := request.words.rest()):
            self._say(request.call, piece=piece)
        if reason == "cancelled" or request.words.stopped:
            request.handle.cancel()
        if self._aliases and request.first:
            self._mirror.keep(request.prompt + request.out[:-1])
        now = time.perf_counter()
        first = request.first or now
        done = {
            "finish": reason,
            "prompt": len(request.prompt),
            "cached": request.cached,
            "out": len(request.out),
            "prefill_ms": (first - request.began) * 1e3,
            "decode_ms": (now - first) * 1e3,
        }
        self._say(request.call, done=done)

    def _prompt(self, messages: list[dict[str, Any]]) -> list[int]:
        return self._encode(self._tokenizer.apply_chat_template(messages, True))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in pieces_of(text):
            found = self._tokenizer.encode(piece, add_special_tokens=False).input_ids.data
            ids += [int(token) for token in found[0]]
        return ids

    def _shaped(self, ids: list[int]) -> Any:
        import numpy as np

        return self._tensor(np.array([ids], dtype=np.int64))

    def _say(self, call: int, **report_: Any) -> None:
        report(self._out, {"call": call} | report_)


if __name__ == "__main__":
    main()
