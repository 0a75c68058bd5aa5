"""``fedctl cluster``: a cluster joins with its credentials, and parts.

Decides: their options, the order of steps, when a cluster may be removed, what is said to be left.
Leaves to others: what a member is made of (``credentials``), who signs (``authorities``), rights in
etcd (``wire.etcd_access``), what is written and deleted in the cluster (``adapters.kubernetes``).
Invariants: both can be done again; nothing has a finalizer, so a removal is never held up by a side
that is away: it does the other side and says what is left to do; only what carries a label of ours
is deleted.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.cli.access import granted, revoked
from federation.cli.agent import checked_name
from federation.cli.authorities import open_authorities
from federation.cli.context import CommandError, Context, complain, current, run
from federation.cli.credentials import MANAGED_BY, MANAGER, NAMESPACE, Membership, member_objects
from federation.cli.exit_codes import ExitCode
from federation.cli.federation_view import read_view
from federation.derive import mcs_imports
from federation.derive.departure import carried
from federation.model import infrastructure
from federation.model.base import ClusterId
from federation.model.duration import parse_duration
from federation.model.facts import Departed
from federation.ports import MAX_WRITES, Delete, PortError, Put, Store, StoreUnavailable
from federation.wire.etcd import to_bytes
from federation.wire.etcd_keys import Keys

if TYPE_CHECKING:
    from federation.adapters.kubernetes import Connection

app = typer.Typer(
    name="cluster",
    no_args_is_help=True,
    help="Let clusters join the federation with their credentials, and part from it.\n\n"
    "Example: fedctl cluster add us-west-1 --region us-west-1 --kube-context west",
)

DERIVED = f"{mcs_imports.MANAGED_BY}={mcs_imports.MANAGER}"
GATEWAYS = f"{infrastructure.MANAGED_BY}={infrastructure.MANAGER}"
CREDENTIALS = f"{MANAGED_BY}={MANAGER}"
OURS = (CREDENTIALS, GATEWAYS, DERIVED)
"""What a cluster has of the federation besides its manifests, by label."""

KubeconfigOption = Annotated[
    Path | None,
    typer.Option(envvar="KUBECONFIG", help="Kubeconfig of the cluster. Default: ~/.kube/config."),
]
ContextOption = Annotated[
    str | None, typer.Option("--kube-context", help="Context in it; default: its current one.")
]
NamespaceOption = Annotated[
    str, typer.Option(help="Namespace in the cluster that the federation stands in.")
]
NameArgument = Annotated[str, typer.Argument(help="Name of the cluster in the clusterset.")]


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster by its API server, and the federation's namespace in it."""

    kubeconfig: Path
    context: str | None
    namespace: str

    def command(self, arguments: str) -> str:
        """A command of kubectl that acts there, for people."""
        context = f" --context {self.context}" if self.context else ""
        return f"kubectl --kubeconfig {self.kubeconfig}{context} {arguments}"


@app.command(epilog="Example: fedctl cluster add us-west-1 --region us-west-1 --kube-context west")
def add(
    ctx: typer.Context,
    name: NameArgument,
    region: Annotated[str, typer.Option(help="Failure domain that it stands in.")],
    kubeconfig: KubeconfigOption = None,
    kube_context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
    authority: Annotated[
        Path | None,
        typer.Option(
            envvar="FEDERATION_AUTHORITY",
            help="Folder with the authorities: clusterset/ca.crt and ca.key, etcd/ca.crt and "
            "ca.key; what is missing is made. Default: ~/.config/federation/authority.",
            show_default=False,
        ),
    ] = None,
    agent_etcd: Annotated[
        str | None,
        typer.Option(
            help="Addresses at which the cluster reaches etcd. Default: those of --etcd.",
            show_default=False,
        ),
    ] = None,
    lifetime: Annotated[
        str, typer.Option(help="How long the certificates hold; add again to renew them.")
    ] = "8760h",
) -> None:
    """Issue a cluster's credentials, write them into it, and give it its rights in etcd."""
    checked_name("NAME", name)
    checked_name("--region", region)
    context = current(ctx)
    place = _place(kubeconfig, kube_context, namespace)
    signers, made = open_authorities(authority or default_authority())
    for text in made:
        typer.echo(text)
    member = Membership(
        cluster=name,
        region=region,
        etcd=tuple(part.strip() for part in (agent_etcd or "").split(",") if part.strip())
        or context.etcd,
        etcd_ca=_etcd_ca(context, signers.etcd.certificate_pem),
        prefix=context.prefix,
        namespace=namespace,
        lifetime=_lifetime(lifetime),
    )
    run(_add(context, place, member, member_objects(member, signers)))


@app.command(epilog="Example: fedctl cluster remove us-west-1 --kube-context west")
def remove(
    ctx: typer.Context,
    name: NameArgument,
    kubeconfig: KubeconfigOption = None,
    kube_context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
    force: Annotated[
        bool,
        typer.Option("--force", help="Even if it carries traffic, or nobody can say whether."),
    ] = False,
) -> None:
    """Take a cluster out: its keys and rights in etcd, what the federation put into it."""
    checked_name("NAME", name)
    place = _place(kubeconfig, kube_context, namespace)
    run(_remove(current(ctx), place, ClusterId(name), force=force))


def default_authority() -> Path:
    """Where authorities are kept if nobody says otherwise."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "federation" / "authority"


async def _add(
    context: Context, place: Place, member: Membership, objects: list[dict[str, object]]
) -> None:
    from federation.adapters.kubernetes import apply_objects

    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.namespace}}
    async with _api_server(place) as connection:
        # First what can fail most easily: nothing is granted to a cluster that cannot be reached.
        await apply_objects(connection, [space], manager=MANAGER)
        for right in await granted(context, member.cluster):
            typer.echo(f"etcd: {member.cluster} may {right}")
        for text in await apply_objects(connection, objects, manager=MANAGER):
            typer.echo(f"{place.kubeconfig.name}: wrote {text}")
    if not all(address.startswith("https://") for address in member.etcd):
        complain(
            "warning: etcd is reached without TLS, so that it cannot know who writes; serve it at "
            "https:// and use `fedctl access enable`"
        )
    base = "apply --server-side -k clusters/base"
    typer.echo(
        f"{member.cluster} may join. Next, the kinds and the manifests:\n"
        f"  fedctl crds | {place.command('apply --server-side -f -')}\n"
        f"  {place.command(base)}"
    )


async def _remove(context: Context, place: Place, cluster: ClusterId, *, force: bool) -> ExitCode:
    """Both sides, each as far as it answers; the code says whether something is left to do."""
    left: list[str] = []
    try:
        async with context.open_store() as store:
            known = await _leave_store(context, store, cluster, force=force)
    except StoreUnavailable as error:
        if not force:
            raise
        known = True
        complain(f"etcd is away: {error}")
        left.append(f"when etcd is back: fedctl cluster remove {cluster}")
    try:
        removed = await _leave_cluster(place)
    except PortError as error:
        removed = []
        complain(f"the cluster cannot be reached: {error}")
        for selector in OURS:
            kinds = "configmaps,secrets,services,endpointslices,deployments,serviceaccounts"
            left.append(f"in the cluster: {place.command(f'delete {kinds} -A -l {selector}')}")
    for text in removed:
        typer.echo(f"deleted {text}")
    if not known and not removed and not left:
        raise CommandError(f"nothing of {cluster} is there", ExitCode.NOT_FOUND)
    for text in left:
        typer.echo(f"left to do {text}")
    if not left:
        base = "delete -k clusters/base"
        typer.echo(f"{cluster} is removed. Its manifests, if you want: {place.command(base)}")
    return ExitCode.FAILED if left else ExitCode.OK


async def _leave_store(context: Context, store: Store, cluster: ClusterId, *, force: bool) -> bool:
    """Remove the cluster's keys and rights; whether there was anything."""
    keys = Keys(context.prefix)
    view = (await read_view(store, keys)).view
    services = carried(view, cluster)
    if services and not force:
        raise CommandError(
            f"{cluster} carries traffic of {', '.join(map(str, services))}; drain it first: "
            f"fedctl drain {cluster} --wait (or --force)",
            ExitCode.REFUSED,
        )
    if cluster in view.heartbeats and not force:
        raise CommandError(
            f"the agent of {cluster} still runs and would join again; stop it first: kubectl "
            f"delete deployment federation-agent -n {NAMESPACE} (or --force)",
            ExitCode.REFUSED,
        )
    await revoked(context, cluster)
    typer.echo(f"etcd: {cluster} may do nothing")
    found = [
        entry.key
        for prefix in keys.of_cluster(cluster)
        for entry in (await store.list(prefix)).entries
        if entry.key == prefix or prefix.endswith("/")
    ]
    for start in range(0, len(found), MAX_WRITES):
        await store.commit([Delete(key) for key in found[start : start + MAX_WRITES]])
    if found:
        # Last: until then what it exported is merely missing, and nobody believes that.
        await store.commit([Put(keys.departed(cluster), to_bytes(Departed(cluster=cluster)))])
        typer.echo(f"etcd: removed {len(found)} keys of {cluster}")
    return bool(found)


async def _leave_cluster(place: Place) -> list[str]:
    from federation.adapters.kubernetes import delete_labelled

    async with _api_server(place) as connection:
        return await delete_labelled(connection, OURS)


@asynccontextmanager
async def _api_server(place: Place) -> AsyncIterator[Connection]:
    from federation.adapters.kubernetes import ConnectionSettings, connected

    async with connected(ConnectionSettings(place.kubeconfig, place.context)) as connection:
        yield connection


def _place(kubeconfig: Path | None, context: str | None, namespace: str) -> Place:
    return Place(
        kubeconfig=kubeconfig or Path.home() / ".kube" / "config",
        context=context,
        namespace=checked_name("--namespace", namespace),
    )


def _etcd_ca(context: Context, own: bytes) -> bytes:
    """Who signs etcd's own certificate: as this command was told, else etcd's authority."""
    if context.tls.authority is None:
        return own
    try:
        return context.tls.authority.read_bytes()
    except OSError as error:
        raise typer.BadParameter(
            f"{context.tls.authority}: {error.strerror}", param_hint="--etcd-ca"
        ) from error


def _lifetime(text: str) -> dt.timedelta:
    try:
        found = dt.timedelta(milliseconds=parse_duration(text))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--lifetime") from error
    if found < dt.timedelta(hours=1):
        raise typer.BadParameter("at least 1h", param_hint="--lifetime")
    return found
