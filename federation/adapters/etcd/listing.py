"""Reading a whole prefix at one revision, in pages.

Decides: the page size, so that no answer grows with the store.
Invariants: all pages are of the revision of the first.
"""

from __future__ import annotations

from dataclasses import dataclass

from aetcd import rpc

from federation.adapters.etcd.connection import Connection
from federation.adapters.etcd.messages import entry_of, range_request
from federation.ports import Entry, Listing

PAGE = 2_000
"""Keys in one answer: a few MB of objects at most in practice; etcd caps a value at 1.5 MB."""


@dataclass(frozen=True, slots=True)
class ServerListing:
    """A listing and the identity of the etcd cluster it came from."""

    listing: Listing
    cluster_id: int


async def read_listing(connection: Connection, prefix: str, *, revision: int = 0) -> ServerListing:
    """All entries under ``prefix`` at ``revision`` (0: the newest)."""
    entries: list[Entry] = []
    start: str | None = None
    while True:
        request = range_request(prefix, start=start, limit=PAGE, revision=revision)
        answer = await connection.call(request, f"listing {prefix}")
        revision = revision or answer.header.revision
        entries += [entry_of(pair) for pair in answer.kvs]
        if not answer.more:
            listing = Listing(revision, tuple(entries))
            return ServerListing(listing, answer.header.cluster_id)
        start = entries[-1].key + "\0"


async def newest(connection: Connection, prefix: str) -> tuple[int, int]:
    """The store's revision and its cluster's identity, for the price of a count."""
    request = rpc.RangeRequest(key=prefix.encode() or b"\0", count_only=True)
    answer = await connection.call(request, f"looking at {prefix}")
    return answer.header.revision, answer.header.cluster_id
