"""``fedctl resolver``: run a resolver until it is stopped.

Decides: its options, and that SIGTERM resigns before the end, so that another leads at once.
Leaves to others: everything a resolver does (``resolver``).
Invariants: an etcd that is away is waited for, not an error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from contextlib import suppress
from typing import Annotated

import typer

from federation.cli.context import Context, current, run

app = typer.Typer()


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
) -> None:
    """Run a resolver; of several one leads and the others wait."""
    identity = name or f"{socket.gethostname()}-{os.getpid()}"
    run(_serve(current(ctx), identity, lease_ttl_s=lease_ttl, return_over_s=return_over))


async def _serve(
    context: Context, identity: str, *, lease_ttl_s: float, return_over_s: float
) -> None:
    from federation.adapters.clock import SystemClock
    from federation.resolver import Resolver, ResolverSettings
    from federation.wire.etcd_keys import Keys
    from gateway.logs import log_to_stderr

    log_to_stderr(logging.INFO)
    async with context.open_store() as store:
        work = asyncio.create_task(
            Resolver(
                store=store,
                clock=SystemClock(),
                keys=Keys(context.prefix),
                settings=ResolverSettings(
                    identity=identity, lease_ttl_s=lease_ttl_s, return_over_s=return_over_s
                ),
            ).run()
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
        with suppress(asyncio.CancelledError):
            await work
