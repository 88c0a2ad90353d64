"""Processes that change a store at random until they are killed; each a fork of one that is warm.

Reads ``HOME SEED`` lines; for each it forks, and the fork writes its process id and then, as JSON
lines, every operation before it begins and again once it is done. Whoever reads knows all that was
reported, and the one operation that may or may not have happened.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from tests.store.builders import DIMENSIONS, cut, document, open_store, units

from ondol.store.documents import DocumentStore

COLLECTIONS = ("a", "둘")
SOURCES = tuple(f"/{number}.txt" for number in range(14))
GRAPH_ABOVE = 40
_WEIGHTS = {
    "put": 60,
    "put_container": 14,
    "recut": 14,
    "delete": 14,
    "drop": 3,
    "search": 12,
    "reopen": 4,
    "repair": 2,
    "refresh": 4,
}


def opened(home: Path) -> DocumentStore:
    """Return the store with a graph above a few chunks, where its library is installed."""
    if importlib.util.find_spec("usearch") is None:
        return open_store(home)
    from ondol.store.vectors_ann import AnnVectors

    return open_store(
        home,
        vector_search=lambda database, exact: AnnVectors(
            database, exact, home / "vectors", above=GRAPH_ABOVE
        ),
    )


def text_of(number: int, size: int) -> str:
    """Return the text that operation ``number`` stores."""
    return f"문서 {number} " * size


def keys_of(number: int) -> list[str]:
    """Return the look-up keys and words of every chunk of that text."""
    return ["공통", f"판{number}", f"제{number}조"]


def planned(chance: random.Random, number: int) -> dict[str, Any]:
    """Return the next operation."""
    return {
        "number": number,
        "kind": chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0],
        "collection": chance.choice(COLLECTIONS),
        "source": chance.choice(SOURCES),
        "size": chance.choice((1, 3, 20, 200)),
    }


def perform(store: DocumentStore, home: Path, plan: dict[str, Any]) -> DocumentStore:
    """Do one operation; return the store, which may have been opened anew."""
    name, source, number = plan["collection"], plan["source"], plan["number"]
    kind = plan["kind"]
    store.create_collection(name, embedder="e5", dimensions=DIMENSIONS, exist_ok=True)
    if kind in ("put", "put_container"):
        text = text_of(number, plan["size"])
        chunks = cut(text, 40, tokens=keys_of(number))
        store.put_document(
            name,
            document(source, text),
            digest=str(number),
            chunks=chunks,
            vectors=units(len(chunks), number),
            container=source if kind == "put_container" else None,
        )
    elif kind == "recut":
        _recut(store, plan)
    elif kind == "delete":
        store.delete_sources(name, [source, SOURCES[number % len(SOURCES)]])
    elif kind == "drop":
        store.delete_collection(name)
    elif kind == "search":
        store.search_vectors(name, units(1, number)[0], limit=5)
        store.search_lexical(name, ["공통"], limit=5)
    elif kind == "reopen":
        store.close()
        return opened(home)
    elif kind == "repair":
        store.repair()
    elif kind == "refresh":
        store.refresh_vectors(name)
    return store


def _recut(store: DocumentStore, plan: dict[str, Any]) -> None:
    """Cut a document that is there into chunks of another length; its words stay the same."""
    name, source = plan["collection"], plan["source"]
    was = store.digests(name, sources=[source]).get(source)
    if was is None:
        return
    text = store.document(name, store.names(name, sources=[source])[source]).text
    chunks = cut(text, 25, tokens=keys_of(int(text.split()[1])))
    done = store.recut_document(
        name,
        document(source, text),
        was=was,
        digest=str(plan["number"]),
        chunks=chunks,
        vectors=units(len(chunks), plan["number"]),
    )
    assert done


def applied(plan: dict[str, Any], model: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Do to ``model`` (collection → source → what stands there) what ``plan`` does to a store."""
    held = model.setdefault(plan["collection"], {})
    number = plan["number"]
    if plan["kind"] in ("put", "put_container"):
        held[plan["source"]] = {"number": number, "size": plan["size"], "digest": str(number)}
    elif plan["kind"] == "recut" and plan["source"] in held:
        held[plan["source"]] = {**held[plan["source"]], "digest": str(number)}
    elif plan["kind"] == "delete":
        for source in (plan["source"], SOURCES[number % len(SOURCES)]):
            held.pop(source, None)
    elif plan["kind"] == "drop":
        del model[plan["collection"]]


def _work(home: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = opened(home)
    number = seed * 1_000_000
    while True:
        number += 1
        plan = planned(chance, number)
        _say({"begin": plan})
        store = perform(store, home, plan)
        _say({"done": number})


def _say(value: dict[str, Any]) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")  # one write: lines of two processes stay whole


def main() -> None:
    for line in sys.stdin:
        home, _, seed = line.rstrip("\n").rpartition(" ")
        process = os.fork()
        if process == 0:
            _work(Path(home), int(seed))
        _say({"process": process})
        os.waitpid(process, 0)
        _say({"ended": process})


if __name__ == "__main__":
    main()
