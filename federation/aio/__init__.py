"""Asyncio primitives that know no domain: latest value, bounded back-off, supervised tasks."""

from federation.aio.backoff import Backoff, retrying
from federation.aio.latest import Latest, any_change
from federation.aio.supervise import cancel_and_wait, supervised

__all__ = ["Backoff", "Latest", "any_change", "cancel_and_wait", "retrying", "supervised"]
