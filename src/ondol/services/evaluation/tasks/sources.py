"""What the claims of a result rest on, looked up again: the input, and the collections it names.

Asks the store and the input only, never the services that made the result. Blocking: call it in a
thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ondol.core.errors import NotFound
from ondol.services.lookups import Lookups
from ondol.services.tasks.declaration import Task
from ondol.services.tasks.steps.retrieve import RetrieveParameters
from ondol.store.documents import DocumentStore
from ondol.text.references import Reference, references_of


class Sources:
    """The sources of one run of ``task`` on ``input``."""

    def __init__(self, task: Task, input: Mapping[str, Any], store: DocumentStore) -> None:
        self._task = task
        self._input = input
        self._store = store

    @cached_property
    def entries(self) -> dict[str, str]:
        """The texts that came with the input, by the id that results call them by."""
        rule = self._task.entries
        rows = self._input.get(rule.field) if rule is not None else None
        if not isinstance(rows, Sequence) or isinstance(rows, str):
            return {}
        found = {}
        for number, row in enumerate(rows, start=1):
            given = row if isinstance(row, Mapping) else {"text": row}
            found[str(given.get("id") or number)] = str(given.get("text", ""))
        return found

    @cached_property
    def collections(self) -> tuple[str, ...]:
        """The collections the run could look into."""
        names = [str(self._input.get("collection") or "")]
        for step in self._task.steps:
            if isinstance(step.parameters, RetrieveParameters):
                given = self._input.get(step.parameters.field) or step.parameters.collection
                names.append(str(given))
        return tuple(dict.fromkeys(name for name in names if name))

    def text_of(self, evidence: Any) -> str | None:
        """Return the words ``evidence`` stands for, ``None`` where it is not there as it says."""
        if isinstance(evidence, str):
            known = self.entries.get(evidence)
            return known if known is not None else self._document(evidence)
        start, end = int(evidence["start"]), int(evidence["end"])
        if evidence["document"] == "input":
            texts = [value for value in self._input.values() if isinstance(value, str)]
        else:
            texts = [self._document(str(evidence["document"])) or ""]
        quote = str(evidence["quote"])
        return quote if any(text[start:end] == quote for text in texts) else None

    def named(self, reference: Reference) -> list[str]:
        """Return the documents that ``reference`` names, in the first collection that has them."""
        lookups = Lookups(self._store)
        for collection in self.collections:
            try:
                rows = self._store.chunks(collection, lookups.of(collection, reference))
            except NotFound:
                continue
            if rows:
                return list(dict.fromkeys(row.document for row in rows))
        return []

    def metadata(self, document: str) -> Mapping[str, Any]:
        """Return what a document says of itself, nothing for one that is not there."""
        for collection in self.collections:
            try:
                return self._store.document(collection, document).metadata
            except NotFound:
                continue
        return {}

    @cached_property
    def given_names(self) -> frozenset[str]:
        """The keys of the laws and cases that the input itself names."""
        given = " ".join(value for value in self._input.values() if isinstance(value, str))
        return frozenset(key for one in references_of(given) for key in one.keys)

    def _document(self, name: str) -> str | None:
        for collection in self.collections:
            try:
                return self._store.document(collection, name).text
            except NotFound:
                continue
        return None
