"""``fedctl drain`` and ``fedctl undrain``: move traffic away from a region or cluster, and back.

Decides: their options, the preview, when a drain is refused.
Leaves to others: the judgement (``derive.drain_admission``), the ramp (the leading resolver).
Invariants: a refused drain leaves nothing behind, also when two operators drain at the same moment;
a dry run writes nothing and ends with the exit code of the real thing.
"""

from __future__ import annotations

import getpass
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, assert_never

import typer

from federation.cli.context import CommandError, Context, complain, current, run
from federation.cli.exit_codes import ExitCode
from federation.cli.federation_view import Read, parse_service, read_view
from federation.derive.drain import drain_name
from federation.derive.drain_admission import Admitted, Refused, admit, target_kind
from federation.derive.explain import drain_words
from federation.derive.resolve_asked import percent
from federation.model.base import ServiceName
from federation.model.drain import Drain, DrainState, drain_object_name
from federation.model.duration import parse_duration
from federation.model.resolved import DrainPhase
from federation.model.view import FederationView
from federation.ports import Delete, Put, Store
from federation.wire.etcd import ViewReader, to_bytes
from federation.wire.etcd_keys import Keys

app = typer.Typer()


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator typed."""

    target: str
    service: str | None
    over: str
    grace: str
    expires: str | None
    force: bool

    def drain(self, view: FederationView) -> Drain:
        """The drain asked for. Raises ``CommandError`` if it makes no sense."""
        kind = target_kind(view, self.target)
        if kind is None:
            raise CommandError(
                f"no region or cluster is named {self.target}; known names: {_known(view)}",
                ExitCode.NOT_FOUND,
            )
        service = _service(self.service)
        if service is not None and service not in view.exports:
            raise CommandError(f"no cluster exports {service}", ExitCode.NOT_FOUND)
        try:
            return Drain(
                name=drain_name(self.target, service),
                target_kind=kind,
                target=self.target,
                service=service,
                over_ms=parse_duration(self.over),
                grace_ms=parse_duration(self.grace),
                expires_ms=None if self.expires is None else parse_duration(self.expires),
                forced=self.force,
                requested_by=getpass.getuser(),
            )
        except ValueError as error:
            raise CommandError(f"--over, --grace or --expires: {error}", ExitCode.USAGE) from error


TargetArgument = Annotated[str, typer.Argument(help="Region or cluster; a region goes first.")]
ServiceOption = Annotated[
    str | None,
    typer.Option("--service", help="Only this service (NAMESPACE/NAME).", show_default=False),
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
    request = Request(target, service, over, grace, expires, force)
    run(_drain(current(ctx), request, dry_run=dry_run, wait=wait))


@app.command("undrain", epilog="Example: fedctl undrain us-east-1")
def undrain(ctx: typer.Context, target: TargetArgument, service: ServiceOption = None) -> None:
    """Take a drain back; the weight returns within seconds."""
    run(_undrain(current(ctx), target, service))


async def _drain(context: Context, request: Request, *, dry_run: bool, wait: bool) -> None:
    keys = Keys(context.prefix)
    async with context.open_store() as store:
        read = await read_view(store, keys)
        asked = request.drain(read.view)
        _judge(asked, read.view)
        if dry_run:
            typer.echo(f"{_named(asked)} would be drained; nothing was changed")
            return
        await store.commit([Put(keys.drain(asked.name), to_bytes(asked))])
        await _judge_again(store, keys, asked, before=read)
        typer.echo(f"{_named(asked)} is draining over {request.over}")
        if read.leader is None:
            complain("warning: no resolver leads now; the drain starts when one does")
        if wait:
            await _until_drained(store, keys, asked)


def _judge(asked: Drain, view: FederationView) -> None:
    """Print what the drain means, or end the command if it is refused."""
    verdict = admit(asked, view)
    match verdict:
        case Refused():
            raise CommandError(verdict.reason, ExitCode.REFUSED)
        case Admitted():
            for impact in verdict.impacts:
                if impact.left:
                    typer.echo(str(impact))
            for warning in verdict.warnings:
                complain(f"warning: {warning}")
        case _:
            assert_never(verdict)


async def _judge_again(store: Store, keys: Keys, asked: Drain, *, before: Read) -> None:
    """Take the drain back if another one that came at the same moment makes it inadmissible."""
    verdict = admit(asked, (await read_view(store, keys)).view)
    if isinstance(verdict, Admitted):
        return
    earlier = before.view.drains.get(asked.name)
    key = keys.drain(asked.name)
    undo = Delete(key) if earlier is None else Put(key, to_bytes(earlier))
    await store.commit([undo])
    raise CommandError(f"another drain came first: {verdict.reason}", ExitCode.REFUSED)


async def _until_drained(store: Store, keys: Keys, asked: Drain) -> None:
    reader = ViewReader(keys)
    last = ""
    async with aclosing(store.mirror(keys.state)) as listings:
        async for listing in listings:
            view = reader.read(listing.revision, listing.entries).view
            if asked.name not in view.drains:
                raise CommandError(f"{_named(asked)}: the drain was taken back, or has expired")
            state = view.drain_states.get(asked.name)
            if (words := _progress(state)) != last:
                typer.echo(last := words)
            if state is not None and state.phase is DrainPhase.DRAINED:
                return


def _progress(state: DrainState | None) -> str:
    left = "" if state is None else f", {percent(state.remaining_bp)} of the weight left"
    return f"{drain_words(state)}{left}"


async def _undrain(context: Context, target: str, service: str | None) -> None:
    keys = Keys(context.prefix)
    name = drain_name(target, _service(service))
    async with context.open_store() as store:
        read = await read_view(store, keys)
        if name not in read.view.drains:
            of_service = f" for {service}" if service else ""
            _refuse_objects_drain(read.view, target, _service(service))
            raise CommandError(
                f"{target} is not drained{of_service}; drains: {_drains(read.view)}",
                ExitCode.NOT_FOUND,
            )
        await store.commit([Delete(keys.drain(name))])
        typer.echo(f"{_named(read.view.drains[name])} is no longer drained; its weight returns")
        if read.leader is None:
            complain("warning: no resolver leads now; the weight returns when one does")


def _refuse_objects_drain(view: FederationView, target: str, service: ServiceName | None) -> None:
    """End the command if an object drains ``target``: it would only be asked for again."""
    for drain in view.drains.values():
        if drain.cluster is not None and (drain.target, drain.service) == (target, service):
            name = drain_object_name(drain)
            raise CommandError(
                f"{_named(drain)} is drained by an object: {drain.requested_by}; delete it there: "
                f"kubectl delete drain {name} (or fedctl delete drain {name} --cluster "
                f"{drain.cluster})",
                ExitCode.REFUSED,
            )


def _service(text: str | None) -> ServiceName | None:
    return None if text is None else parse_service(text)


def _named(drain: Drain) -> str:
    return drain.target if drain.service is None else f"{drain.service} in {drain.target}"


def _drains(view: FederationView) -> str:
    return ", ".join(map(_named, view.drains.values())) or "none"


def _known(view: FederationView) -> str:
    names = {*view.members, *(member.region for member in view.members.values())}
    return ", ".join(sorted(names)) or "none"
