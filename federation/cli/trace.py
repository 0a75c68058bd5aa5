"""``fedctl trace``: why did this call go there? A typed call, or one that was recorded.

Decides: how a recorded line becomes a request, what is said of the choice, and what really happened
beside it.
Leaves to others: the choice of a route (``derive.route_trace``), compiling (``derive.compile``, as
agents do), weights and their reasons (the resolver).
Invariants: read only; what the routes say now is told apart from what was recorded: they may have
changed since. A record has no headers of the call, so those that routes look at are given by hand.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli.api_servers import ContextOption, KubeconfigOption, contexts_of, readers
from federation.cli.completion import complete_cluster
from federation.cli.context import CommandError, Context, current, run
from federation.cli.exit_codes import ExitCode
from federation.cli.explain import OutputForm, OutputOption
from federation.cli.federation_view import read_view
from federation.cli.objects_clusters import open_objects
from federation.derive.compile import CompileInputs, Compiler, CompileSettings
from federation.derive.route_trace import Request, Traced, ingress, match_words, table_of, trace
from federation.model.base import ClusterId, ServiceName
from federation.model.http import Redirect
from federation.model.objects import ObjectSnapshot
from federation.model.snapshot import Forward, Refuse, Snapshot
from federation.model.view import FederationView
from federation.wire.etcd_keys import Keys

if TYPE_CHECKING:
    from federation.adapters.kubernetes import KubernetesReader

app = typer.Typer()

READ_S = 30.0
"""How long an API server may take to show all its objects."""
LINE_MAX = 64 * 1024
LINES_MAX = 1_000_000
"""Lines of a log that are looked through for a trace."""

TOLD = (
    *("rule", "destination_cluster", "destination_region", "tier", "endpoint", "tries"),
    *("grpc_status", "http_status", "answered_by", "response_flag", "reason", "duration_us"),
)
"""What of a recorded call is shown beside the choice."""

EAST_WEST = "federation/east-west"
"""The listener of calls that another gateway passed on."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A call to be explained. ``record`` is what was recorded of it, ``None`` for a typed one."""

    cluster: str
    request: Request
    port: int | None = None
    record: Record | None = None


@app.command(
    "trace",
    epilog="Example: fedctl trace --from us-west-1 --host grpc.example.com --method "
    "com.example.api.UserService/GetUser; fedctl tap --count 1 -o json | fedctl trace -",
)
def trace_call(
    ctx: typer.Context,
    recorded: Annotated[
        str | None,
        typer.Argument(
            metavar="[CALL]",
            help="`-` for a line of `fedctl tap -o json` or of an access log on standard input; or "
            "a trace id, looked for in --log. Without it the call is typed.",
        ),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Access log (JSON lines) that has the trace id.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Host that is called.")] = None,
    method: Annotated[str | None, typer.Option(help="package.Service/Method.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Header of it; repeatable.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Cluster whose gateways the call comes to.",
            autocompletion=complete_cluster,
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the listener; default: any.")] = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    output: OutputOption = OutputForm.TABLE,
) -> None:
    """Say which rule takes a call, where it goes and why; and what happened to a recorded one."""
    headers = tuple(_header(text) for text in header or ())
    record = _recorded(recorded, log) if recorded is not None else None
    asked = call_of(record, cluster=source, host=host, method=method, headers=headers, port=port)
    here = current(ctx)
    on_api_servers = readers(here, kubeconfig, contexts_of(here, context or ()))
    run(_trace(here, asked, on_api_servers.get(ClusterId(asked.cluster)), output))


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f'"{text}" is not NAME=VALUE', param_hint="--header")
    return name.lower(), value


def _recorded(call: str, log: Path | None) -> Record:
    try:
        if call == "-":
            return find_record(sys.stdin, "")
        if log is None:
            raise typer.BadParameter("a trace id wants --log FILE", param_hint="CALL")
        with log.open(encoding="utf-8", errors="replace") as lines:
            return find_record(lines, call)
    except CommandError as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(error.code) from error
    except OSError as error:
        raise typer.BadParameter(f"{log}: {error.strerror}", param_hint="--log") from error


def find_record(lines: Iterable[str], trace_id: str) -> Record:
    """The first call among JSON lines, or that of ``trace_id``; where it came in, if that is there.

    Raises ``CommandError``.
    """
    passed_on: Record | None = None
    for _, line in zip(range(LINES_MAX), lines, strict=False):
        try:
            found = json.loads(line[:LINE_MAX])
        except ValueError:
            continue
        if not isinstance(found, dict) or "method" not in found:
            continue
        if trace_id and found.get("trace_id") != trace_id:
            continue
        if found.get("listener") != EAST_WEST:
            return found
        passed_on = passed_on or found
    if passed_on is None:
        what = f"call with trace id {trace_id}" if trace_id else "call (a JSON line with `method`)"
        raise CommandError(
            f"no {what} is there; record one: fedctl tap -o json", ExitCode.NOT_FOUND
        )
    return passed_on


def call_of(
    record: Record | None,
    *,
    cluster: str | None,
    host: str | None,
    method: str | None,
    headers: tuple[tuple[str, str], ...],
    port: int | None,
) -> Call:
    """The call meant: what is typed goes before what is recorded."""
    known = record or {}
    cluster = cluster or known.get("source_cluster")
    host, method = host or known.get("authority"), method or known.get("method")
    if not (cluster and host and method):
        raise typer.BadParameter("name --from, --host and --method, or give a recorded call")
    path = method if method.startswith("/") else f"/{method}"
    return Call(cluster, Request(host=host, path=path, headers=headers), port, record)


async def _trace(
    context: Context, call: Call, on_api_server: KubernetesReader | None, output: OutputForm
) -> None:
    cluster = ClusterId(call.cluster)
    async with context.open_store() as store:
        view = (await read_view(store, Keys(context.prefix))).view
    if cluster not in view.members:
        known = ", ".join(sorted(view.members)) or "none"
        raise CommandError(
            f"no cluster is named {cluster}; known clusters: {known}", ExitCode.NOT_FOUND
        )
    if on_api_server is not None:
        objects = await _objects_on(cluster, on_api_server)
    else:
        async with open_objects(context) as stored:
            objects = await stored.of(cluster).contents()
        if not objects.objects:
            raise CommandError(
                f"no objects of {cluster} are in etcd; if they are on its Kubernetes API server, "
                f"name it: --context {cluster}=CONTEXT",
                ExitCode.NOT_FOUND,
            )
    inputs = CompileInputs(
        cluster=cluster,
        region=view.members[cluster].region,
        objects=objects,
        view=view,
        settings=CompileSettings(),
    )
    told = explained(Compiler().compile(inputs).snapshot, view, call)
    if output is OutputForm.JSON:
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(_lines(told)))


async def _objects_on(cluster: ClusterId, reader: KubernetesReader) -> ObjectSnapshot:
    try:
        async with asyncio.timeout(READ_S), aclosing(reader.snapshots()) as snapshots:
            return await anext(snapshots)
    except TimeoutError as error:
        why = "; ".join(reader.degraded()) or "no answer"
        raise CommandError(
            f"reading the objects of {cluster} on its API server: {why} in {READ_S:g} s"
        ) from error


def explained(snapshot: Snapshot, view: FederationView, call: Call) -> dict[str, Any]:
    """What becomes of ``call``, and what became of it. Raises ``CommandError``."""
    found = [
        trace(table, listener, call.request)
        for listener in ingress(snapshot)
        if (table := table_of(snapshot, listener)) is not None
        and call.port in (None, listener.port)
    ]
    best = min(found, key=lambda it: (it.route is None, it.host is None), default=None)
    if best is None:
        ports = ", ".join(str(entry.port) for entry in ingress(snapshot)) or "none"
        raise CommandError(
            f"{call.cluster} has no such listener; its ports: {ports}", ExitCode.NOT_FOUND
        )
    record = call.record
    return {
        "cluster": call.cluster,
        "host": call.request.host,
        "path": call.request.path,
        "listener": best.listener.name,
        "rule": best.route.rule if best.route else None,
        "considered": [
            {"rule": it.route.rule, "match": match_words(it.route.match), "whyNot": it.why_not}
            for it in best.considered
        ],
        "outcome": _outcome(best),
        "destinations": _destinations(best, view, ClusterId(call.cluster)),
        "recorded": {k: record[k] for k in TOLD if k in record} if record else None,
        "remarks": _remarks(best, call),
    }


def _outcome(best: Traced) -> str:
    if best.host is None:
        return f"nothing takes it: {best.why_host}"
    if best.route is None:
        why = "the rule that fits takes calls of gRPC only" if best.grpc_only else "no rule fits"
        return f"nothing takes it at host {best.host.hostname}: {why}"
    match best.route.action:
        case Refuse(message=message, status=status):
            return f"the gateway answers {status} itself: {message}"
        case Redirect(status=status):
            return f"the gateway redirects it ({status})"
        case Forward():
            return f"{best.route.rule} takes it: its host is {best.host.hostname} ({best.why_host})"


def _destinations(best: Traced, view: FederationView, caller: ClusterId) -> list[dict[str, Any]]:
    if best.route is None or not isinstance(best.route.action, Forward):
        return []
    parts = best.route.action.destinations
    whole = sum(part.weight for part in parts) or 1
    return [
        {
            "upstream": part.upstream,
            "percent": round(100 * part.weight / whole, 2),
            "why": _why(part.upstream, view, caller),
        }
        for part in parts
    ]


def _why(upstream: str, view: FederationView, caller: ClusterId) -> list[str]:
    """The resolver's reasons for the share of an import's target."""
    words = upstream.partition("@")[0].split("/")
    if len(words) < 5:
        return []
    resolved = view.resolved.get(ServiceName(namespace=words[1], name=words[2]))
    source = resolved.source(view.members[caller].region) if resolved else None
    share = next((it for it in source.shares if it.cluster == words[4]), None) if source else None
    if source is None or share is None:
        return []
    tiers = [
        f"then {' + '.join(member.cluster for member in tier.members)}: {tier.reason.message}"
        for tier in share.failover
    ]
    return [*(reason.message for reason in (*share.reasons, *source.reasons)), *tiers]


def _remarks(best: Traced, call: Call) -> list[str]:
    remarks = []
    wanted = {
        match.name for it in best.considered for match in getattr(it.route.match, "headers", ())
    }
    if missing := sorted(wanted - {name for name, _ in call.request.headers}):
        remarks.append(
            f"rules look at headers that were not given here: {', '.join(missing)} (--header)"
        )
    if call.record is None:
        return remarks
    if call.record.get("listener") == EAST_WEST:
        remarks.append(
            "this line is the receiving gateway's: the choice was made before, by a gateway of "
            f"{call.cluster}"
        )
    elif best.route is not None and call.record.get("rule") not in (None, best.route.rule):
        remarks.append(
            f"it was taken by {call.record['rule']} then, and would be by {best.route.rule} now: "
            "routes have changed, or headers were not given here"
        )
    if int(call.record.get("tier") or 0) > 0:
        remarks.append(
            f"it went to tier {call.record['tier']}: what comes before was down, ejected or full"
        )
    return remarks


def _lines(told: Mapping[str, Any]) -> Iterable[str]:
    yield f"{told['path']} to {told['host']}, from {told['cluster']}, at {told['listener']}"
    yield told["outcome"]
    for part in told["destinations"]:
        yield f"  {part['percent']:g} % to {part['upstream']}"
        yield from (f"    {why}" for why in part["why"])
    if told["considered"]:
        yield "looked at, in order:"
        for it in told["considered"]:
            yield f"  {it['rule']} ({it['match']}): {it['whyNot'] or 'takes it'}"
    if told["recorded"]:
        yield "what happened:"
        yield from (f"  {key}: {value}" for key, value in told["recorded"].items())
    yield from (f"note: {remark}" for remark in told["remarks"])
