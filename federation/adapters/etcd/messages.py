"""Between the port's values and etcd's messages; no I/O.

Decides: how guards and writes become one transaction, and how a key-value becomes an ``Entry``.
Invariants: keys are UTF-8; a prefix means every key that starts with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aetcd import rpc

from federation.adapters.etcd.connection import Message
from federation.ports import Absent, CreatedAt, Delete, Entry, Guard, Put, Unchanged, Write


def entry_of(pair: Message) -> Entry:
    """An ``Entry`` from a ``KeyValue``."""
    return Entry(
        key=pair.key.decode(),
        value=pair.value,
        create_revision=pair.create_revision,
        mod_revision=pair.mod_revision,
        leased=pair.lease != 0,
    )


def prefix_end(prefix: str) -> bytes:
    """The first key after all keys with ``prefix``; ``\\0`` (etcd: no end) for the empty one."""
    raw = bytearray(prefix.encode())
    while raw:
        if raw[-1] < 0xFF:
            raw[-1] += 1
            return bytes(raw)
        raw.pop()
    return b"\0"


def range_request(
    prefix: str, *, start: str | None = None, limit: int = 0, revision: int = 0
) -> Message:
    """A page of ``prefix`` from key ``start`` on, at ``revision`` (0: the newest)."""
    return rpc.RangeRequest(
        key=(start or prefix).encode() or b"\0",
        range_end=prefix_end(prefix),
        limit=limit,
        revision=revision,
    )


def transaction(writes: Sequence[Write], guards: Iterable[Guard]) -> Message:
    """All ``writes`` if all ``guards`` hold, else nothing."""
    return rpc.TxnRequest(
        compare=[_compare(guard) for guard in guards],
        success=[_operation(write) for write in writes],
    )


def watch_request(prefix: str, *, start_revision: int, prev_kv: bool = False) -> Message:
    """Watch ``prefix`` from ``start_revision`` on; ``prev_kv``: with what was there before."""
    return rpc.WatchRequest(
        create_request=rpc.WatchCreateRequest(
            key=prefix.encode() or b"\0",
            range_end=prefix_end(prefix),
            start_revision=start_revision,
            prev_kv=prev_kv,
        )
    )


def probe_request() -> Message:
    """Ask a watch stream for a sign of life."""
    return rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())


def _compare(guard: Guard) -> Message:
    key = guard.key.encode()
    equal = rpc.Compare.EQUAL
    match guard:
        case Absent():
            created = rpc.Compare.CREATE
            return rpc.Compare(result=equal, target=created, key=key, create_revision=0)
        case CreatedAt(create_revision=revision):
            created = rpc.Compare.CREATE
            return rpc.Compare(result=equal, target=created, key=key, create_revision=revision)
        case Unchanged(mod_revision=revision):
            return rpc.Compare(result=equal, target=rpc.Compare.MOD, key=key, mod_revision=revision)


def _operation(write: Write) -> Message:
    key = write.key.encode()
    match write:
        case Put():
            put = rpc.PutRequest(key=key, value=write.value, lease=write.lease or 0)
            return rpc.RequestOp(request_put=put)
        case Delete():
            return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
