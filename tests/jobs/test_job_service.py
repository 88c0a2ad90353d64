"""The service: what may be handed in, who sees what, events, results, removal."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.jobs.stage import SETTINGS, Stage, staged

from ondol.core.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    OndolError,
    PayloadTooLarge,
    TooManyItems,
)
from ondol.jobs.intake import SubmittedItem, given_line, given_lines, given_value, prepared
from ondol.jobs.job_results import CsvRows, pages
from ondol.jobs.job_rows import ItemError, ItemResult
from ondol.jobs.work import FAKE_TASK, FakeWork

SMALL = SETTINGS.model_copy(update={"max_items": 5, "max_item_bytes": 60, "max_job_bytes": 200})


def given_text(text: str, name: str | None = None) -> SubmittedItem:
    return SubmittedItem(name, {"text": text})


def codes(*given: SubmittedItem) -> list[str]:
    ready = prepared(FAKE_TASK, [given_text("good"), *given], work=FakeWork(), settings=SMALL)
    return ["" if item.error is None else item.error.code for item in ready[1:]]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"id": "r", "input": {"text": "x"}}', ""),
        (b'{"id": 7, "input": {"text": "x"}}', ""),
        (b'{"input": {"text": "x"}}', ""),
        (b'{"id": "r", "input": {}}', "invalid_input"),
        (b'{"id": "r", "input": "x"}', "invalid_item"),
        (b'{"id": "r"}', "invalid_item"),
        (b'["x"]', "invalid_item"),
        (b'{"id": "r", "input": {"text": "x"}, "more": 1}', "unknown_field"),
        (b'{"id": "", "input": {"text": "x"}}', "invalid_id"),
        (b'{"id": true, "input": {"text": "x"}}', "invalid_id"),
        (b'{"id": "a\\nb", "input": {"text": "x"}}', "invalid_id"),
        (b'{"id": "r", "input": {"text": "x"}', "malformed_json"),
        (b'{"id": "r", "input": {"text": NaN}}', "malformed_json"),
        (b'{"id": "r", "input": {"text": "\\ud800"}}', "malformed_json"),
        (b"\xff\xfe", "malformed_json"),
    ],
)
def test_a_bad_line_fails_alone(line: bytes, code: str) -> None:
    assert codes(given_line(line)) == [code]


def test_names_are_given_and_must_differ() -> None:
    ready = prepared(
        FAKE_TASK,
        [given_text("a"), given_text("b", "x"), given_text("c", "x"), given_text("d", "item-0")],
        work=FakeWork(),
        settings=SMALL,
    )
    assert [item.id for item in ready] == ["item-0", "x", "x", "item-0"]
    assert [item.error and item.error.code for item in ready] == [
        *(None, None),
        *("duplicate_id", "duplicate_id"),
    ]


def test_equal_inputs_are_equal_work_whatever_the_order_of_their_fields() -> None:
    same = [SubmittedItem(input={"text": "a", "n": 1}), SubmittedItem(input={"n": 1, "text": "a"})]
    one, two = prepared(FAKE_TASK, same, work=FakeWork(), settings=SMALL)
    assert one.digest == two.digest
    assert (
        one.digest
        != prepared(FAKE_TASK, [given_text("a")], work=FakeWork(), settings=SMALL)[0].digest
    )


@pytest.mark.parametrize(
    ("items", "kind", "code"),
    [
        ([], InvalidInput, "empty_input"),
        ([given_text("x")] * 6, TooManyItems, "too_many_items"),
        ([given_text("x" * 45)] * 5, PayloadTooLarge, "payload_too_large"),
        ([SubmittedItem(input={}), SubmittedItem(input={})], InvalidInput, "invalid_input"),
        ([given_text("x" * 60)], InvalidInput, "payload_too_large"),
    ],
)
def test_what_is_wrong_with_the_whole_job_is_an_error(
    items: list[SubmittedItem], kind: type[OndolError], code: str
) -> None:
    with pytest.raises(kind) as caught:
        prepared(FAKE_TASK, items, work=FakeWork(), settings=SMALL)
    assert caught.value.code == code
    assert caught.value.hint


def test_an_input_that_is_too_large_fails_alone_and_is_not_kept() -> None:
    large = prepared(
        FAKE_TASK, [given_text("a"), given_text("글" * 20)], work=FakeWork(), settings=SMALL
    )[1]
    assert large.error is not None
    assert (large.error.code, large.input) == ("payload_too_large", "")


def test_a_file_is_read_line_by_line_and_past_what_is_too_long() -> None:
    file = io.BytesIO(b'{"input": {"text": "a"}}\n\n' + b"x" * 500 + b'\n{"input": {"text": "b"}}')
    found = list(given_lines(file, most=60))
    assert [one.input and one.input["text"] for one in found] == ["a", None, "b"]
    assert found[1].error is not None
    assert found[1].error.code == "payload_too_large"


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["id", "input", "text", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_nothing_that_comes_breaks_the_intake(value: Any) -> None:
    (code,) = codes(given_value(value))
    assert code == "" or code in {
        *("invalid_item", "unknown_field", "invalid_id", "invalid_input", "payload_too_large"),
    }


async def test_an_unknown_task_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    async with staged(tmp_path, start=False) as stage:
        with pytest.raises(NotFound, match="no task"):
            await stage.service.submit("nothing", [given_text("a")])
        for bad in ({"priority": 101}, {"key": "k" * 201}, {"key": "a\nb"}):
            with pytest.raises(InvalidInput):
                await stage.submit("a", **bad)
        assert await stage.service.list() == []


async def test_handing_in_twice_under_one_key_is_one_job(tmp_path: Path) -> None:
    async with staged(tmp_path, start=False) as stage:
        first = await stage.submit("a", "b", key="night")
        assert await stage.submit("a", "b", key="night") == first
        with pytest.raises(Conflict):
            await stage.submit("a", "c", key="night")


async def test_progress_and_when_it_will_be_done(tmp_path: Path) -> None:
    work = FakeWork(gate=asyncio.Event())
    async with staged(tmp_path, work=work) as stage:
        job = await stage.submit(*"abcdef", "a")
        view = await stage.service.show(job)
        assert (view.total, view.items_per_second, view.eta_seconds) == (7, None, None)
        await stage.until(lambda: work.running == 3)
        stage.clock.advance(4.0)
        assert work.gate is not None
        work.gate.set()
        await stage.until(lambda: len(work.order) == 6 and not work.running)
        await stage.ended(job)
        view = await stage.service.show(job)
        assert (view.state, view.done, view.eta_seconds) == ("done", 7, None)


async def test_the_estimate_counts_equal_items_once(tmp_path: Path) -> None:
    async with staged(tmp_path, start=False) as stage:
        job = await stage.submit("a", "b", "c", "b", "c")
        (lease,) = stage.store.claim(job, limit=1, now=1000.0, seconds=60.0)
        stage.store.finish(lease, '{"result": {}}', now=1002.0)
        stage.clock.advance(4.0)
        view = await stage.service.show(job)
        assert (view.items_per_second, view.eta_seconds) == (0.25, 8.0)


async def test_events_follow_a_job_to_its_end(tmp_path: Path) -> None:
    work = FakeWork(gate=asyncio.Event())
    async with staged(tmp_path, work=work) as stage:
        job = await stage.submit(*"abcd")
        seen = []
        async for view in stage.service.events(job):
            seen.append(view)
            if view.running == 3 and work.gate is not None:
                work.gate.set()
        assert seen[-1].state == "done"
        assert [view.done for view in seen] == sorted(view.done for view in seen)
        told = [view.without_estimates() for view in seen]
        assert all(a != b for a, b in itertools.pairwise(told))


async def test_events_see_what_another_process_does_and_end_with_this_one(tmp_path: Path) -> None:
    quick = SETTINGS.model_copy(update={"poll_seconds": 0.005})
    async with staged(tmp_path, start=False, settings=quick) as stage:
        job = await stage.submit("a", "b")
        events = stage.service.events(job)
        assert (await anext(events)).state == "queued"
        stage.store.claim(job, limit=1, now=1000.0, seconds=60.0)
        assert (await anext(events)).running == 1
        stage.feed.close()
        assert [view async for view in events] == []


async def rows(stage: Stage, job: str, **options: Any) -> str:
    return "".join([page async for page in stage.service.results(job, **options)])


async def test_results_as_lines_and_as_csv(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        view = await stage.service.submit(
            FAKE_TASK,
            [given_text("=1+1", "r,1"), SubmittedItem("r2", {}), given_text('쉼표, "인용"', "r3")],
        )
        await stage.ended(view.id)
        lines = [json.loads(line) for line in (await rows(stage, view.id)).splitlines()]
        assert [(line["id"], line["status"]) for line in lines] == [
            *(("r,1", "done"), ("r2", "failed"), ("r3", "done")),
        ]
        assert lines[0]["result"] == {"text": "1+1=", "length": 4}
        assert lines[1]["error"]["code"] == "invalid_input"
        table = list(csv.DictReader(io.StringIO(await rows(stage, view.id, format="csv"))))
        assert [row["id"] for row in table] == ["r,1", "r2", "r3"]
        assert table[2]["result.text"] == '"용인" ,표쉼'
        assert table[1]["code"] == "invalid_input"
        assert len((await rows(stage, view.id, after=0, limit=1)).splitlines()) == 1
        assert "r2" in await rows(stage, view.id, states=("failed",))
        with pytest.raises(NotFound):
            await rows(stage, "nothing")


def test_a_cell_that_a_spreadsheet_would_run_is_defused() -> None:
    item = ItemResult(
        0,
        "@id",
        "done",
        1,
        '{"result": {"a": "=HYPERLINK()", "b": -1, "c": ["-"]}}',
        None,
        0,
        1,
        None,
    )
    failed = ItemResult(1, "x", "failed", 1, None, ItemError("c", "+m"), None, None, None)
    read = list(csv.reader(io.StringIO(CsvRows(["a", "b", "c"]).rows([item, failed]))))
    assert read[0][1] == "'@id"
    assert read[0][-3:] == ["'=HYPERLINK()", "-1", '["-"]']
    assert read[1][5] == "'+m"


@given(total=st.integers(0, 900), limit=st.none() | st.integers(1, 900), after=st.integers(-1, 900))
def test_pages_give_every_item_once(total: int, limit: int | None, after: int) -> None:
    def read(after: int, limit: int) -> list[ItemResult]:
        wanted = range(after + 1, total)[:limit]
        return [ItemResult(n, "", "done", 1, None, None, 0, 1, None) for n in wanted]

    found = [item.ordinal for page in pages(read, after=after, limit=limit) for item in page]
    assert found == list(range(after + 1, total))[:limit]


async def test_a_job_that_ended_can_be_removed_with_everything(tmp_path: Path) -> None:
    async with staged(tmp_path, start=False) as stage:
        job = await stage.submit("몹시 사사로운 글")
        with pytest.raises(Conflict):
            await stage.service.delete(job)
        await stage.service.cancel(job)
        await stage.service.delete(job)
        with pytest.raises(NotFound):
            await stage.service.show(job)
        stage.database.close()
        assert "사사로운".encode() not in everything_in(tmp_path)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("ondol.db*"))
