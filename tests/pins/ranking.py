"""What is found, in which order, and which sentences go before the generator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from tests.pins.conftest import Stage

KOREAN = {
    "휴가": "직원은 입사 첫해에 연차 휴가 15일을 받는다. 쓰지 않은 휴가는 다음 해 3월까지 넘길 수 있다. "
    "병가는 연차에서 빼지 않는다.",
    "임대차": "임대차 계약은 계약 기간이 끝나기 두 달 전까지 해지를 알려야 한다. 보증금은 집을 비운 날로부터 "
    "7일 안에 돌려준다. 수선비는 임대인이 낸다.",
    "주차": "손님은 건물 뒤 42번 자리에 주차한다. 밤 11시 이후에는 문이 닫힌다. 전기차 충전기는 두 대 있다.",
    "출장": "출장비는 돌아온 날로부터 14일 안에 청구한다. 영수증이 없으면 하루 2만 원까지만 인정한다.",
    "보안": "비밀번호는 90일마다 바꾼다. 손님용 무선망은 사내 문서에 닿지 않는다.",
}
ENGLISH = {
    "leave": "Staff have fifteen days of annual leave in the first year. Unused leave may be carried "
    "over until March. Sick leave is not taken from it.",
    "lease": "The notice period for the lease is two months before the term ends. The deposit is paid "
    "back within seven days of moving out. Repairs are paid by the landlord.",
    "parking": "Guests park in bay 42 behind the house. The gate closes at eleven at night. There are "
    "two chargers for electric cars.",
    "travel": "Travel costs are claimed within fourteen days of return. Without a receipt twenty "
    "euros a day are accepted.",
    "security": "Passwords change every ninety days. The guest network does not reach our documents.",
}
CORPORA: Mapping[str, Mapping[str, str]] = {"ko": KOREAN, "en": ENGLISH}
QUERIES: Mapping[str, Sequence[str]] = {
    "ko": ("연차 휴가는 며칠인가요?", "보증금은 언제 돌려받나요?", "주차"),
    "en": ("How many days of annual leave are there?", "When is the deposit paid back?", "parking"),
}
REPLIES = {
    "ko": "직원은 입사 첫해에 연차 휴가 15일을 받는다 [1].",
    "en": "Staff have fifteen days of annual leave in the first year [1].",
}
MODES = ("hybrid", "dense", "lexical")
SCORES = ("score", "dense_score", "lexical_score", "rerank_score")


async def ranking(home: Path, *, language: str, digits: int = 4, **stage: Any) -> str:
    """Return the hits of every query in every mode, and the prompt of the first question's answer."""
    server = Stage(home, reply=REPLIES[language], **stage)
    async with server.running() as client:
        await fill(client, CORPORA[language])
        parts = [
            await hits(client, query, mode=mode, digits=digits)
            for query in QUERIES[language]
            for mode in MODES
        ]
        path = "/v1/collections/house/ask"
        response = await client.post(path, json={"question": QUERIES[language][0]})
        assert response.status_code == 200, response.text
        answer = response.json()
    for message in server.prompts[-1].messages:
        parts.append(f"# what the generator reads: {message.role}\n{message.content}\n")
    parts.append(f"# answer\n{answer['answer']}\nabstained: {answer['abstained']}\n")
    parts += [json.dumps(cited, ensure_ascii=False) + "\n" for cited in answer["citations"]]
    return "\n".join(parts)


async def real_ranking(home: Path, models: Path, *, language: str) -> str:
    """Return the same on the default models, in the forms that give the same on every machine."""
    await asyncio.to_thread((home / "models").symlink_to, models)
    settings = {"models": {"form": "onnx:fp32", "reranker_form": "onnx:fp32"}}
    return await ranking(home, language=language, digits=2, real=True, settings=settings)


async def fill(client: httpx.AsyncClient, texts: Mapping[str, str]) -> None:
    """Put the texts into the collection ``house``."""
    records = [{"id": name, "title": name, "text": text} for name, text in texts.items()]
    response = await client.post("/v1/collections", json={"name": "house", "exist_ok": True})
    assert response.status_code in (200, 201), response.text
    response = await client.post("/v1/collections/house/documents", json={"records": records})
    assert response.status_code == 200, response.text


async def hits(client: httpx.AsyncClient, query: str, *, mode: str, digits: int = 4) -> str:
    """Return one search as text, a line a hit."""
    body = {"query": query, "mode": mode, "top_k": 5}
    response = await client.post("/v1/collections/house/search", json=body)
    assert response.status_code == 200, response.text
    lines = [f"# {mode}: {query}"]
    for hit in response.json()["hits"]:
        scores = (
            f"{name.removesuffix('_score')} {hit[name]:.{digits}f}"
            for name in SCORES
            if hit[name] is not None
        )
        place = f"{hit['document']}#{hit['chunk']} {hit['start']}-{hit['end']}"
        lines.append(f"{place} | {', '.join(scores)}")
    return "\n".join([*lines, ""])
