"""Retrying with exponential back-off and jitter, always bounded, by tenacity.

Decides: the shape of the waits. The first wait is short, since most losses are blips; the longest
is bounded, so that a peer's return is noticed soon.
Leaves to others: which failures are worth another try (the caller names the exception types).
Invariants: cancellation is never retried; no wait is longer than ``max_s``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_never
from tenacity.stop import stop_after_delay
from tenacity.wait import wait_random_exponential

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits are random between 0 and ``first_s`` × 2ⁿ, at most ``max_s`` (full jitter).

    ``give_up_after_s`` ends the tries and raises the last failure; ``None`` tries for ever.
    """

    first_s: float = 0.05
    max_s: float = 1.0
    give_up_after_s: float | None = None


async def retrying(
    attempt: Callable[[], Awaitable[T]],
    *,
    on: type[Exception] | tuple[type[Exception], ...],
    backoff: Backoff | None = None,
    before_wait: Callable[[Exception, int, float], None] | None = None,
) -> T:
    """Await ``attempt()`` until it does not raise one of ``on``.

    ``before_wait`` is told the failure, the number of the try and the seconds until the next.
    """
    limits = backoff or Backoff()

    def tell(state: RetryCallState) -> None:
        failure = state.outcome.exception() if state.outcome else None
        if before_wait is not None and isinstance(failure, Exception):
            wait_s = state.next_action.sleep if state.next_action else 0.0
            before_wait(failure, state.attempt_number, wait_s)

    controller = AsyncRetrying(
        wait=wait_random_exponential(multiplier=limits.first_s, max=limits.max_s),
        stop=stop_never
        if limits.give_up_after_s is None
        else stop_after_delay(limits.give_up_after_s),
        retry=retry_if_exception_type(on),
        before_sleep=tell,
        reraise=True,
    )

    # tenacity awaits only what it can tell for a coroutine function, which a lambda is not.
    async def awaited() -> T:
        return await attempt()

    return await controller(awaited)
