"""Slots are handed out so that no salt ever sees another's cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.backends.llamacpp_slots import Lease, SlotTable
from ondol.backends.llamacpp_supervisor import Patience
from ondol.core.errors import Overloaded

REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "eve"]),
        st.text("ab", max_size=6),
        st.booleans(),
        st.integers(0, 2),
    ),
    max_size=40,
)


@given(requests=REQUESTS, slots=st.integers(1, 3))
def test_a_slot_is_reused_only_under_the_salt_that_filled_it(
    requests: list[tuple[str, str, bool, int]], slots: int
) -> None:
    table = SlotTable(slots)
    filled_by: dict[int, set[str]] = {index: set() for index in range(slots)}
    open_leases: list[Lease] = []
    for salt, prompt, begins, keep_open in requests:
        if len(open_leases) == slots:
            table.release(open_leases.pop(0))
        lease = table.lease(salt=salt, prompt=prompt)
        assert lease.index not in [other.index for other in open_leases]
        if lease.reuse:
            assert filled_by[lease.index] <= {salt}
        if begins:
            table.confirm(lease)
            filled_by[lease.index] = {salt}
        open_leases.append(lease)
        while len(open_leases) > keep_open:
            table.release(open_leases.pop(0))


def test_prefers_the_slot_that_holds_the_conversation() -> None:
    table = SlotTable(2)
    for prompt in ("a long talk about cats", "another matter altogether"):
        lease = table.lease(salt="", prompt=prompt)
        table.confirm(lease)
        table.release(lease)

    lease = table.lease(salt="", prompt="a long talk about cats, and more")

    assert (lease.index, lease.reuse) == (0, True)


def test_spreads_conversations_that_share_little() -> None:
    table = SlotTable(2)
    first = table.lease(salt="", prompt="one thing")
    table.confirm(first)
    table.release(first)

    assert table.lease(salt="", prompt="quite another thing").index != first.index


def test_a_request_that_never_began_does_not_claim_the_slot() -> None:
    table = SlotTable(1)
    first = table.lease(salt="ann", prompt="x")
    table.confirm(first)
    table.release(first)
    table.release(table.lease(salt="bob", prompt="x"))

    assert not table.lease(salt="bob", prompt="x").reuse


def test_more_requests_than_slots_are_refused() -> None:
    table = SlotTable(1)
    table.lease(salt="", prompt="")

    with pytest.raises(Overloaded, match="1 slots"):
        table.lease(salt="", prompt="")


def test_restarts_wait_longer_each_time_up_to_a_bound() -> None:
    delays = [Patience().delay(deaths) for deaths in range(1, 10)]

    assert delays[:3] == [0.2, 0.4, 0.8]
    assert delays == sorted(delays)
    assert delays[-1] == 10.0
