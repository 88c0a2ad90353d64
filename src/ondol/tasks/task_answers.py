"""What a generator answered, as far as it fits its schema: schemas filled in before, answers read after.

Markers a prompt really holds are put into the schema as an enum, so that a constrained generator can
cite nothing else. An answer that was cut off is read up to where it is whole; what does not fit its
schema is left out and counted. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from ondol.tasks.json_schema import fits

MARKERS = "$markers"
"""In an enum of a pack's schema: the markers of the prompt; ``$markers:p`` those that begin with p."""

_LETTERS = {
    # No quotation mark: some grammar compilers take a pattern to the letter of the JSON text. No colon
    # and no bracket: small generators repeat headings and markers with them. In Korean no small letters
    # of ours, in which they slip into English in mid-word; names such as KFC remain.
    "ko": r"[가-힣A-Z0-9%'·/「」+-]",
    "en": r"[A-Za-z0-9%'/&$+-]",
}
_STOPS = {"ko": "[.,!?~]?", "en": "[.,!?]?"}
"""One a word at most: else small generators end in rows of them."""
_LAST_LETTERS = 14
"""Letters of the last word that may be: where no blank may follow, small generators run on without."""
_WORD_CHARS = {"ko": 4.5, "en": 6.0}
"""Characters of a usual word with its space."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The part of an answer that fits; ``cut`` says that it ended early, ``left_out`` what misfits."""

    value: dict[str, Any] | None
    cut: bool = False
    left_out: int = 0


def filled(schema: Any, markers: Sequence[str], *, language: str = "") -> Any:
    """Return ``schema`` with the markers put in; ``None`` where it needs one and there is none.

    A property that cannot be is left out of the top; text is bound to the letters of ``language``,
    as small models of many tongues slip into others, and to as many words as its length holds.
    """
    found = _filled(schema, markers, language, top=True)
    return found if found is None or found.get("properties") else None


def _filled(schema: Any, markers: Sequence[str], language: str, *, top: bool = False) -> Any:
    made = dict(schema)
    if "enum" in made and any(str(one).startswith(MARKERS) for one in made["enum"]):
        prefix = str(made["enum"][0]).removeprefix(MARKERS).removeprefix(":")
        made["enum"] = [one for one in markers if one.rstrip("0123456789") == prefix or not prefix]
        return made if made["enum"] else None
    if made.get("type") == "string" and "maxLength" in made and "pattern" not in made and language:
        # A pattern replaces the length for some grammar compilers, so it bounds the words: one count
        # of characters took 0.9 s to compile where this takes 0.2, and cut words in two.
        least, most = (
            max(round(made.get(key, 1) / _WORD_CHARS[language]) - 1, 0)
            for key in ("minLength", "maxLength")
        )
        made["pattern"] = _words(language, least, most)
    if "items" in made:
        made["items"] = _filled(made["items"], markers, language)
        if made["items"] is None:
            return None
    if "properties" in made:
        return _object(made, markers, language, top)
    return made


def _object(
    made: dict[str, Any], markers: Sequence[str], language: str, top: bool
) -> dict[str, Any] | None:
    required = made.get("required", [])
    properties = {}
    for name, inner in made["properties"].items():
        value = _filled(inner, markers, language)
        if value is not None:
            properties[name] = value
        elif name in required and not top:
            return None
    made["properties"] = properties
    made["required"] = [name for name in required if name in properties]
    return made


def _words(language: str, least: int, most: int) -> str:
    """Return the pattern of one word and between ``least`` and ``most`` more."""
    letters, stop = _LETTERS[language], _STOPS[language]
    word, last = f"{letters}+{stop}", f"{letters}{{1,{_LAST_LETTERS}}}{stop}"
    if least >= most:
        return f"^{word}( {word}){{{least},{most}}}$"
    return f"^{word}( {word}){{{least},{most - 1}}}( {last})?$"


def parsed(text: str, schema: Mapping[str, Any]) -> Parsed:
    """Return what of ``text`` fits ``schema``; never raises.

    One property of the top that does not fit takes no other with it, required or not.
    """
    try:
        value, cut = from_json(text), False
    except ValueError:
        try:
            value, cut = from_json(text, allow_partial="trailing-strings"), True
        except ValueError:
            return Parsed(None, cut=True, left_out=1)
        value = _without_last(value)
    frame = {key: rule for key, rule in schema.items() if key != "required"}
    kept, left_out = pruned(value, frame)
    return Parsed(kept if isinstance(kept, dict) else None, cut=cut, left_out=left_out)


def pruned(value: Any, schema: Mapping[str, Any]) -> tuple[Any, int]:
    """Return the largest part of ``value`` that fits ``schema`` and how many pieces were left out.

    ``None`` (for the whole) where not even the frame fits. Text that reached its bound ends with its
    last whole clause or word.
    """
    if isinstance(value, Mapping) and "properties" in schema:
        return _pruned_object(value, schema)
    if isinstance(value, list) and "items" in schema:
        kept: list[Any] = []
        lost = 0
        for one in value:
            inner, less = pruned(one, schema["items"])
            lost += less
            if inner is not None or fits(one, schema["items"]):
                kept.append(inner)
        most = schema.get("maxItems", len(kept))
        lost += max(0, len(kept) - most)
        kept = kept[:most]
        return (kept, lost) if len(kept) >= schema.get("minItems", 0) else (None, lost + 1)
    if isinstance(value, str):
        value = _rounded(value, schema)
    return (value, 0) if fits(value, schema) else (None, 1)


def _rounded(text: str, schema: Mapping[str, Any]) -> str:
    """Return ``text`` up to where it is whole, if it was cut off by its length or count of words."""
    most = schema.get("maxLength", len(text))
    pattern = schema.get("pattern", "")
    counted = any(pattern.startswith(f"^{letters}+") for letters in _LETTERS.values())
    if len(text) <= most and not (counted and re.search(pattern, f"{text} A") is None):
        return text
    whole = text if len(text) <= most else text[: most + 1]
    clause = max((whole.rfind(stop) for stop in ".!?~,"), default=-1)
    end = clause + 1 if clause >= len(whole) / 2 else whole.rfind(" ")
    return whole[:end].rstrip(" ,(")


def _pruned_object(value: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[Any, int]:
    kept: dict[str, Any] = {}
    lost = 0
    for name, inner in value.items():
        rule = schema["properties"].get(name)
        if rule is None:
            lost += 1
            continue
        found, less = pruned(inner, rule)
        lost += less
        if found is not None or fits(inner, rule):
            kept[name] = found
    whole = all(name in kept for name in schema.get("required", ()))
    return (kept, lost) if whole else (None, max(lost, 1))


def _without_last(value: Any) -> Any:
    """Return a value that was cut off without the piece at its end, which may be half a word."""
    if isinstance(value, list) and value:
        last = _without_last(value[-1])
        return [*value[:-1], *([last] if isinstance(last, Mapping | list) and last else [])]
    if isinstance(value, Mapping) and value:
        *_, name = value
        last = _without_last(value[name])
        rest = {key: inner for key, inner in value.items() if key != name}
        return {**rest, name: last} if isinstance(last, Mapping | list) else rest
    return value
