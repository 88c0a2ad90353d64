"""The official ``openai`` client, unchanged, against a real server."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam
from tests.api.conftest import Served
from tests.api.stage import listening, make_app, make_settings

from ondol.core.errors import BackendError, Overloaded

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "안녕 온돌 hello"}]


def test_models(served: Served) -> None:
    client = served.openai()
    listed = [model.id for model in client.models.list()]
    assert "fake-generator" in listed
    assert client.models.retrieve("fake-generator").owned_by == "ondol"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_chat(served: Served) -> None:
    completion = served.openai().chat.completions.create(model="fake-generator", messages=HELLO)
    choice = completion.choices[0]
    assert choice.message.content == "안녕 온돌 hello"
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert completion.model == "fake-generator"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 3
    assert completion.usage.completion_tokens == 3
    assert completion.usage.total_tokens == 6


def test_chat_cut_short(served: Served) -> None:
    completion = served.openai().chat.completions.create(
        model="auto", messages=HELLO, max_completion_tokens=1
    )
    assert completion.choices[0].finish_reason == "length"
    assert completion.choices[0].message.content == "안녕"


@pytest.mark.parametrize("include_usage", [True, False])
def test_chat_stream(served: Served, include_usage: bool) -> None:
    stream = served.openai().chat.completions.create(
        model="auto",
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": include_usage},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "안녕 온돌 hello"
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == "stop"
    assert set(reasons[:-1]) == {None}
    assert len({c.id for c in chunks}) == 1
    usages = [c.usage for c in chunks if c.usage is not None]
    if include_usage:
        assert [u.total_tokens for u in usages] == [6]
        assert chunks[-1].choices == []
    else:
        assert usages == []


def test_embeddings_in_both_encodings_are_the_same(served: Served) -> None:
    client = served.openai()
    texts = ["따뜻한 바닥", "a cold floor", "따뜻한 바닥"]
    packed = client.embeddings.create(model="auto", input=texts)  # asks for base64
    plain = client.embeddings.create(model="auto", input=texts, encoding_format="float")
    a = np.array([item.embedding for item in packed.data])
    b = np.array([item.embedding for item in plain.data])
    assert a.shape == (3, 64)
    np.testing.assert_allclose(a, b, rtol=0, atol=0)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(a[0], a[2])
    assert [item.index for item in packed.data] == [0, 1, 2]
    assert packed.usage.total_tokens == plain.usage.total_tokens > 0


def test_one_text_and_fewer_dimensions(served: Served) -> None:
    client = served.openai()
    whole = client.embeddings.create(model="auto", input="a b c").data[0].embedding
    short = client.embeddings.create(model="auto", input="a b c", dimensions=4).data[0].embedding
    assert len(short) == 4
    assert math.isclose(sum(x * x for x in short), 1, abs_tol=1e-6)
    head = np.array(whole[:4]) / np.linalg.norm(whole[:4])
    np.testing.assert_allclose(short, head, atol=1e-6)


def test_token_ids_one_list_and_several(served: Served) -> None:
    client = served.openai()
    one = client.embeddings.create(model="auto", input=[5, 6, 7])
    two = client.embeddings.create(model="auto", input=[[5, 6, 7], [8]])
    assert len(one.data) == 1
    assert len(two.data) == 2
    assert one.data[0].embedding == two.data[0].embedding
    assert one.usage.prompt_tokens == 3
    assert two.usage.prompt_tokens == 4


def test_the_role_of_a_text_goes_in_extra_body(served: Served) -> None:
    client = served.openai()
    for body in ({"input_type": "query"}, {"role": "document"}, {"truncate": True}):
        assert client.embeddings.create(model="auto", input="a", extra_body=body).data
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="auto", input="a", extra_body={"input_kind": "query"})
    assert caught.value.param == "input_kind"


def test_error_classes(served: Served) -> None:
    client = served.openai()
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="auto", messages=HELLO, n=2)
    assert bad.value.param == "n"
    assert bad.value.type == "invalid_request_error"


def test_errors_of_the_engine(served: Served) -> None:
    client = served.openai()
    served.script.replies.append(Overloaded("full", retry_after=2.5))
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="auto", messages=HELLO)
    assert limited.value.response.headers["retry-after"] == "3"
    served.script.replies.append(BackendError("broke"))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="auto", messages=HELLO, stream=True)


def test_an_error_in_mid_stream_is_an_error_of_the_client(served: Served) -> None:
    served.gate.clear()
    stream = served.openai().chat.completions.create(model="auto", messages=HELLO, stream=True)
    received = [next(stream), next(stream)]
    assert received[1].choices[0].delta.content == "안녕"
    served.generator.die()
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "generator_died"


def test_a_wrong_key(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, server={"port": 0, "api_keys": ("right-key",)})
    app = make_app(tmp_path, server={"api_keys": ("right-key",)})
    with listening(app, settings) as process:
        url = f"{process.url}/v1"
        right = openai.OpenAI(base_url=url, api_key="right-key", max_retries=0)
        wrong = openai.OpenAI(base_url=url, api_key="wrong-key", max_retries=0)
        assert list(right.models.list())
        with pytest.raises(openai.AuthenticationError) as caught:
            wrong.models.list()
        assert caught.value.code == "invalid_api_key"
