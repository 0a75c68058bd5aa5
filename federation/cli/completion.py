"""What shells complete besides commands and options: names of clusters, regions and services.

Decides: which names, and how long a key press may wait for them.
Leaves to others: which options are completed (the commands), scripts for shells (typer).
Invariants: nothing is printed and nothing fails: without an answer in time there are no names.
Only what begins as typed is asked for, except regions, which are no keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import typer

from federation.cli.context import DEFAULT_PREFIX, Context, EtcdFiles, make_context

WAIT_S = 1.0
"""For etcd's answer; a person waits at the prompt."""

NAMES_MAX = 200
"""More than a shell shows at a time; longer beginnings find the others."""


def complete_cluster(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of clusters."""
    from federation.model.base import ClusterId
    from federation.wire.etcd_keys import Keys

    found = _below(ctx, Keys(_context(ctx).prefix).member(ClusterId("")), incomplete)
    return _chosen(found, incomplete)


def complete_place(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of clusters and regions."""
    from federation.model.base import ClusterId
    from federation.model.facts import Member
    from federation.wire.etcd import from_bytes
    from federation.wire.etcd_keys import Keys

    found = _below(ctx, Keys(_context(ctx).prefix).member(ClusterId("")), "")
    names = set(found)
    for value in found.values():
        try:
            names.add(from_bytes(Member, value).region)
        except ValueError:
            continue
    return _chosen(names, incomplete)


def complete_service(ctx: typer.Context, incomplete: str) -> list[str]:
    """Services of the clusterset as NAMESPACE/NAME."""
    from federation.wire.etcd_keys import Keys

    found = _below(ctx, Keys(_context(ctx).prefix).resolved_services, incomplete)
    return _chosen(found, incomplete)


def _chosen(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))[:NAMES_MAX]


def _context(ctx: typer.Context) -> Context:
    """The global options as typed so far; while completing, no command has made the context."""
    typed = ctx.find_root().params
    files = EtcdFiles(typed.get("etcd_ca"), typed.get("etcd_cert"), typed.get("etcd_key"))
    return make_context(typed.get("etcd"), typed.get("prefix") or DEFAULT_PREFIX, files)


def _below(ctx: typer.Context, prefix: str, incomplete: str) -> dict[str, bytes]:
    """Values by what follows ``prefix`` in their keys; none where etcd does not answer in time."""
    from federation.ports import PortError

    try:
        return asyncio.run(_listed(_context(ctx), prefix, incomplete))
    except (PortError, OSError, TimeoutError):
        return {}


async def _listed(context: Context, prefix: str, incomplete: str) -> dict[str, bytes]:
    async with asyncio.timeout(WAIT_S), context.open_store() as store:
        entries = (await store.list(prefix + incomplete)).entries
    return {entry.key.removeprefix(prefix): entry.value for entry in entries}
