"""Slots are handed out so that no salt ever sees another's cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.backends.llamacpp_process import SupervisorLimits
from ondol.backends.llamacpp_slots import PUBLIC, SlotLease, SlotOwner, SlotTable
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
    open_leases: list[SlotLease] = []
    for salt, prompt, begins, keep_open in requests:
        if len(open_leases) == slots:
            table.release(open_leases.pop(0))
        lease = table.lease(SlotOwner(salt), prompt=prompt)
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
        lease = table.lease(SlotOwner(), prompt=prompt)
        table.confirm(lease)
        table.release(lease)

    lease = table.lease(SlotOwner(), prompt="a long talk about cats, and more")

    assert (lease.index, lease.reuse) == (0, True)


def test_spreads_conversations_that_share_little() -> None:
    table = SlotTable(2)
    first = table.lease(SlotOwner(), prompt="one thing")
    table.confirm(first)
    table.release(first)

    assert table.lease(SlotOwner(), prompt="quite another thing").index != first.index


def test_a_request_that_never_began_does_not_claim_the_slot() -> None:
    table = SlotTable(1)
    first = table.lease(SlotOwner("ann"), prompt="x")
    table.confirm(first)
    table.release(first)
    table.release(table.lease(SlotOwner("bob"), prompt="x"))

    assert not table.lease(SlotOwner("bob"), prompt="x").reuse


def test_more_requests_than_slots_are_refused() -> None:
    table = SlotTable(1)
    table.lease(SlotOwner(), prompt="")

    with pytest.raises(Overloaded, match="1 slots"):
        table.lease(SlotOwner(), prompt="")


def test_restarts_wait_longer_each_time_up_to_a_bound() -> None:
    delays = [SupervisorLimits().delay(deaths) for deaths in range(1, 10)]

    assert delays[:3] == [0.2, 0.4, 0.8]
    assert delays == sorted(delays)
    assert delays[-1] == 10.0


def fill(
    table: SlotTable, owner: SlotOwner, prompt: str, *, answer: str = "", read: float = 1.0
) -> int:
    lease = table.lease(owner, prompt=prompt)
    table.confirm(lease)
    table.release(lease, answer=answer, read=read)
    return lease.index


@given(held=st.text("ab", max_size=40), prompt=st.text("ab", max_size=40))
def test_counts_the_characters_that_both_begin_with(held: str, prompt: str) -> None:
    table = SlotTable(1)
    fill(table, SlotOwner("ann"), held)
    same = next((n for n in range(40) if held[: n + 1] != prompt[: n + 1]), 40)

    assert table.cached_chars(SlotOwner("ann"), prompt=prompt) == min(same, len(held), len(prompt))


@pytest.mark.parametrize(
    "owner", [SlotOwner("bob"), SlotOwner(), SlotOwner("ann", adapter="other"), PUBLIC]
)
def test_a_salt_or_adapter_sees_nothing_of_another(owner: SlotOwner) -> None:
    table = SlotTable(2)
    fill(table, SlotOwner("ann"), "a secret")
    fill(table, SlotOwner("ann", adapter="legal"), "a secret")

    assert table.cached_chars(owner, prompt="a secret") == 0
    assert not table.lease(owner, prompt="a secret").reuse


def test_a_busy_conversation_counts_only_while_no_slot_is_free() -> None:
    table = SlotTable(2)
    fill(table, SlotOwner(), "a long talk about cats")
    held = table.lease(SlotOwner(), prompt="a long talk about cats and dogs")

    assert table.cached_chars(SlotOwner(), prompt=held.prompt) == 0
    table.confirm(held)
    table.lease(SlotOwner(), prompt="another matter")
    assert table.cached_chars(SlotOwner(), prompt=held.prompt) == len(held.prompt)


def test_a_slot_holds_the_answer_too_and_no_more_than_was_read() -> None:
    table = SlotTable(1)
    fill(table, SlotOwner(), "question", answer=" answer")
    assert table.cached_chars(SlotOwner(), prompt="question answer next") == len("question answer")
    fill(table, SlotOwner(), "0123456789", read=0.4)
    assert table.cached_chars(SlotOwner(), prompt="0123456789") == 4


def test_what_is_public_goes_to_the_first_who_wants_it_and_is_theirs_then() -> None:
    table = SlotTable(2)
    lease = table.lease_blank(prompt="standing orders")
    assert lease is not None
    table.confirm(lease)
    table.release(lease)

    assert table.cached_chars(SlotOwner("ann"), prompt="standing orders, ann") == 15
    assert table.cached_chars(SlotOwner("ann", adapter="legal"), prompt="standing orders") == 0
    assert fill(table, SlotOwner("ann"), "standing orders, ann") == lease.index
    assert table.cached_chars(SlotOwner("bob"), prompt="standing orders") == 0


def test_an_own_slot_goes_before_a_public_one() -> None:
    table = SlotTable(2)
    blank = table.lease(SlotOwner("ann"), prompt="orders")
    table.confirm(blank)
    table.release(blank)
    public = table.lease_blank(prompt="orders")
    assert public is not None
    table.confirm(public)
    table.release(public)

    assert fill(table, SlotOwner("ann"), "orders") == blank.index
    assert table.cached_chars(SlotOwner("bob"), prompt="orders") == len("orders")


def test_standing_prefixes_take_only_slots_that_are_nobodys_and_at_rest() -> None:
    table = SlotTable(2)
    fill(table, SlotOwner("ann"), "one")
    held = table.lease(SlotOwner("bob"), prompt="two")
    assert table.lease_blank(prompt="orders") is None
    table.confirm(held)
    table.release(held)
    assert table.lease_blank(prompt="orders") is None
