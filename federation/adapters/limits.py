"""Limits of one commit, the same for every store, so that memory refuses what etcd would."""

from __future__ import annotations

from collections.abc import Sequence

from federation.ports import MAX_WRITES, Write


def check_writes(writes: Sequence[Write]) -> None:
    """Raise ``ValueError`` for what one etcd transaction cannot hold."""
    if len(writes) > MAX_WRITES:
        raise ValueError(f"{len(writes)} writes in one commit; at most {MAX_WRITES}")
    if len({write.key for write in writes}) < len(writes):
        raise ValueError("a commit writes each key once")
