"""The asyncio kit: latest value, back-off, supervision."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from federation.aio import Backoff, Latest, any_change, cancel_and_wait, retrying, supervised


async def test_a_cell_says_whether_a_value_was_news() -> None:
    cell: Latest[int] = Latest()
    assert [cell.set(1), cell.set(1), cell.set(2)] == [True, False, True]
    assert (cell.value, cell.version) == (2, 2)


async def test_a_slow_reader_gets_the_newest_only() -> None:
    cell = Latest(0)
    async with asyncio.timeout(5), aclosing(cell.changes()) as changes:
        assert await anext(changes) == 0
        for value in range(1, 10):
            cell.set(value)
        assert await anext(changes) == 9
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.wait({waiting}, timeout=0.01)
        assert not waiting.done()
        cell.set(10)
        assert await waiting == 10


async def test_readers_end_with_the_cell() -> None:
    cell = Latest("last")
    cell.close()
    assert [value async for value in cell.changes()] == ["last"]
    assert not cell.set("too late")


async def test_changes_of_several_cells_come_as_one() -> None:
    one, two = Latest(0), Latest(0)
    async with asyncio.timeout(5), aclosing(any_change(one, two, settle_s=0.001)) as changes:
        await anext(changes)
        one.set(1)
        two.set(1)
        await anext(changes)
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.wait({waiting}, timeout=0.01)
        assert not waiting.done()
        two.set(2)
        await waiting


async def test_only_named_failures_are_retried() -> None:
    tries = 0
    told: list[int] = []

    async def attempt() -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ConnectionError("not yet")
        return "done"

    outcome = await retrying(
        attempt,
        on=ConnectionError,
        backoff=Backoff(first_s=0.001, max_s=0.002),
        before_wait=lambda _failure, attempt, _wait: told.append(attempt),
    )
    assert (outcome, told) == ("done", [1, 2])

    # A function that is none of `async def` is awaited as well.
    tries = 0
    outcome = await retrying(
        lambda: asyncio.shield(attempt()),
        on=ConnectionError,
        backoff=Backoff(first_s=0.001, max_s=0.002),
    )
    assert outcome == "done"

    async def broken() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await retrying(broken, on=ConnectionError)


async def test_retrying_gives_up_when_told_to() -> None:
    async def attempt() -> None:
        raise ConnectionError("never")

    backoff = Backoff(first_s=0.001, max_s=0.002, give_up_after_s=0.02)
    with pytest.raises(ConnectionError, match="never"):
        await retrying(attempt, on=ConnectionError, backoff=backoff)


async def test_a_failing_loop_is_reported_and_started_again() -> None:
    starts = 0
    reports: list[str] = []

    async def loop() -> None:
        nonlocal starts
        starts += 1
        if starts < 3:
            raise RuntimeError(f"failure {starts}")

    await supervised(
        "loop",
        loop,
        on_failure=lambda name, failure, _wait: reports.append(f"{name}: {failure}"),
        first_wait_s=0.001,
    )
    assert reports == ["loop: failure 1", "loop: failure 2"]


async def test_a_fatal_failure_is_not_survived() -> None:
    async def loop() -> None:
        raise PermissionError("for good")

    with pytest.raises(PermissionError):
        await supervised("loop", loop, on_failure=lambda *_: None, fatal=(PermissionError,))


async def test_cancellation_passes_a_supervisor() -> None:
    started = asyncio.Event()

    async def loop() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(supervised("loop", loop, on_failure=lambda *_: None))
    await started.wait()
    await cancel_and_wait(task)
    assert task.cancelled()
