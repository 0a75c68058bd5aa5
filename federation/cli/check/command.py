"""``fedctl check``: is everything there that a federation needs, and is it well?

Decides: options, layout, exit codes.
Leaves to others: asking (``gather``), judging (``judge``).
Invariants: nothing is changed; what could not be looked at is said, not taken for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from federation.cli.api_servers import ContextOption, KubeconfigOption, contexts_of
from federation.cli.check.evidence import Evidence
from federation.cli.check.finding import Area, Finding, Severity, Unexamined
from federation.cli.check.gather import Asked, gather
from federation.cli.check.judge import judge, unexamined
from federation.cli.context import (
    Context,
    current,
    kubeconfig_for,
    lab_clusters,
    run,
)
from federation.cli.exit_codes import ExitCode
from federation.cli.explain import OutputForm, OutputOption
from federation.cli.gateways import GatewayOption
from federation.cli.output import as_json
from federation.cli.progress import steps

app = typer.Typer()


@app.command(
    "check",
    epilog="Example: fedctl check; fedctl check --only certificates --only reachability -o json; "
    "fedctl check --context west --context east --kubeconfig ~/.kube/config",
)
def check(
    ctx: typer.Context,
    only: Annotated[
        list[Area] | None,
        typer.Option("--only", help="Look at this alone; may be given again. Default: all."),
    ] = None,
    gateway: GatewayOption = None,
    dns: Annotated[
        list[str] | None,
        typer.Option(
            "--dns",
            metavar="CLUSTER=HOST:PORT",
            help="DNS server of a cluster's agent; may be given again. Default: the lab's.",
            show_default=False,
        ),
    ] = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    output: OutputOption = OutputForm.TABLE,
) -> None:
    """Look for what is wrong, or soon will be, and say what to do.

    It changes nothing. Exit codes: 0 all is well (notes may be told), 1 something was found, 2
    wrong usage, 3 etcd is away (what can be looked at without it is).
    """
    here = current(ctx)
    asked = Asked(
        areas=tuple(only or Area),
        gateways=gateway or (),
        dns=_pairs("--dns", dns) if dns else _lab_dns(here),
        kubeconfig=kubeconfig_for(kubeconfig, here),
        contexts=contexts_of(here, context or ()),
    )
    run(_check(here, asked, output))


async def _check(context: Context, asked: Asked, output: OutputForm) -> ExitCode:
    with steps(5) as progress:
        seen = await gather(context, asked, progress)
    findings, left = judge(seen, asked.areas), unexamined(seen, asked.areas)
    if output is OutputForm.JSON:
        typer.echo(as_json(report(findings, left)))
    else:
        typer.echo("\n".join(_lines(findings, left, asked.areas)))
    return _code(seen, findings)


def report(findings: Sequence[Finding], left: Sequence[Unexamined]) -> dict[str, object]:
    """The result as ``-o json`` gives it."""
    return {
        "findings": [finding.model_dump(mode="json", by_alias=True) for finding in findings],
        "unexamined": [each.model_dump(mode="json", by_alias=True) for each in left],
    }


def _code(seen: Evidence, findings: Iterable[Finding]) -> ExitCode:
    if seen.etcd_away:
        return ExitCode.STORE_AWAY
    bad = any(finding.severity is not Severity.NOTE for finding in findings)
    return ExitCode.FAILED if bad else ExitCode.OK


def _lines(
    findings: Sequence[Finding], left: Sequence[Unexamined], areas: Iterable[Area]
) -> Iterable[str]:
    for finding in findings:
        yield f"{finding.severity}: {finding.area}: {finding.subject}: {finding.what}"
        yield f"  why:  {finding.why}"
        yield f"  next: {finding.next}"
    touched = {finding.area for finding in findings} | {each.area for each in left}
    if well := [str(area) for area in areas if area not in touched]:
        yield f"well: {', '.join(well)}"
    for each in left:
        yield f"not looked at: {each.area}: {each.why}"


def _pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        cluster, equals, address = text.partition("=")
        host, _, port = address.rpartition(":")
        if not (cluster and equals and host and port.isdigit()):
            raise typer.BadParameter(f'"{text}" is not CLUSTER=HOST:PORT', param_hint=option)
        found[cluster] = address
    return found


def _lab_dns(context: Context) -> dict[str, str]:
    return {str(cluster["name"]): str(cluster["dns"]) for cluster in lab_clusters(context)}
