"""``fedctl access``: who may write which keys of etcd.

Decides: the users' names: a cluster's own, ``resolver``, ``operator``, ``console``; they are the
common names of the certificates that those parts show to etcd.
Leaves to others: the rights of each (``wire.etcd_access``), making them (``adapters.etcd``).
Invariants: a command says what it did; granting again changes nothing; nobody locks himself out: an
etcd that asks for certificates is only made by who shows one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from federation.cli.agent import checked_name
from federation.cli.context import CommandError, Context, current, run
from federation.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from federation.adapters.etcd import EtcdAccess
    from federation.wire.etcd_access import Permission

app = typer.Typer(
    name="access",
    no_args_is_help=True,
    help="Say who may write which keys of etcd, by the names in their certificates.\n\n"
    "Example: fedctl access grant us-west-1",
)

RESOLVER, OPERATOR, CONSOLE = "resolver", "operator", "console"
NameArgument = Annotated[
    str, typer.Argument(help="A cluster's name, `resolver`, `operator` or `console`.")
]


@app.command(epilog="Example: fedctl access grant us-west-1")
def grant(
    ctx: typer.Context,
    name: NameArgument,
) -> None:
    """Give a cluster's agent, resolvers, operators or a console the rights that they need alone."""
    run(_grant(current(ctx), checked_name("NAME", name)))


@app.command(epilog="Example: fedctl access revoke us-west-1")
def revoke(
    ctx: typer.Context,
    name: NameArgument,
) -> None:
    """Take all rights back. What was written stays."""
    run(_revoke(current(ctx), checked_name("NAME", name)))


@app.command(epilog="Example: fedctl --etcd-cert root.pem --etcd-key root-key.pem access enable")
def enable(ctx: typer.Context) -> None:
    """Let etcd ask everyone who they are. Grant first, and have a certificate for `root`."""
    run(_enable(current(ctx)))


async def _grant(context: Context, name: str) -> None:
    for permission in await granted(context, name):
        typer.echo(f"{name} may {permission}")


async def granted(context: Context, name: str) -> tuple[Permission, ...]:
    """Give ``name`` its rights; what they are. Raises ``PortError``."""
    from federation.model.base import ClusterId
    from federation.wire.etcd_access import of_cluster, of_console, of_operator, of_resolver
    from federation.wire.etcd_keys import Keys

    keys = Keys(context.prefix)
    permissions = {
        RESOLVER: of_resolver(keys),
        OPERATOR: of_operator(keys),
        CONSOLE: of_console(keys),
    }.get(name)
    wanted = permissions or of_cluster(keys, ClusterId(name))
    async with _access(context) as access:
        await access.grant(name, wanted)
    return wanted


async def revoked(context: Context, name: str) -> None:
    """Take all rights of ``name`` back. Raises ``PortError``."""
    async with _access(context) as access:
        await access.remove(name)


async def _revoke(context: Context, name: str) -> None:
    await revoked(context, name)
    typer.echo(f"{name} may do nothing")


async def _enable(context: Context) -> None:
    if context.tls.certificate is None:
        raise CommandError(
            "enabling would lock you out: etcd then knows everyone by certificate, and you show "
            "none; give one whose common name is root (--etcd-cert, --etcd-key)",
            ExitCode.USAGE,
        )
    async with _access(context) as access:
        await access.enable()
    typer.echo("etcd asks for certificates from now on; `root` may do everything")


@asynccontextmanager
async def _access(context: Context) -> AsyncGenerator[EtcdAccess, None]:
    from federation.adapters.etcd import EtcdAccess

    access = EtcdAccess(context.etcd_settings())
    try:
        yield access
    finally:
        await access.close()
