"""``fedctl config``: what gateways have in force, and how two of them differ.

Decides: options, layout, exit codes.
Leaves to others: comparing (``config_diff``), finding and asking gateways (``gateways``).
Invariants: secrets are never shown: gateways give their names and versions alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from federation.cli.config_diff import KINDS, Difference, differences, pending
from federation.cli.context import CommandError, Context, current, run
from federation.cli.exit_codes import ExitCode
from federation.cli.explain import OutputForm, OutputOption
from federation.cli.gateways import (
    GatewayAt,
    GatewayAway,
    GatewayOption,
    admin_client,
    find_gateways,
)
from federation.cli.output import aligned

app = typer.Typer(
    name="config",
    no_args_is_help=True,
    help="What gateways have in force, and how they differ.\n\n"
    "Example: fedctl config diff gateway-us-west-1-1 gateway-us-west-1-2",
)

SHOWN_MAX = 160
"""Characters of a value shown in a table; JSON has all."""


class ResourceKind(StrEnum):
    """``KINDS``, for ``--kind``."""

    LISTENERS = "listeners"
    ROUTE_TABLES = "route_tables"
    CLUSTERS = "clusters"
    ENDPOINTS = "endpoints"
    SECRETS = "secrets"


@app.command("dump", epilog="Example: fedctl config dump gateway-us-west-1-1 --kind route_tables")
def dump(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[GATEWAY]", help="Which; not needed where there is one."),
    ] = None,
    kind: Annotated[
        list[ResourceKind] | None, typer.Option("--kind", help="Of this kind alone; repeatable.")
    ] = None,
    resource: Annotated[
        str | None, typer.Option("--name", help="Resources whose name has this in it.")
    ] = None,
    gateway: GatewayOption = None,
    output: OutputOption = OutputForm.TABLE,
) -> None:
    """Show what a gateway has in force, refused and waiting."""
    kinds = [str(each) for each in kind or KINDS]
    run(_dump(current(ctx), name, kinds, resource or "", gateway or (), output))


@app.command("diff", epilog="Example: fedctl config diff gateway-us-west-1-1 gateway-us-west-1-2")
def diff(
    ctx: typer.Context,
    left: Annotated[str, typer.Argument(metavar="GATEWAY", help="A gateway.")],
    right: Annotated[
        str | None,
        typer.Argument(
            metavar="[OTHER]",
            help="Another one; without it: what the gateway's agent has sent it last.",
        ),
    ] = None,
    gateway: GatewayOption = None,
    output: OutputOption = OutputForm.TABLE,
) -> None:
    """Compare two gateways, or a gateway with what its agent has sent it. Exit code 1: they differ.

    Where gateways bind, and what each makes for itself, is not compared; secrets by version.
    """
    run(_diff(current(ctx), left, right, gateway or (), output))


async def _dump(
    context: Context,
    name: str | None,
    kinds: Sequence[str],
    part: str,
    named: Sequence[str],
    output: OutputForm,
) -> None:
    at = chosen(await find_gateways(context, named), name)
    found = await fetch(at)
    shown = {
        kind: [entry for entry in found.get(kind, ()) if part in entry["name"]] for kind in kinds
    }
    if output is OutputForm.JSON:
        others = {key: found[key] for key in ("version", "refused", "waiting", "pending")}
        typer.echo(json.dumps({**others, **shown}, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{at}: version {found['version']}")
    for kind, entries in shown.items():
        typer.echo(f"\n{kind} ({len(entries)})")
        for entry in entries:
            typer.echo(f"  {entry['name']} (version {entry['version'] or 'its own'})")
            if entry["body"] != "redacted":
                typer.echo("\n".join(f"    {line}" for line in _lines(entry["body"])))
    for resource, why in found["refused"].items():
        typer.echo(f"refused: {resource}: {why}")
    for resource, needs in found["waiting"].items():
        typer.echo(f"waiting: {resource}: for {', '.join(needs)}")


def _lines(body: dict[str, Any]) -> list[str]:
    """A line for each field that says something."""
    return [
        f"{key}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in sorted(body.items())
        if value not in (None, [], {}, "") and key != "name"
    ]


async def _diff(
    context: Context, left: str, right: str | None, named: Sequence[str], output: OutputForm
) -> ExitCode:
    known = await find_gateways(context, named)
    one = chosen(known, left)
    if right is None:
        found, titles = pending(await fetch(one)), (f"{one} in force", "sent by its agent")
    else:
        other = chosen(known, right)
        found = differences(await fetch(one), await fetch(other))
        titles = (str(one), str(other))
    if output is OutputForm.JSON:
        rows = [
            {"kind": d.kind, "name": d.name, "path": d.path, "left": d.left, "right": d.right}
            for d in found
        ]
        result = {"left": titles[0], "right": titles[1], "differences": rows}
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    elif found:
        heading = ["KIND", "NAME", "WHERE", titles[0], titles[1]]
        typer.echo(aligned([heading, *map(_cells, found)]))
    else:
        typer.echo(f"{titles[0]} and {titles[1]}: the same")
    return ExitCode.FAILED if found else ExitCode.OK


def _cells(found: Difference) -> list[str]:
    return [found.kind, found.name, found.path or "-", _cut(found.left), _cut(found.right)]


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def chosen(known: Sequence[GatewayAt], name: str | None) -> GatewayAt:
    """The gateway called ``name`` (or ``CLUSTER/NAME``). Raises ``CommandError``."""
    found = [at for at in known if name in (None, at.name, str(at))]
    if len(found) == 1:
        return found[0]
    names = ", ".join(map(str, known)) or "none; name them with --gateway [NAME=]HOST:PORT"
    if not found:
        raise CommandError(f'no gateway "{name}"; known gateways: {names}', ExitCode.NOT_FOUND)
    raise CommandError(f"which gateway? Known gateways: {names}", ExitCode.USAGE)


async def fetch(at: GatewayAt) -> dict[str, Any]:
    """What ``at`` has in force. Raises ``CommandError``."""
    async with admin_client() as client:
        try:
            found = await client.get(at, "/config_dump")
        except GatewayAway as away:
            raise CommandError(
                f"reading the configuration of {at}: {away}; is it up, and is its admin endpoint "
                "reachable from here (--gateway)?"
            ) from away
    return dict(found)
