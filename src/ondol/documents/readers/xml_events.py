"""XML as a stream of events, for markup from outside: no tree, no entities, no document type.

Names come without their namespace prefix: office formats use each local name once. An entity
declaration ends the reading (it is the one way for small markup to grow), and so does broken XML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from xml.parsers import expat

Attributes = Mapping[str, str]


class BadXml(Exception):
    """The markup cannot be read; the text says why."""


def parse_xml(
    data: bytes,
    *,
    start: Callable[[str, Attributes], None],
    end: Callable[[str], None],
    text: Callable[[str], None],
) -> None:
    """Call ``start``, ``end`` and ``text`` in document order. Raises ``BadXml``."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.EntityDeclHandler = _no_entities
    parser.StartElementHandler = lambda name, given: start(
        local(name), {local(key): value for key, value in given.items()}
    )
    parser.EndElementHandler = lambda name: end(local(name))
    parser.CharacterDataHandler = text
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError) as error:
        raise BadXml(str(error)) from error


def local(name: str) -> str:
    """Return ``name`` without its prefix."""
    return name.rpartition(":")[2]


def _no_entities(*_: object) -> None:
    raise BadXml("it declares entities")
