"""``fedctl status`` and ``fedctl explain``: what is in force, and why.

Decides: their options and layout.
Leaves to others: what is shown (``derive.explain``, ``derive.explain_status``).
Invariants: the JSON forms are the values of ``derive`` in camelCase; a name that nobody knows ends
with exit code 4 and the names that are known.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer

from federation.adapters.clock import SystemClock
from federation.cli.columns import NONE
from federation.cli.completion import complete_place, complete_service
from federation.cli.context import CommandError, Context, current, run
from federation.cli.exit_codes import ExitCode
from federation.cli.federation_view import parse_service, read_view
from federation.cli.output import aligned, as_json
from federation.derive.explain import (
    ExplainedCluster,
    Explanation,
    explain,
    find_region,
    find_service,
)
from federation.derive.explain_status import (
    DrainStatus,
    FederationStatus,
    MemberStatus,
    ServiceStatus,
    summarize,
)
from federation.derive.resolve_asked import percent
from federation.model.base import ClusterId
from federation.model.duration import format_duration
from federation.model.facts import Quarantine
from federation.model.resolved import Reason, Tier
from federation.wire.etcd_keys import Keys

app = typer.Typer()


class OutputForm(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[
    OutputForm, typer.Option("--output", "-o", help="Form of the output: table or json.")
]


@app.command("status", epilog="Example: fedctl status -o json")
def status(ctx: typer.Context, output: OutputOption = OutputForm.TABLE) -> None:
    """Show clusters, services and drains at a glance."""
    run(_status(current(ctx), output))


@app.command("explain", epilog="Example: fedctl explain app/user-service --from us-west-1")
def explain_service(
    ctx: typer.Context,
    service: Annotated[
        str,
        typer.Argument(
            help="NAMESPACE/NAME of a service or an import.", autocompletion=complete_service
        ),
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="Region (or cluster) where the callers stand.",
            autocompletion=complete_place,
        ),
    ],
    output: OutputOption = OutputForm.TABLE,
) -> None:
    """Say where calls of a service go, and why."""
    run(_explain(current(ctx), service, source, output))


async def _status(context: Context, output: OutputForm) -> None:
    async with context.open_store() as store:
        read = await read_view(store, Keys(context.prefix))
    now_ms = int(SystemClock().now() * 1000)
    found = summarize(read.view, leader=read.leader, now_ms=now_ms)
    if output is OutputForm.JSON:
        typer.echo(as_json(found.model_dump(mode="json", by_alias=True)))
    else:
        typer.echo("\n\n".join(_status_parts(found)))


async def _explain(context: Context, service: str, source: str, output: OutputForm) -> None:
    asked = parse_service(service)
    async with context.open_store() as store:
        view = (await read_view(store, Keys(context.prefix))).view
    meant = find_service(view, asked)
    if meant is None:
        known = ", ".join(sorted(map(str, {*view.exports, *view.resolved}))) or "none"
        raise CommandError(
            f"no service or import is named {asked}; known services: {known}", ExitCode.NOT_FOUND
        )
    region = find_region(view, source)
    if region is None:
        known = ", ".join(sorted({member.region for member in view.members.values()})) or "none"
        raise CommandError(
            f"no region or cluster is named {source}; known regions: {known}", ExitCode.NOT_FOUND
        )
    found = explain(view, meant, region)
    if output is OutputForm.JSON:
        typer.echo(as_json(found.model_dump(mode="json", by_alias=True)))
    else:
        typer.echo("\n".join(_explanation_lines(found)))


def _status_parts(found: FederationStatus) -> list[str]:
    leader = "no resolver leads; what is resolved stays in force"
    if found.leader is not None:
        leader = f"{found.leader.resolver} leads (term {found.leader.term})"
    parts = [f"Resolver: {leader}"]
    if not found.members:
        return [*parts, "No cluster has joined yet."]
    heading = ["CLUSTER", "REGION", "STATE", "GATEWAYS", "EXPORTS", "VERSION"]
    parts.append(aligned([heading, *map(_member_cells, found.members)]))
    if found.services:
        heading = ["SERVICE", "READY", "IN FORCE"]
        parts.append(aligned([heading, *map(_service_cells, found.services)]))
    if found.drains:
        heading = ["DRAIN", "SERVICE", "PROGRESS", "LEFT", "STREAMS", "OVER", "GRACE", "AGE", "BY"]
        parts.append(aligned([heading, *map(_drain_cells, found.drains)]))
    parts += [f"{drain.requested_by}: {drain.refusal}" for drain in found.drains if drain.refusal]
    parts += [f"{member.cluster}: {text}" for member in found.members for text in member.degraded]
    parts += [
        _quarantine_text(member.cluster, member.quarantine)
        for member in found.members
        if member.quarantine is not None
    ]
    return parts


def _quarantine_text(cluster: ClusterId, quarantine: Quarantine) -> str:
    return "\n".join(
        (
            f"Quarantined: {cluster} since {quarantine.since}: {quarantine.reason}",
            f"  missing: {', '.join(map(str, quarantine.missing))}",
            f"  if they are meant to be gone: fedctl accept-shrink {cluster}",
        )
    )


def _member_cells(member: MemberStatus) -> list[str]:
    state = "Ready"
    if member.stale:
        age = "" if member.stale_age_s is None else f" for {_age(member.stale_age_s)}"
        state = f"Stale{age}"
    return [
        member.cluster,
        member.region,
        f"{state}, Quarantined" if member.quarantine else state,
        str(member.gateways),
        str(member.exports),
        member.version or NONE,
    ]


def _service_cells(service: ServiceStatus) -> list[str]:
    ready = ", ".join(f"{entry.cluster} {entry.ready}/{entry.total}" for entry in service.clusters)
    divisions = {
        region: ", ".join(f"{cluster} {percent(bp)}" for cluster, bp in weights.items()) or NONE
        for region, weights in service.weights_bp.items()
    }
    if len(set(divisions.values())) == 1:
        in_force = next(iter(divisions.values()))
    else:
        in_force = "; ".join(f"from {region}: {text}" for region, text in divisions.items())
    return [str(service.service), ready or NONE, in_force or NONE]


def _drain_cells(drain: DrainStatus) -> list[str]:
    return [
        drain.target,
        str(drain.service) if drain.service else "all",
        drain.progress,
        NONE if drain.remaining_bp is None else percent(drain.remaining_bp),
        NONE if drain.streams_left is None else str(drain.streams_left),
        format_duration(drain.over_ms),
        format_duration(drain.grace_ms),
        NONE if drain.age_s is None else _age(drain.age_s),
        drain.requested_by or NONE,
    ]


def _explanation_lines(found: Explanation) -> list[str]:
    lines = [f"{found.service} for callers in {found.source}"]
    if found.imports:
        lines.append(f"imported as: {', '.join(found.imports)}")
    lines.append(f"weights:     {found.weights_origin or 'none set; local first'}")
    lines.append(f"failover:    {found.failover_origin or 'none set; by weight or capacity'}")
    if found.resolved_by is not None:
        lines.append(f"resolved by: {found.resolved_by} (term {found.term})")
    if found.clusters:
        heading = ["CLUSTER", "REGION", "READY", "ASKED", "IN FORCE", "THEN"]
        lines += ["", aligned([heading, *map(_cluster_cells, found.clusters)])]
    lines += ["", *_reason_lines(found.clusters, found.reasons)]
    return lines


def _cluster_cells(row: ExplainedCluster) -> list[str]:
    return [
        f"{row.cluster} (stale)" if row.stale else row.cluster,
        row.region,
        f"{row.ready}/{row.total}",
        percent(row.weight_asked_bp),
        percent(row.weight_bp),
        " > ".join(map(_tier_text, row.failover)) or NONE,
    ]


def _tier_text(tier: Tier) -> str:
    if len(tier.members) == 1:
        return tier.members[0].cluster
    return " + ".join(f"{member.cluster} ({member.weight})" for member in tier.members)


def _reason_lines(rows: Iterable[ExplainedCluster], whole: Iterable[Reason]) -> list[str]:
    lines = ["Reasons:"]
    for row in rows:
        lines += [f"  {row.cluster}: {reason.code}: {reason.message}" for reason in row.reasons]
        lines += [
            f"  {row.cluster} > {_tier_text(tier)}: {tier.reason.code}: {tier.reason.message}"
            for tier in row.failover
        ]
    lines += [f"  {reason.code}: {reason.message}" for reason in whole]
    return lines


def _age(seconds: int) -> str:
    return format_duration(seconds * 1000)
