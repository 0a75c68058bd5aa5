"""The command that runs one gateway: options to settings, settings to a running shell.

Decides: names and defaults of the options. ``python -m gateway`` and ``fedctl gateway`` are this.
Leaves to others: everything that runs.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from gateway.settings import (
    AgentTls,
    CoreSettings,
    GatewaySettings,
    IdentityFiles,
)

_SERVES = re.compile(r"all|east-west|gateway:[-a-z0-9]+/[-.a-z0-9]+")

EXAMPLE = "--name gw-1 --cluster us-west-1 --agent 127.0.0.1:18000 --state-dir /var/lib/gateway"
"""Options of a complete call, for the help texts."""


def run_gateway(
    name: Annotated[str, typer.Option(help="Name of this gateway, unique in its cluster.")],
    cluster: Annotated[str, typer.Option(help="The member cluster it stands in.")],
    agent: Annotated[
        str,
        typer.Option(
            help="HOST:PORT of the agent's xDS port, or of the Service in front of several agents; "
            "or of each of them, with commas between."
        ),
    ],
    state_dir: Annotated[
        Path, typer.Option(help="Folder for the last good configuration, of this gateway alone.")
    ],
    identity_cert: Annotated[
        Path | None, typer.Option(help="PEM: this gateway's certificate (SPIFFE id in it).")
    ] = None,
    identity_key: Annotated[Path | None, typer.Option(help="PEM: the key to it.")] = None,
    trust_bundle: Annotated[
        Path | None, typer.Option(help="PEM: the clusterset's certificate authorities.")
    ] = None,
    agent_ca: Annotated[
        Path | None,
        typer.Option(help="PEM: CA of the agent's xDS certificate; mutual TLS when given."),
    ] = None,
    address: Annotated[str, typer.Option(help="Address to bind listeners on.")] = "0.0.0.0",  # noqa: S104
    port_offset: Annotated[
        int, typer.Option(min=0, max=65535, help="Added to every listener's port.")
    ] = 0,
    eastwest_address: Annotated[
        str | None,
        typer.Option(help="HOST:PORT at which gateways of other clusters reach this one."),
    ] = None,
    serves: Annotated[
        str,
        typer.Option(
            help="Listeners it opens: `all`, `gateway:NAMESPACE/NAME` (of that Gateway) or "
            "`east-west` (of none)."
        ),
    ] = "all",
    admin: Annotated[str, typer.Option(help="HOST:PORT of the admin endpoint.")] = "127.0.0.1:0",
    region: Annotated[str, typer.Option(help="Its region, for access logs and metrics.")] = "",
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Threads that move traffic; a core each is most.")
    ] = 1,
    drain_grace: Annotated[
        float, typer.Option(min=0, help="Seconds that open streams may go on after SIGTERM.")
    ] = 10.0,
) -> None:
    """Run one gateway until SIGTERM, then drain it."""
    identity = _identity(identity_cert, identity_key, trust_bundle)
    if not agent.strip(" ,"):
        raise typer.BadParameter("name at least one HOST:PORT", param_hint="--agent")
    settings = GatewaySettings(
        name=name,
        cluster=cluster,
        region=region,
        agent=agent,
        state_dir=state_dir,
        address=address,
        port_offset=port_offset,
        eastwest_address=eastwest_address,
        serves=_serves(serves),
        admin=admin,
        identity=identity,
        agent_tls=_agent_tls(agent_ca, identity),
        core=CoreSettings(cluster=cluster, region=region, workers=workers),
        drain_grace_s=drain_grace,
    )
    asyncio.run(_run(settings))


async def _run(settings: GatewaySettings) -> None:
    from gateway.admin import AdminError
    from gateway.agent_feed import AgentFeed
    from gateway.driver import open_core
    from gateway.errors import GatewayError
    from gateway.identity import IdentityError
    from gateway.logs import log_to_stderr
    from gateway.shell import Shell, ShellSettings

    log_to_stderr()
    try:
        shell = Shell(
            ShellSettings(
                name=settings.name,
                cluster=settings.cluster,
                region=settings.region,
                admin=settings.admin,
                identity=settings.identity,
                drain_grace_s=settings.drain_grace_s,
                environment=os.environ,
            ),
            core=open_core(settings.core),
        )
        await shell.run(AgentFeed(settings, shell.runtime, admin=lambda: shell.admin.address))
    except (AdminError, GatewayError, IdentityError) as failure:
        typer.echo(f"gateway {settings.name}: {failure}", err=True)
        raise typer.Exit(1) from failure


def _serves(text: str) -> str:
    if not _SERVES.fullmatch(text):
        raise typer.BadParameter(
            f'"{text}" is none of `all`, `east-west` and `gateway:NAMESPACE/NAME`',
            param_hint="--serves",
        )
    return text


def _identity(
    certificate: Path | None, private_key: Path | None, trust_bundle: Path | None
) -> IdentityFiles | None:
    given = [path for path in (certificate, private_key, trust_bundle) if path is not None]
    if not given:
        return None
    if certificate is None or private_key is None or trust_bundle is None:
        raise typer.BadParameter(
            "--identity-cert, --identity-key and --trust-bundle go together; give all or none"
        )
    return IdentityFiles(certificate, private_key, trust_bundle)


def _agent_tls(ca: Path | None, identity: IdentityFiles | None) -> AgentTls | None:
    if ca is None:
        return None
    if identity is None:
        raise typer.BadParameter("--agent-ca needs --identity-cert, --identity-key, --trust-bundle")
    return AgentTls(ca=ca, certificate=identity.certificate, private_key=identity.private_key)
