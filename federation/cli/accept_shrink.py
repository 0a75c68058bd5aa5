"""``fedctl accept-shrink``: an operator's word that exports which are missing are meant to be gone.

Decides: what is shown before, and that only what is missing now is accepted: a loss that grows
afterwards is doubted anew. Without missing exports the word still ends an agent's doubt about other
objects that its source no longer shows.
Leaves to others: the doubt (``derive.shrink``), publishing (the cluster's agent, which also removes
the word once it has acted on it).
Invariants: a dry run writes nothing.
"""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from federation.cli.completion import complete_cluster
from federation.cli.context import CommandError, Context, complain, current, run
from federation.cli.exit_codes import ExitCode
from federation.cli.federation_view import read_view
from federation.derive.shrink import still_exported_by
from federation.model.base import ClusterId, ServiceName
from federation.model.facts import AcceptedShrink
from federation.model.view import FederationView
from federation.ports import Put
from federation.wire.etcd import to_bytes
from federation.wire.etcd_keys import Keys

app = typer.Typer()


@app.command("accept-shrink", epilog="Example: fedctl accept-shrink us-east-1 --dry-run")
def accept_shrink(
    ctx: typer.Context,
    cluster: Annotated[
        str,
        typer.Argument(
            help="The cluster whose shrink is quarantined.", autocompletion=complete_cluster
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do.")] = False,
) -> None:
    """Confirm that exports which are missing are meant to be gone."""
    run(_accept(current(ctx), ClusterId(cluster), dry_run=dry_run))


async def _accept(context: Context, cluster: ClusterId, *, dry_run: bool) -> None:
    keys = Keys(context.prefix)
    async with context.open_store() as store:
        view = (await read_view(store, keys)).view
        missing = _missing(view, cluster)
        for service in missing:
            typer.echo(_consequence(view, cluster, service))
        if not missing:
            typer.echo(f"no export of {cluster} is missing")
        if dry_run:
            typer.echo("nothing was changed")
            return
        word = AcceptedShrink(cluster=cluster, missing=missing, requested_by=getpass.getuser())
        await store.commit([Put(keys.accepted_shrink(cluster), to_bytes(word))])
        typer.echo(f"{cluster} publishes and routes by what its source shows")
        if cluster not in view.heartbeats:
            complain(f"warning: {cluster} is stale; its agent does so when it is back")


def _missing(view: FederationView, cluster: ClusterId) -> tuple[ServiceName, ...]:
    if cluster not in view.members:
        known = ", ".join(sorted(view.members)) or "none"
        raise CommandError(
            f"no cluster is named {cluster}; known names: {known}", ExitCode.NOT_FOUND
        )
    manifest = view.manifests.get(cluster)
    quarantine = manifest.quarantine if manifest is not None else None
    return quarantine.missing if quarantine is not None else ()


def _consequence(view: FederationView, cluster: ClusterId, service: ServiceName) -> str:
    others = still_exported_by(view, service, without=cluster)
    rest = f"still exported by {', '.join(others)}" if others else "then exported by no cluster"
    return f"{service}: no longer exported by {cluster}, {rest}"
