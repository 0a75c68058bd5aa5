"""``fedctl resolver``: run a resolver until it is stopped.

Decides: its options, that SIGTERM resigns before the end, so that another leads at once, and that a
resolver is ready once etcd has answered it, be it leader or not.
Leaves to others: everything a resolver does (``resolver``).
Invariants: an etcd that is away is waited for, not an error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from federation.cli.agent import checked_address
from federation.cli.context import Context, current, run
from federation.cli.release import release
from federation.cli.telemetry import OTLP_OPTION, otlp_settings

if TYPE_CHECKING:
    from federation.derive.drain_admission import DrainRight
    from federation.ports import Store
    from federation.resolver import ResolverSettings
    from federation.telemetry.otlp import OtlpSettings
    from federation.wire.etcd_keys import Keys

app = typer.Typer()

_NAME = r"(\*|[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)"
_RIGHT = re.compile(f"{_NAME}={_NAME}")

ASK_AGAIN_S_MAX = 5.0
"""Longest wait before etcd is asked again at the start."""


@app.command("resolver", epilog="Example: fedctl resolver --name resolver-1")
def resolver(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Option(help="Shown as the leader; unique.", show_default="HOST-PID"),
    ] = None,
    lease_ttl: Annotated[
        float, typer.Option(min=1.0, max=60.0, help="Seconds that a dead leader keeps the lead.")
    ] = 3.0,
    return_over: Annotated[
        float,
        typer.Option(
            min=0.0, max=600.0, help="Seconds in which the part of a cluster that was down returns."
        ),
    ] = 5.0,
    health: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT to serve /healthz, /readyz and /metrics on; without it: nowhere."
        ),
    ] = None,
    may_drain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLUSTER=TARGET",
            help="Let Drain objects of CLUSTER drain TARGET, a cluster or region besides its own; "
            "`*` is any. May be given again.",
            show_default=False,
        ),
    ] = None,
    otlp: Annotated[str | None, OTLP_OPTION] = None,
) -> None:
    """Run a resolver; of several one leads and the others wait."""
    from federation.resolver import ResolverSettings

    settings = ResolverSettings(
        identity=name or f"{socket.gethostname()}-{os.getpid()}",
        lease_ttl_s=lease_ttl,
        return_over_s=return_over,
        drain_rights=_drain_rights(may_drain or []),
        release=release(),
    )
    at = checked_address("--health", health) if health is not None else None
    run(_serve(current(ctx), settings, health=at, otlp=otlp_settings(otlp)))


def _drain_rights(texts: list[str]) -> frozenset[DrainRight]:
    from federation.derive.drain_admission import DrainRight

    rights = set()
    for text in texts:
        found = _RIGHT.fullmatch(text)
        if found is None:
            raise typer.BadParameter(
                f'"{text}" is not CLUSTER=TARGET (names, or * for any)', param_hint="--may-drain"
            )
        rights.add(DrainRight(cluster=found[1], target=found[2]))
    return frozenset(rights)


async def _serve(
    context: Context,
    settings: ResolverSettings,
    *,
    health: str | None,
    otlp: OtlpSettings | None,
) -> None:
    from federation.adapters.clock import SystemClock
    from federation.aio import cancel_and_wait
    from federation.cli.health import Readiness, health_served
    from federation.resolver import OBSERVED, Resolver
    from federation.telemetry import catalogue, show
    from federation.telemetry.otlp import sending
    from federation.wire.etcd_keys import Keys
    from gateway.logs import log_to_stderr

    log_to_stderr(logging.INFO)
    keys, readiness = Keys(context.prefix), Readiness()
    telling = sending(
        otlp,
        readiness.registry,
        service="federation-resolver",
        instance=settings.identity,
        attributes={},
    )
    async with (
        context.open_store() as store,
        health_served(health, readiness),
        telling as tracer,
    ):
        answered = asyncio.Event()
        asking = asyncio.create_task(_ask(store, keys, answered))
        readiness.why_not = lambda: "" if answered.is_set() else "etcd has not answered yet"
        resolver = Resolver(
            store=store, clock=SystemClock(), keys=keys, settings=settings, tracer=tracer
        )
        show(readiness.registry, catalogue.RESOLVER, observed=OBSERVED, read=resolver.observe)
        work = asyncio.create_task(resolver.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
        try:
            with suppress(asyncio.CancelledError):
                await work
        finally:
            await cancel_and_wait(asking)


async def _ask(store: Store, keys: Keys, answered: asyncio.Event) -> None:
    """Set ``answered`` once etcd has answered with what we may read."""
    from federation.aio import Backoff, retrying
    from federation.ports import PortError

    await retrying(
        lambda: store.get(f"{keys.resolver_election}/"),
        on=PortError,
        backoff=Backoff(max_s=ASK_AGAIN_S_MAX),
    )
    answered.set()
