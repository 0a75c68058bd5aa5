"""``fedctl logs``: the logs of agents, resolvers, gateways and etcd as one story.

Decides: whose logs there are (the lab's files; Pods of the federation's namespace by the API
server), how much is read of each, options and layout.
Leaves to others: reading and ordering lines (``logs_merge``).
Invariants: bounded: of each log the newest ``--tail`` lines; a log that cannot be read is told and
hides no other; times are the writers' own.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.cli.api_servers import KubeconfigOption, named_contexts
from federation.cli.completion import complete_cluster
from federation.cli.context import (
    CommandError,
    Context,
    complain,
    current,
    etcd_of_lab,
    kubeconfig_for,
    lab_state_path,
    run,
)
from federation.cli.credentials import NAMESPACE
from federation.cli.exit_codes import ExitCode
from federation.cli.explain import OutputForm, OutputOption
from federation.cli.logs_merge import (
    Choice,
    Line,
    Source,
    as_document,
    as_text,
    merged,
    read_lines,
)
from federation.cli.progress import steps
from federation.model.duration import parse_duration
from federation.ports import PortError

app = typer.Typer()

TAIL_MAX = 100_000
FOLLOW_EVERY_S = 0.3
CHUNK = 64 * 1024

COMPONENT_LABEL = "app.kubernetes.io/component"
NAME_LABEL = "app.kubernetes.io/name"


class Level(StrEnum):
    """Least level of lines that are shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which logs, and how much of each."""

    components: Sequence[str]
    clusters: Sequence[str]
    tail: int
    contexts: Mapping[str, str | None]
    kubeconfig: Path | None
    namespace: str

    def takes(self, source: Source) -> bool:
        """Whether ``source`` is one of them."""
        return (not self.components or source.component in self.components) and (
            not self.clusters or source.cluster in self.clusters
        )


@app.command("logs", epilog="Example: fedctl logs --component agent --level warning --follow")
def logs(
    ctx: typer.Context,
    component: Annotated[
        list[str] | None,
        typer.Option(help="agent, gateway, resolver, etcd, demo, ...; may be given again."),
    ] = None,
    cluster: Annotated[
        list[str] | None,
        typer.Option(
            help="Of this cluster alone; may be given again.", autocompletion=complete_cluster
        ),
    ] = None,
    level: Annotated[Level, typer.Option(help="Least level.")] = Level.INFO,
    field: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Lines with this field; may be given again."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Not older than this, such as 10m.", show_default=False)
    ] = None,
    tail: Annotated[
        int, typer.Option(min=1, max=TAIL_MAX, help="Newest lines read of each log.")
    ] = 1000,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")
    ] = False,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="[CLUSTER=]CONTEXT",
            help="Read the Pods' logs by this context's API server; may be given again.",
        ),
    ] = None,
    kubeconfig: KubeconfigOption = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the federation's Pods.")] = NAMESPACE,
    output: OutputOption = OutputForm.TABLE,
) -> None:
    """Show the logs of all parts by time."""
    here = current(ctx)
    choice = Choice(
        level=str(level),
        fields=dict(_pair(text) for text in field or ()),
        since_s=time.time() - _ago_s(since) if since else 0.0,
    )
    wanted = Wanted(
        components=component or (),
        clusters=cluster or (),
        tail=tail,
        contexts=named_contexts(context or ()),
        kubeconfig=kubeconfig_for(kubeconfig, here),
        namespace=namespace,
    )
    run(_logs(here, wanted, choice, follow=follow, output=output))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f'"{text}" is not NAME=VALUE', param_hint="--field")
    return name, value


def _ago_s(text: str) -> float:
    try:
        return parse_duration(text) / 1000
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error


async def _logs(
    context: Context, wanted: Wanted, choice: Choice, *, follow: bool, output: OutputForm
) -> ExitCode:
    show = (
        (lambda line: json.dumps(as_document(line), ensure_ascii=False))
        if (output is OutputForm.JSON)
        else as_text
    )
    if wanted.contexts:
        if follow:
            return ExitCode.FAILED if await _follow_pods(wanted, choice, show) else ExitCode.OK
        found, problems = await pods_logs(wanted)
    else:
        files = lab_files(context, wanted)
        if follow:
            await _follow_files(files, wanted, choice, show)
            return ExitCode.OK
        found, problems = file_logs(files, wanted), []
    for line in merged(found, choice):
        typer.echo(show(line))
    for problem in problems:
        complain(f"error: {problem}")
    return ExitCode.FAILED if problems else ExitCode.OK


def lab_files(context: Context, wanted: Wanted) -> dict[Source, Path]:
    """The logs of the running lab. Raises ``CommandError`` when there is none."""
    if context.etcd != (etcd_of_lab(os.environ),):
        raise CommandError(
            "whose logs? Without a lab, name the clusters' API servers: --context CONTEXT (and "
            "--kubeconfig); processes on machines of their own log to standard error",
            ExitCode.USAGE,
        )
    state = lab_state_path(os.environ)
    folder = state.parent / "logs"
    found = {}
    for process in json.loads(state.read_bytes())["processes"]:
        source = Source(process["name"], process["role"], process.get("cluster") or "")
        path = folder / f"{source.name}.log"
        if wanted.takes(source) and path.exists():
            found[source] = path
    if not found:
        raise CommandError("no log of the lab is of these components and clusters")
    return found


def file_logs(files: Mapping[Source, Path], wanted: Wanted) -> list[list[Line]]:
    """The newest lines of each file."""
    return [list(read_lines(source, tail(path, wanted.tail))) for source, path in files.items()]


def tail(path: Path, lines: int) -> list[str]:
    """The last ``lines`` whole lines of a file, read from its end."""
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        found = b""
        while at > 0 and found.count(b"\n") <= lines:
            step = min(CHUNK, at)
            at = file.seek(at - step)
            found = file.read(step) + found
            file.seek(at)
    return found.decode(errors="replace").splitlines()[-lines:]


async def _follow_files(
    files: Mapping[Source, Path], wanted: Wanted, choice: Choice, show: Any
) -> None:
    """What is there, then what is added; a file that begins anew is read from its beginning."""
    at = {source: path.stat().st_size for source, path in files.items()}
    for line in merged(file_logs(files, wanted), choice):
        typer.echo(show(line))
    while True:
        await asyncio.sleep(FOLLOW_EVERY_S)
        added = []
        for source, path in files.items():
            text, at[source] = _added(path, at[source])
            added.append(list(read_lines(source, text, after_s=time.time())))
        for line in merged(added, choice):
            typer.echo(show(line))


def _added(path: Path, at: int) -> tuple[list[str], int]:
    """Whole lines after ``at``, and where they end."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size < at:
                at = 0
            file.seek(at)
            found = file.read()
    except FileNotFoundError:
        return [], 0
    whole = found[: found.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), at + len(whole)


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod's log: that of its first container, which is the program itself."""

    source: Source
    path: str
    container: str


async def _pods(wanted: Wanted, connection: Any, cluster: str) -> list[Pod]:
    listing = await connection.get(f"/api/v1/namespaces/{wanted.namespace}/pods")
    found = []
    for pod in listing.get("items", ()):
        metadata = pod["metadata"]
        name, labels = metadata["name"], metadata.get("labels") or {}
        word = labels.get(COMPONENT_LABEL) or labels.get(NAME_LABEL) or name
        component = next((c for c in ("agent", "gateway", "resolver", "etcd") if c in word), word)
        source = Source(name, component, cluster)
        if wanted.takes(source):
            path = f"/api/v1/namespaces/{wanted.namespace}/pods/{name}/log"
            found.append(Pod(source, path, pod["spec"]["containers"][0]["name"]))
    return found


async def pods_logs(wanted: Wanted) -> tuple[list[list[Line]], list[str]]:
    """The newest lines of each Pod of all contexts, and what could not be read."""
    from federation.adapters.kubernetes import ConnectionSettings, connected

    found: list[list[Line]] = []
    problems: list[str] = []
    with steps(len(wanted.contexts)) as progress:
        for cluster, name in sorted(wanted.contexts.items()):
            progress.step(cluster)
            try:
                async with connected(ConnectionSettings(wanted.kubeconfig, name)) as connection:
                    for pod in await _pods(wanted, connection, cluster):
                        text, problem = await _pod_log(connection, pod, wanted.tail)
                        found.append(list(read_lines(pod.source, text)))
                        problems += [problem] if problem else []
            except PortError as error:
                problems.append(_unread(cluster, error))
    return found, problems


async def _pod_log(connection: Any, pod: Pod, tail: int) -> tuple[list[str], str]:
    """The newest lines of one container; and, where reading ended early, why."""
    text: list[str] = []
    query = [("container", pod.container), ("tailLines", str(tail))]
    try:
        async for line in connection.lines(pod.path, query):
            text.append(line)  # noqa: PERF401 - what was read before an error is kept
    except PortError as error:
        return text, _unread(f"{pod.source.name} in {pod.source.cluster}", error)
    return text, ""


def _unread(whose: str, error: PortError) -> str:
    return f"reading logs of {whose}: {error}"


async def _follow_pods(wanted: Wanted, choice: Choice, show: Any) -> list[str]:
    """Lines as they come, until all logs have ended; the problems met are told at once."""
    from federation.adapters.kubernetes import ConnectionSettings, connected

    problems: list[str] = []

    def tell(whose: str, error: PortError) -> None:
        problems.append(_unread(whose, error))
        complain(f"error: {problems[-1]}")

    async def one(connection: Any, pod: Pod) -> None:
        query = [("container", pod.container), ("tailLines", str(wanted.tail)), ("follow", "true")]
        try:
            async for text in connection.lines(pod.path, query):
                for line in read_lines(pod.source, [text], after_s=time.time()):
                    if choice.takes(line):
                        typer.echo(show(line))
        except PortError as error:
            tell(f"{pod.source.name} in {pod.source.cluster}", error)

    async def of_cluster(cluster: str, name: str | None) -> None:
        try:
            async with connected(ConnectionSettings(wanted.kubeconfig, name)) as connection:
                pods = await _pods(wanted, connection, cluster)
                await asyncio.gather(*(one(connection, pod) for pod in pods))
        except PortError as error:
            tell(cluster, error)

    await asyncio.gather(*(of_cluster(*each) for each in sorted(wanted.contexts.items())))
    return problems
