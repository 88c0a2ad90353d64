"""Whether a text speaks to the machine that reads it: an order about its output, not a thing said.

Two signs must meet in one sentence: what is spoken of is the reader's own work (instructions, prompt,
output, summary, JSON, "whoever analyses this"), and something is demanded of it (ignore, print,
write, answer with, 출력하라, 적으세요). Laws demand much and reviews ask the cook for more, but neither
speaks of prompts. Tags of chat templates are a sign of their own. A mark for people, not a
guard: ordinary sentences have both signs too, and who knows the rules can write round them, so nothing
is hidden for it. Pure; linear in the text.
"""

from __future__ import annotations

import re

_MOST_CHARS = 20_000
"""Of a longer text its beginning and its end are looked at."""
_HALF = _MOST_CHARS // 2

_TEMPLATE = re.compile(
    r"<\|?/?\s?(?:im_start|im_end|system|assistant|tool_call|tool_response|start_header_id|eot_id)\b"
    r"|</?(?:start|end)_of_turn>|\[/?INST\]|<<\s?/?SYS\s?>>|^\s*#{1,6}\s*(?:system|assistant|instruction)\b"
    r"|^\s*(?:system|assistant)\s?:|\[[a-z]\d{1,4}\]|</?(?:data|request|instructions?)\b[^<>\n]{0,40}>|\[(?:request|system|data)\]",
    re.IGNORECASE | re.MULTILINE,
)
_WORK_KO = (
    r"지시(?:문|사항|를|는|은)?\b|프롬프트|시스템|출력|JSON|언어\s?모델|모델|인공지능|AI\b|챗봇|분류기|"
    r"요약(?:기|자|문|담당|할|시|에|은|하는|본)|분석(?:기|자|하는\s?(?:시스템|모델|사람|자)|\s?결과|할\s?때|문)|답변|응답|"
    r"결과(?:물|에|는|란)|모든\s?항목|(?:위|앞|이전|지금까지|앞서)의?\s?(?:내용|말|글|대화|명령|규칙|지침|설정)|지침|"
    r"이\s?(?:글|문서|리뷰|문장|판결문|조문)(?:을|를|만)?\s?(?:읽는|처리하는|분석하는|요약|정리|인용하는)|다른\s?(?:리뷰|글|항목)"
)
_DEMAND_KO = (
    r"무시(?:하고|하라|하세요|하십시오|하시고|하시오|할\s?것|한\s?채|$)|잊(?:고|어라|으세요|어\s?주)|빼\s?주|"
    r"(?:출력|답|답변|응답|대답|작성|기재|표시|분류|판단|요약|인용|포함|반환|명시|삽입|시작|언급|추가|기록|번역|말|표기|결론)"
    r"(?:만)?\s?(?:하라|하여라|해라|하세요|하십시오|하시오|할\s?것(?![은이을인으만])|해\s?주세|해\s?주시|해\s?줘|하여\s?주|바랍|바람|부탁)|"
    r"(?:적|쓰|써|넣|붙|덧붙|말하|끝내|바꾸|바꿔|남기|채우|채워)(?:으세요|으시오|으십시오|어라|을\s?것(?![은이을인])|으라|이세요|세요|십시오|시오|"
    r"\s?주세요|\s?주시|\s?줘|\s?넣|어\s?주|여\s?주|어\s?줘|게나)|(?:출력|표기|명시)(?:해|하여|$)"
)
_STRONG_KO = (
    r"프롬프트|JSON|언어\s?모델|AI\b|인공지능|챗봇|분류기|요약(?:기|자|문|담당|본|할\s?때)|"
    r"이\s?(?:글|문서|판결문|리뷰)(?:을|를)?\s?(?:읽는|처리하는|분석하는|요약하는)"
)
_DUTY_KO = r"(?:출력|답|응답|작성|기재|표시|인용|포함|언급|명시|말|적|넣|쓰)(?:되|하여|해|으|어|어|여)?야|반드시|무조건"
_WORK_EN = (
    r"instructions?|prompts?|system|output|json|language model|\bmodel\b|\bai\b|\bllm\b|chatbot|assistant|classifier|"
    r"summar(?:y|ies|ise|ize|iser|izer|ising|izing|ised|ized)|the above|(?:everything|anything|all) (?:before|above|else)|"
    r"previous|preceding|prior (?:text|rules|message)|your (?:answer|reply|response|task|rules|guidelines|analysis|report)|"
    r"(?:whoever|anyone|any (?:system|reader|tool|machine)|those) (?:who |that |which )?(?:reads?|analy[sz]es?|process(?:es)?|summari[sz]es?)"
)
_DEMAND_EN = (
    r"ignore|disregard|forget|override|print|output|answer|respond|reply|write|say|state|classify|return|begin|start|end with|"
    r"include|insert|mention|repeat|append|add|put|contain|use the word|must|shall|translate|reveal|replace"
)
_WRITE_KO = r"(?:적|쓰|기재하|표기하|덧붙이)(?:으시오|시오|으라|을\s?것(?![은이을인])|을지어다)"
_QUOTED_KO = r"(?:다|라)고\s"
_PAIRS = tuple(
    (re.compile(work, re.IGNORECASE), re.compile(demand, re.IGNORECASE))
    for work, demand in (
        (_WORK_KO, _DEMAND_KO),
        (_STRONG_KO, _DUTY_KO),
        (_QUOTED_KO, _WRITE_KO),
        (rf"\b(?:{_WORK_EN})", rf"\b(?:{_DEMAND_EN})\b"),
    )
)
_HIDDEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\U000e0000-\U000e007f]")
_SENTENCES = re.compile(r"(?<=[.!?。\n])\s+|\n+")


def directs(text: str) -> bool:
    """Return whether ``text`` holds an order to the machine that reads it."""
    text = _HIDDEN.sub("", text)
    text = text if len(text) <= _MOST_CHARS else text[:_HALF] + text[-_HALF:]
    if _TEMPLATE.search(text):
        return True
    return any(
        demand.search(sentence)
        for sentence in _SENTENCES.split(text)
        for work, demand in _PAIRS
        if work.search(sentence)
    )
