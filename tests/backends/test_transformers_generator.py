"""The transformers backend on a random two-layer model; the GPU where there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.backends.tiny_causal import write_tiny_causal

from ondol.core.cancel import CancelToken
from ondol.core.errors import (
    BackendError,
    InvalidInput,
    ModelError,
    NotReady,
    Overloaded,
    TextTooLong,
)
from ondol.core.types import DoneEvent, GenerationRequest, Message, TokenEvent

if TYPE_CHECKING:
    from ondol.backends.transformers_generator import TransformersGenerator

pytestmark = [
    pytest.mark.extras,
    pytest.mark.filterwarnings("ignore"),  # the libraries' own deprecations
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_causal(tmp_path_factory.mktemp("tiny-causal"))


def load(folder: Path, **kwargs: Any) -> TransformersGenerator:
    from ondol.backends.transformers_generator import TransformersGenerator

    settings: dict[str, Any] = {"precision": "fp32", "batch_tokens": 16, "context_tokens": 256}
    return TransformersGenerator(folder, model="tiny", **(settings | kwargs))


@pytest.fixture
def generator(folder: Path) -> Iterator[TransformersGenerator]:
    loaded = load(folder)
    yield loaded
    loaded.close()


def ask(text: str = "Hello", **kwargs: Any) -> GenerationRequest:
    return GenerationRequest([Message("user", text)], **({"max_tokens": 12} | kwargs))


def run(generator: TransformersGenerator, request: GenerationRequest) -> tuple[str, DoneEvent]:
    *pieces, done = list(generator.generate(request, cancel=CancelToken()))
    assert isinstance(done, DoneEvent)
    assert all(isinstance(piece, TokenEvent) and piece.text for piece in pieces)
    return "".join(p.text for p in pieces if isinstance(p, TokenEvent)), done


def reference(folder: Path, request: GenerationRequest) -> str:
    """Return what transformers' own ``generate`` answers greedily to the whole prompt."""
    import torch
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    messages = [{"role": m.role, "content": m.content} for m in request.messages]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    out = model.generate(ids, max_new_tokens=request.max_tokens, do_sample=False)
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def test_greedy_text_is_the_librarys_own(folder: Path, generator: TransformersGenerator) -> None:
    request = ask("Tell me of the warm floor. " * 3, max_tokens=20)
    text, done = run(generator, request)

    assert text == reference(folder, request).rstrip("\ufffd")
    assert (done.finish_reason, done.usage.completion_tokens) == ("length", 20)
    assert done.usage.prompt_tokens > 80


def test_a_kept_prefix_changes_nothing_but_the_work(
    folder: Path, generator: TransformersGenerator
) -> None:
    long = "온돌은 바닥을 데운다. " * 4
    first, done = run(generator, ask(long))
    again, warm = run(generator, ask(long))
    other, branch = run(generator, ask(long + "더"))

    assert done.usage.cached_tokens == 0
    assert again == first
    assert warm.usage.cached_tokens == warm.usage.prompt_tokens - 1
    assert branch.usage.cached_tokens > done.usage.prompt_tokens / 2
    fresh = load(folder)
    assert other == run(fresh, ask(long + "더"))[0]
    fresh.close()


def test_salts_never_share_a_prefix(generator: TransformersGenerator) -> None:
    def cached(salt: str) -> int:
        return run(generator, ask("a secret " * 8, cache_salt=salt))[1].usage.cached_tokens

    assert [cached("ann"), cached("bob"), cached("ann")] == [0, 0, 0]
    assert cached("ann") > 0


def test_a_seed_makes_sampling_repeatable(generator: TransformersGenerator) -> None:
    texts = [run(generator, ask(temperature=1.5, seed=s, max_tokens=24))[0] for s in (7, 7, 8)]

    assert texts[0] == texts[1] != texts[2]


def test_top_p_near_zero_is_greedy(generator: TransformersGenerator) -> None:
    sampled = run(generator, ask(temperature=2.0, top_p=1e-6, seed=1))[0]

    assert sampled == run(generator, ask())[0]


def test_stop_ends_the_text_before_it(generator: TransformersGenerator) -> None:
    full, _ = run(generator, ask(max_tokens=40))
    stop = full[3:5]
    text, done = run(generator, ask(max_tokens=40, stop=(stop,)))

    assert text == full[: full.index(stop)]
    assert done.finish_reason == "stop"


def test_an_end_token_says_stop(tmp_path: Path) -> None:
    generator = load(write_tiny_causal(tmp_path, ends=True))
    reasons = {
        run(generator, ask(temperature=5.0, seed=s, max_tokens=200))[1].finish_reason
        for s in range(8)
    }
    generator.close()

    assert "stop" in reasons


class Counting(CancelToken):
    """Cancels itself when it has been looked at ``looks`` times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    @property
    def cancelled(self) -> bool:
        self._looks -= 1
        return self._looks < 0


def test_a_cancel_ends_prefill_after_a_chunk(generator: TransformersGenerator) -> None:
    [done] = generator.generate(ask("count " * 30), cancel=Counting(3))

    assert isinstance(done, DoneEvent)
    assert (done.finish_reason, done.usage.completion_tokens) == ("cancelled", 0)
    kept = run(generator, ask("count " * 30))[1].usage.cached_tokens
    assert 0 < kept <= 48


def test_a_cancel_ends_decoding(generator: TransformersGenerator) -> None:
    cancel = CancelToken()
    events = generator.generate(ask(max_tokens=200), cancel=cancel)
    next(events)
    cancel.cancel()
    *_, done = events

    assert isinstance(done, DoneEvent)
    assert done.finish_reason == "cancelled"
    assert 0 < done.usage.completion_tokens < 200


def test_one_request_runs_at_a_time(generator: TransformersGenerator) -> None:
    events = generator.generate(ask(), cancel=CancelToken())
    next(events)

    assert generator.spec.slots == 1
    with pytest.raises(Overloaded):
        run(generator, ask())
    events.close()  # type: ignore[attr-defined]  # a generator function's
    assert run(generator, ask())[1].finish_reason == "length"


@pytest.mark.parametrize(
    ("kwargs", "param"),
    [
        ({"json_schema": {"type": "object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_it_has_not_is_refused_by_name(
    generator: TransformersGenerator, kwargs: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        run(generator, ask(**kwargs))

    assert error.value.param == param
    assert error.value.hint


def test_a_prompt_that_is_too_long_is_refused_with_both_counts(
    generator: TransformersGenerator,
) -> None:
    with pytest.raises(TextTooLong, match=r"\d{3} tokens, .* 256"):
        run(generator, ask("long " * 100))


def test_an_answer_ends_where_the_context_does(generator: TransformersGenerator) -> None:
    _, done = run(generator, ask("a" * 200, max_tokens=500))

    assert done.usage.prompt_tokens + done.usage.completion_tokens == 256
    assert done.finish_reason == "length"


def test_counts_tokens_without_template(generator: TransformersGenerator) -> None:
    assert [generator.count_tokens(text) for text in ("", "abc", "온")] == [0, 3, 3]


def test_a_failed_pass_is_told_and_forgotten(
    generator: TransformersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(generator, "_model", _broken)
        with pytest.raises(BackendError, match="the device is gone"):
            run(generator, ask())

    assert run(generator, ask())[1].usage.cached_tokens == 0


def _broken(**kwargs: Any) -> None:
    raise RuntimeError("the device is gone")


def test_closing_ends_a_running_call_and_refuses_new_ones(folder: Path) -> None:
    states: list[str] = []
    generator = load(folder, on_state=lambda health: states.append(health.state))
    events = generator.generate(ask(max_tokens=200), cancel=CancelToken())
    next(events)
    closer = threading.Thread(target=generator.close)
    closer.start()
    _until(lambda: generator.health().state == "closed")
    with pytest.raises(NotReady):
        list(events)
    closer.join()

    assert states == ["ready", "closed"]
    with pytest.raises(NotReady):
        run(generator, ask())


def _until(done: Callable[[], bool]) -> None:
    waiting = threading.Event()
    while not done():
        waiting.wait(0.001)


def test_a_folder_that_will_not_do_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoConfig": "x.Y"}}')
    with pytest.raises(ModelError, match="could not be loaded"):
        load(tmp_path)
    with pytest.raises(ModelError, match="GPU only") as error:
        load(folder, precision="nf4")
    assert "@cuda" in error.value.hint


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "nf4"])
def test_runs_on_a_gpu(folder: Path, precision: str) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    if precision in ("int8", "nf4"):
        pytest.importorskip("bitsandbytes")
    generator = load(folder, precision=precision, device="cuda")
    text, done = run(generator, ask(max_tokens=20))
    generator.close()

    assert done.usage.completion_tokens == 20
    if precision == "fp32":
        assert text == reference(folder, ask(max_tokens=20)).rstrip("\ufffd")
