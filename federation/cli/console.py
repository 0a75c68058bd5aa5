"""``fedctl console``: a page that shows the federation live.

Decides: the options, which of them go together, on which addresses it is safe to listen.
Leaves to others: what it serves (``console``).
Invariants: nothing but loopback is listened on without TLS and without asking who is there, unless
the operator says that a proxy sees to TLS; the process ends in order when it is told to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.cli.agent import checked_address
from federation.cli.api_servers import ContextOption, KubeconfigOption, contexts_of, readers
from federation.cli.context import CommandError, Context, current, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from federation.adapters.kubernetes import KubernetesReader
    from federation.console import ConsoleSettings
    from federation.model.base import ClusterId

app = typer.Typer()

DEFAULT_LISTEN = "127.0.0.1:15100"


@app.command(
    "console", epilog="Example: fedctl console --listen 127.0.0.1:15100 --write  (then open it)"
)
def console(
    ctx: typer.Context,
    listen: Annotated[str, typer.Option(help="HOST:PORT of the page.")] = DEFAULT_LISTEN,
    write: Annotated[
        bool, typer.Option("--write", help="On loopback: let everybody there start drains.")
    ] = False,
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name that browsers may ask for. May be given again."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM: the page's certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM: the key to it.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="PEM: authorities of clients' certificates.")
    ] = None,
    behind_tls_proxy: Annotated[
        bool,
        typer.Option("--behind-tls-proxy", help="A proxy in front serves TLS; listen without."),
    ] = False,
    oidc_issuer: Annotated[
        str | None, typer.Option(help="Believe bearer tokens of this OIDC issuer.")
    ] = None,
    oidc_audience: Annotated[
        str | None, typer.Option(help="What tokens must name as their audience.")
    ] = None,
    oidc_jwks: Annotated[
        str | None,
        typer.Option(
            help="File or URL of the issuer's keys.", show_default="as the issuer's discovery says"
        ),
    ] = None,
    oidc_groups_claim: Annotated[
        str, typer.Option(help="The claim with the holder's groups.")
    ] = "groups",
    oidc_user_claim: Annotated[
        str, typer.Option(help="The claim that people are shown as.")
    ] = "email",
    reader: Annotated[
        list[str] | None,
        typer.Option(
            help="Who may look: *, user:NAME, sub:SUBJECT, group:NAME, cn:NAME or "
            "spiffe://...; again for more."
        ),
    ] = None,
    writer: Annotated[
        list[str] | None, typer.Option(help="Who may also start and stop drains, as --reader.")
    ] = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    health: Annotated[
        str | None,
        typer.Option(help="HOST:PORT to serve /healthz and /readyz on; without it: nowhere."),
    ] = None,
) -> None:
    """Serve a page that shows the federation live: traffic, services, drains, decisions."""
    from federation.console import Access, ConsoleSettings, Oidc, TlsFiles

    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together; give both or none")
    if (oidc_issuer is None) != (oidc_audience is None):
        raise typer.BadParameter("--oidc-issuer and --oidc-audience go together; give both or none")
    oidc = None
    if oidc_issuer is not None and oidc_audience is not None:
        oidc = Oidc(
            issuer=oidc_issuer,
            audience=oidc_audience,
            keys=oidc_jwks,
            groups_claim=oidc_groups_claim,
            user_claim=oidc_user_claim,
        )
    access = Access(
        oidc=oidc,
        certificates=client_ca is not None,
        readers=_grants("--reader", reader),
        writers=_grants("--writer", writer),
        open_write=write,
    )
    tls = TlsFiles(tls_cert, tls_key, client_ca) if tls_cert and tls_key else None
    address, _, port = checked_address("--listen", listen).rpartition(":")
    settings = ConsoleSettings(
        host=address.strip("[]"),
        port=int(port),
        version=_version(),
        hosts=tuple(host or ()),
        secure=tls is not None or behind_tls_proxy,
        access=access,
        tls=tls,
    )
    _check(settings, client_ca=client_ca, behind_tls_proxy=behind_tls_proxy)
    at = checked_address("--health", health) if health is not None else None
    here = current(ctx)
    on_api_servers = readers(here, kubeconfig, contexts_of(here, context or ()))
    run(_serve(here, settings, on_api_servers, health=at))


def _grants(option: str, texts: list[str] | None) -> tuple[str, ...]:
    from federation.console.rights import checked_grant

    try:
        return tuple(checked_grant(text) for text in texts or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _check(settings: ConsoleSettings, *, client_ca: Path | None, behind_tls_proxy: bool) -> None:
    """End the command if what is asked for would be open to people it is not for."""
    access = settings.access
    outside = not is_loopback(settings.host)
    if client_ca is not None and settings.tls is None:
        raise typer.BadParameter(
            "clients' certificates need the console's own TLS: give --tls-cert and --tls-key",
            param_hint="--client-ca",
        )
    if outside and not settings.secure:
        raise typer.BadParameter(
            f"{settings.host} is not loopback, and a page without TLS can be read and changed on "
            "its way: give --tls-cert and --tls-key, or --behind-tls-proxy if a proxy serves TLS",
            param_hint="--listen",
        )
    if (outside or behind_tls_proxy) and access.open:
        raise typer.BadParameter(
            "who reaches this address need not be on this machine, and nobody is asked who he is: "
            "give --oidc-issuer and --oidc-audience, or --client-ca",
            param_hint="--listen",
        )
    if access.open:
        if access.readers or access.writers:
            raise typer.BadParameter(
                "grants need people who say who they are: give --oidc-issuer or --client-ca",
                param_hint="--reader, --writer",
            )
        return
    if access.open_write:
        raise typer.BadParameter(
            "it is for a console that asks nobody who he is; name people with --writer",
            param_hint="--write",
        )
    if not (access.readers or access.writers):
        raise typer.BadParameter(
            'nobody could read: name people, for example --reader "group:platform", or --reader '
            '"*" for everybody who signs in',
            param_hint="--reader",
        )
    if _is_any(settings.host) and not settings.hosts:
        raise typer.BadParameter(
            f"{settings.host} is every address; say the name that browsers ask for",
            param_hint="--host",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _version() -> str:
    from importlib.metadata import version

    return version("grpc-federation")


async def _serve(
    context: Context,
    settings: ConsoleSettings,
    on_api_servers: Mapping[ClusterId, KubernetesReader],
    *,
    health: str | None,
) -> None:
    from federation.adapters.clock import SystemClock
    from federation.adapters.universal import UniversalSource
    from federation.cli.health import Readiness, health_served
    from federation.console import Console, ConsoleError, ObjectsFrom
    from federation.wire.etcd_keys import Keys
    from gateway.logs import log_to_stderr

    log_to_stderr(logging.INFO)
    readiness = Readiness()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with context.open_store() as store, health_served(health, readiness):
        keys = Keys(context.prefix)

        def objects_of(cluster: ClusterId) -> ObjectsFrom:
            if (reader := on_api_servers.get(cluster)) is not None:
                return ObjectsFrom(reader, reader.degraded)
            return ObjectsFrom(UniversalSource(store, keys, cluster))

        served = Console(
            store=store,
            clock=SystemClock(),
            keys=keys,
            settings=settings,
            sources=objects_of,
            history=store,
        )
        readiness.why_not = lambda: served.why_not_ready
        try:
            async with served.serving():
                scheme = "https" if settings.tls is not None else "http"
                shown = f"[{settings.host}]" if ":" in settings.host else settings.host
                typer.echo(f"console: {scheme}://{shown}:{settings.port}/")
                await stopping.wait()
        except ConsoleError as error:
            raise CommandError(str(error)) from error
