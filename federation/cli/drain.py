"""``fedctl drain`` and ``fedctl undrain``: move traffic away from a region or cluster, and back.

Decides: their options, the preview, waiting.
Leaves to others: what a drain means, when it is refused, what is written (``operations.drains``).
Invariants: a dry run writes nothing and ends with the exit code of the real thing.
"""

from __future__ import annotations

import getpass
from contextlib import aclosing
from typing import Annotated

import typer

from federation.cli.completion import complete_place, complete_service
from federation.cli.context import CommandError, Context, complain, current, run
from federation.cli.federation_view import warn
from federation.derive.drain import drain_name
from federation.derive.explain import drain_words
from federation.derive.resolve_asked import percent
from federation.model.drain import Drain, DrainState
from federation.model.resolved import DrainPhase
from federation.operations.drains import (
    DrainRequest,
    Judged,
    judge,
    named,
    not_ours,
    of_an_object,
    optional_service,
    start,
    undo,
)
from federation.operations.refusal import OperationError, Why
from federation.operations.view import read_view
from federation.ports import Store
from federation.wire.etcd import ViewReader
from federation.wire.etcd_keys import Keys

app = typer.Typer()

TargetArgument = Annotated[
    str,
    typer.Argument(help="Region or cluster; a region goes first.", autocompletion=complete_place),
]
ServiceOption = Annotated[
    str | None,
    typer.Option(
        "--service",
        help="Only this service (NAMESPACE/NAME).",
        show_default=False,
        autocompletion=complete_service,
    ),
]


@app.command("drain", epilog="Example: fedctl drain us-east-1 --over 1m --grace 30s --wait")
def drain(
    ctx: typer.Context,
    target: TargetArgument,
    service: ServiceOption = None,
    over: Annotated[str, typer.Option(help="Ramp from all new calls to none.")] = "30s",
    grace: Annotated[
        str, typer.Option(help="Time that open streams have after the ramp to move.")
    ] = "30s",
    expires: Annotated[
        str | None,
        typer.Option(help="End by itself after this time from its start.", show_default="never"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Drain even if nothing healthy would be left.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is drained.")] = False,
) -> None:
    """Move traffic away from a region or cluster."""
    request = DrainRequest(target, service, over, grace, expires, force, getpass.getuser())
    run(_drain(current(ctx), request, dry_run=dry_run, wait=wait))


@app.command("undrain", epilog="Example: fedctl undrain us-east-1")
def undrain(ctx: typer.Context, target: TargetArgument, service: ServiceOption = None) -> None:
    """Take a drain back; the weight returns within seconds."""
    run(_undrain(current(ctx), target, service))


async def _drain(context: Context, request: DrainRequest, *, dry_run: bool, wait: bool) -> None:
    keys = Keys(context.prefix)
    async with context.open_store() as store:
        judged = await judge(store, keys, request)
        asked = judged.drain
        _tell(judged)
        if dry_run:
            typer.echo(f"{named(asked)} would be drained; nothing was changed")
            return
        await start(store, keys, judged)
        typer.echo(f"{named(asked)} is draining over {request.over}")
        if judged.read.leader is None:
            complain("warning: no resolver leads now; the drain starts when one does")
        if wait:
            await _until_drained(store, keys, asked)


def _tell(judged: Judged) -> None:
    """Print what the drain means."""
    warn(judged.read)
    for impact in judged.verdict.impacts:
        if impact.left:
            typer.echo(str(impact))
    for warning in judged.verdict.warnings:
        complain(f"warning: {warning}")


async def _until_drained(store: Store, keys: Keys, asked: Drain) -> None:
    reader = ViewReader(keys)
    last = ""
    async with aclosing(store.mirror(keys.state)) as listings:
        async for listing in listings:
            view = reader.read(listing.revision, listing.entries).view
            if asked.name not in view.drains:
                raise CommandError(f"{named(asked)}: the drain was taken back, or has expired")
            state = view.drain_states.get(asked.name)
            if (words := _progress(state)) != last:
                typer.echo(last := words)
            if state is not None and state.phase is DrainPhase.DRAINED:
                return


def _progress(state: DrainState | None) -> str:
    if state is None:
        return drain_words(state)
    text = f"{drain_words(state)}, {percent(state.remaining_bp)} of the weight left"
    if state.streams_left is not None:
        text += f", {state.streams_left} streams left"
    return text


async def _undrain(context: Context, target: str, service: str | None) -> None:
    keys = Keys(context.prefix)
    wanted = optional_service(service)
    async with context.open_store() as store:
        name = drain_name(target, wanted)
        of_service = f" for {service}" if service else ""
        try:
            undone = await undo(store, keys, name, described=f"{target}{of_service}")
        except OperationError as error:
            if error.why is Why.NOT_FOUND:
                view = (await read_view(store, keys)).view
                if (other := of_an_object(view, target, wanted)) is not None:
                    raise OperationError(not_ours(other) or str(error), Why.REFUSED) from error
            raise
        warn(undone.read)
        typer.echo(f"{named(undone.drain)} is no longer drained; its weight returns")
        if undone.read.leader is None:
            complain("warning: no resolver leads now; the weight returns when one does")
