"""Jobs against a plain model: any sequence of operations by two processes that may die at any point.

No item is lost, none ends twice, and the counts always add up.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.jobs.job_builders import NOW, items, open_jobs_store

from ondol.jobs.job_rows import ItemError, ItemLease, NewJob

CRASHES = 3
TEXTS = st.lists(st.sampled_from(["a", "b", "c", "a2", "!"]), min_size=1, max_size=6)
WHICH = st.integers(0, 1)
PICK = st.integers(0, 10**6)


@dataclass
class Held:
    """A job as the model has it: the outcome of each ordinal, ``None`` while there is none."""

    texts: list[str]
    outcome: dict[int, str | None] = field(default_factory=dict)

    def equals(self, ordinal: int) -> list[int]:
        text = self.texts[ordinal]
        return [n for n, other in enumerate(self.texts) if other == text]


class JobMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="ondol-jobs-"))
        opened = [open_jobs_store(self.home) for _ in range(2)]
        self.databases = [database for database, _ in opened]
        self.stores = [store for _, store in opened]
        self.now = NOW
        self.jobs: dict[str, Held] = {}
        self.leases: list[ItemLease] = []
        self.valid: set[str] = set()
        self.number = 0

    def teardown(self) -> None:
        """Whatever happened: who goes on ends every item."""
        store = self.stores[0]
        store.reclaim(now=self.now, crashes=10**6, everything=True)
        for job in list(self.jobs):
            for suspects in (False, True):
                while leases := store.claim(
                    job, limit=9, now=self.now + 1e6, seconds=9, suspects=suspects
                ):
                    assert all(store.finish(lease, '"end"', now=self.now) for lease in leases)
            row = store.get(job)
            assert row.finished is not None
            assert len(store.results(job)) == row.total
        for database in self.databases:
            database.close()
        shutil.rmtree(self.home)

    @rule(texts=TEXTS, which=WHICH)
    def create(self, texts: list[str], which: int) -> None:
        self.number += 1
        name = f"j{self.number}"
        job = NewJob(name, "t", self.now)
        self.stores[which].create(job, items(*texts), most_queued=10**6)
        self.jobs[name] = Held(
            texts, {n: "failed" if t == "!" else None for n, t in enumerate(texts)}
        )

    @rule(pick=PICK, limit=st.integers(1, 4), suspects=st.booleans(), which=WHICH)
    def claim(self, pick: int, limit: int, suspects: bool, which: int) -> None:
        if not self.jobs:
            return
        name = list(self.jobs)[pick % len(self.jobs)]
        taken = self.stores[which].claim(
            name, limit=limit, now=self.now, seconds=10, suspects=suspects
        )
        under_way = {(le.job, le.ordinal) for le in self.leases if le.token in self.valid}
        for lease in taken:
            assert self.jobs[name].outcome[lease.ordinal] is None
            assert self.jobs[name].equals(lease.ordinal)[0] == lease.ordinal
            assert (name, lease.ordinal) not in under_way
        self.leases += taken
        self.valid |= {lease.token for lease in taken}

    @rule(pick=PICK, how=st.sampled_from(["done", "failed", "retry", "back"]), which=WHICH)
    def end(self, pick: int, how: str, which: int) -> None:
        """A worker reports, perhaps one whose lease was taken away long ago."""
        if not self.leases:
            return
        lease, store = self.leases[pick % len(self.leases)], self.stores[which]
        error = ItemError("broke", "broke")
        match how:
            case "done":
                taken = store.finish(lease, f'"{lease.token}"', now=self.now)
            case "failed":
                taken = store.fail(lease, error, now=self.now)
            case "retry":
                taken = store.fail(lease, error, now=self.now, retry_at=self.now + 5)
            case _:
                taken = bool(store.give_back([lease], not_before=self.now, refused_at=self.now))
        assert taken == (lease.token in self.valid)
        self.valid.discard(lease.token)
        if taken and how in ("done", "failed"):
            held = self.jobs[lease.job]
            for ordinal in held.equals(lease.ordinal):
                assert held.outcome[ordinal] is None
                held.outcome[ordinal] = lease.token if how == "done" else "failed"

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=WHICH)
    def renew(self, which: int) -> None:
        held = self.stores[which].renew(self.leases, until=self.now + 10)
        assert held == self.valid

    @rule(which=WHICH, everything=st.booleans())
    def reclaim(self, which: int, everything: bool) -> None:
        """A process died, or its leases ran out: which of them, only the store knows."""
        self.stores[which].reclaim(now=self.now, crashes=CRASHES, everything=everything)
        held = self.stores[which].renew(self.leases, until=self.now + 10)
        assert held <= self.valid
        assert not (everything and held)
        gone, self.valid = self.valid - held, held
        for lease in self.leases:
            if lease.token in gone and lease.losses + 1 >= CRASHES:
                held_job = self.jobs[lease.job]
                for ordinal in held_job.equals(lease.ordinal):
                    held_job.outcome[ordinal] = "failed"

    @rule(pick=PICK, which=WHICH)
    def cancel(self, pick: int, which: int) -> None:
        if not self.jobs:
            return
        name = list(self.jobs)[pick % len(self.jobs)]
        self.stores[which].cancel(name, now=self.now)
        held = self.jobs[name]
        held.outcome = {n: o or "cancelled" for n, o in held.outcome.items()}
        self.valid -= {lease.token for lease in self.leases if lease.job == name}

    @rule(pick=PICK, failed=st.booleans(), which=WHICH)
    def resume(self, pick: int, failed: bool, which: int) -> None:
        if not self.jobs:
            return
        name = list(self.jobs)[pick % len(self.jobs)]
        self.stores[which].resume(name, failed=failed, now=self.now)
        held = self.jobs[name]
        again = {"cancelled", "failed"} if failed else {"cancelled"}
        for ordinal, outcome in held.outcome.items():
            if outcome in again and held.texts[ordinal] != "!":
                held.outcome[ordinal] = None

    @rule(which=WHICH)
    def reopen(self, which: int) -> None:
        self.databases[which].close()
        self.databases[which], self.stores[which] = open_jobs_store(self.home)

    @invariant()
    def counts_add_up_and_results_are_those_first_taken(self) -> None:
        store = self.stores[1]
        tallies = store.tallies(list(self.jobs))
        for name, held in self.jobs.items():
            tally, row = tallies[name], store.get(name)
            states = (tally.queued, tally.leased, tally.done, tally.failed, tally.cancelled)
            assert sum(states) == row.total == len(held.texts)
            assert tally.leased == sum(
                le.job == name and le.token in self.valid for le in self.leases
            )
            found = {r.ordinal: r for r in store.results(name)}
            assert set(found) == {n for n, outcome in held.outcome.items() if outcome is not None}
            for ordinal, result in found.items():
                outcome = held.outcome[ordinal]
                assert result.state == (outcome if outcome in ("failed", "cancelled") else "done")
                if result.state == "done":
                    assert result.result == f'"{outcome}"'
            assert (row.finished is None) == (None in held.outcome.values())


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)
