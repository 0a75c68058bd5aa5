"""``fedctl lab``: start, look at, break and stop the lab.

Decides: the commands' words, defaults and exit codes.
Leaves to others: everything they do (``lifecycle``, ``faults``, ``report``, ``view``).
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from federation.cli.exit_codes import ExitCode
from federation.model.duration import parse_duration

if TYPE_CHECKING:
    from federation.cli.lab.plan import LabPlan

app = typer.Typer(
    name="lab",
    no_args_is_help=True,
    help="A federation on this machine: real etcd, resolvers, agents, gateways and demo services, "
    "with faults on demand.\n\nExample: fedctl lab up --detach && fedctl lab kill us-east-1",
)
NameArgument = Annotated[
    str, typer.Argument(help="A region, or a process as `fedctl lab status` names it.")
]
_console = Console(stderr=True, highlight=False, soft_wrap=True)

DEFAULT_REGIONS = "us-west-1,us-east-1"
RegionArgument = Annotated[str, typer.Argument(help="A region of the lab, such as us-east-1.")]


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn what the lab's parts raise into one sentence and an exit code."""
    from federation.cli.lab.processes import LabError

    try:
        yield
    except KeyError as error:
        _console.print(f"error: {error.args[0]}", markup=False)
        raise typer.Exit(ExitCode.NOT_FOUND) from error
    except (LabError, OSError) as error:
        _console.print(f"error: {error}", markup=False)
        raise typer.Exit(ExitCode.FAILED) from error
    except ValueError as error:
        _console.print(f"error: {error}", markup=False)
        raise typer.Exit(ExitCode.USAGE) from error


@app.command()
def up(
    regions: Annotated[str, typer.Option(help="Regions, separated by commas.")] = DEFAULT_REGIONS,
    region_latency: Annotated[
        str, typer.Option(help="Added to every round trip between regions, such as 40ms.")
    ] = "0ms",
    rate: Annotated[
        int, typer.Option(help="Calls a second of each region's own client; 0 starts none.")
    ] = 50,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the lab running and return.")
    ] = False,
    kubernetes: Annotated[
        bool,
        typer.Option(
            "--kubernetes",
            help="Give each region a real Kubernetes API server for kubectl; built once from Go "
            "modules, which takes minutes.",
        ),
    ] = False,
) -> None:
    """Start the lab and show it live; leaving the view stops the lab.

    Example: fedctl lab up --detach --regions us-west-1,us-east-1,eu-west-1 --region-latency 40ms
    """
    from federation.cli.lab.commands import with_processes
    from federation.cli.lab.lifecycle import bring_up, lab_directory, load, take_down
    from federation.cli.lab.plan import lay_out
    from federation.cli.lab.processes import LabError, Processes
    from federation.cli.lab.view import show

    with _plain_errors():
        directory = lab_directory()
        if (directory / "lab.json").exists():
            earlier = load(directory)
            if any(Processes(earlier).is_alive(process.name) for process in earlier.processes):
                raise LabError(
                    f"a lab is up already in {directory}; stop it first (fedctl lab down), or set "
                    "FEDERATION_LAB_DIR to run another beside it"
                )
            take_down(earlier)
        layout = lay_out(
            directory=directory,
            regions=tuple(name.strip() for name in regions.split(",") if name.strip()),
            latency_ms=parse_duration(region_latency),
            calls_per_second=rate,
            programs=_kubernetes_programs() if kubernetes else None,
        )
        plan = with_processes(layout)
        end_like_ctrl_c()
        bring_up(plan, lambda step: _console.print(f"lab: {step}"))
        for cluster in plan.clusters:
            for gateway in cluster.gateways:
                _console.print(
                    f"lab: {gateway.name}: listener port 443 is {gateway.listener(443)} "
                    f"(offset {gateway.port_offset}), admin http://{gateway.admin}"
                )
        _console.print(f"lab: console: http://{plan.console}/")
        _console.print(f"lab: ready; certificate authority: {plan.ca}")
        if kubernetes:
            _say_kubectl(plan)
        if detach:
            apply = "kubectl apply -f FILE" if kubernetes else "fedctl apply -f FILE"
            _console.print(
                f"lab: try `fedctl lab status`, `fedctl lab view`, `{apply}`, `fedctl lab down`"
            )
            return
        try:
            show(plan, leaving="stops the lab")
        finally:
            _console.print("lab: stopping")
            take_down(plan)


def _kubernetes_programs() -> Path:
    """The folder of Kubernetes' own servers, built if need be. Raises ``LabError``."""
    from federation.cli.lab.kubernetes.control_plane import PROGRAMS
    from federation.cli.lab.kubernetes.go_programs import NoProgramsError
    from federation.cli.lab.processes import LabError

    try:
        return PROGRAMS.build(lambda line: _console.print(f"lab: {line}", markup=False))
    except NoProgramsError as error:
        raise LabError(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise LabError(f"building Kubernetes from its modules failed:\n{error.stderr}") from error


def _say_kubectl(plan: LabPlan) -> None:
    """How kubectl reaches the API servers."""
    beside = Path(sys.executable).with_name("kubectl")
    kubectl = "kubectl" if shutil.which("kubectl") or not beside.exists() else str(beside)
    _console.print(f"lab: export KUBECONFIG={plan.kubeconfig}", markup=False)
    for cluster in plan.clusters:
        _console.print(f"lab: {kubectl} --context {cluster.name} get grpcroute -n app")


def end_like_ctrl_c() -> None:
    """Let a closed terminal or a kill end the lab as Ctrl-C does, not leave it behind."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


@app.command()
def down() -> None:
    """Stop the lab and remove what it wrote; nothing of it keeps running.

    Example: fedctl lab down
    """
    from federation.cli.lab.lifecycle import lab_directory, load, take_down
    from federation.cli.lab.processes import LabError

    with _plain_errors():
        try:
            plan = load(lab_directory())
        except LabError:
            _console.print("lab: none is up")
            return
        take_down(plan)
        _console.print("lab: stopped")


@app.command()
def view(
    svg: Annotated[
        Path | None, typer.Option(help="Write one frame as a picture to this file, and return.")
    ] = None,
) -> None:
    """Show the running lab live: calls, errors, latency, weights, drains, ejections.

    Example: fedctl lab view
    """
    from federation.cli.lab.lifecycle import lab_directory, load
    from federation.cli.lab.processes import LabError
    from federation.cli.lab.view import draw, show

    with _plain_errors():
        plan = load(lab_directory())
        if svg is None:
            show(plan, leaving="leaves the view, the lab goes on")
            return
        try:
            draw(plan, path=svg)
        except OSError as error:
            raise LabError(f"writing the picture to {svg}: {error.strerror or error}") from error
        _console.print(f"lab: drawn to {svg}")


@app.command()
def status(
    output: Annotated[
        str, typer.Option("-o", "--output", help="`json` for scripts, else a table.")
    ] = "table",
) -> None:
    """Print the lab's processes, addresses and pids.

    Example: fedctl lab status -o json | jq -r '.clusters[0].gateways[0].listeners.grpc'
    """
    from federation.cli.lab.lifecycle import lab_directory, load
    from federation.cli.lab.report import status as report
    from federation.cli.lab.report import table

    with _plain_errors():
        found = report(load(lab_directory()))
        if output == "json":
            typer.echo(json.dumps(found, indent=2))
        elif output == "table":
            typer.echo(table(found))
        else:
            raise ValueError(f'-o takes json or table, got "{output}"')


@app.command()
def kill(name: NameArgument) -> None:
    """SIGKILL everything in a region (agent, gateways, demo services, client), or one process.

    Example: fedctl lab kill us-east-1
    """
    from federation.cli.lab import faults
    from federation.cli.lab.lifecycle import lab_directory, load

    with _plain_errors():
        killed = faults.kill(load(lab_directory()), name)
        back = f"start it again: fedctl lab restore {name}"
        if killed:
            _console.print(f"lab: killed {', '.join(killed)}; {back}")
        else:
            _console.print(f"lab: nothing of {name} was running; {back}")


@app.command()
def restore(name: NameArgument) -> None:
    """Start again what was killed of a region, or one process, on the same ports.

    Example: fedctl lab restore us-east-1
    """
    from federation.cli.lab import faults
    from federation.cli.lab.lifecycle import lab_directory, load

    with _plain_errors():
        if started := faults.restore(load(lab_directory()), name):
            _console.print(f"lab: {', '.join(started)} {'are' if started[1:] else 'is'} back")
        else:
            _console.print(f"lab: {name} was running already; nothing was started")


@app.command()
def partition(region: RegionArgument) -> None:
    """Black-hole traffic between REGION and the others and etcd: bytes vanish, nothing is refused.

    Example: fedctl lab partition us-east-1
    """
    from federation.cli.lab import faults
    from federation.cli.lab.lifecycle import lab_directory, load

    with _plain_errors():
        faults.partition(load(lab_directory()), region)
        _console.print(f"lab: {region} is cut off; connect it again: fedctl lab heal")


@app.command()
def heal(
    region: Annotated[
        str | None, typer.Argument(help="The region to connect again; all of them if left out.")
    ] = None,
) -> None:
    """End a partition.

    Example: fedctl lab heal
    """
    from federation.cli.lab import faults
    from federation.cli.lab.lifecycle import lab_directory, load

    with _plain_errors():
        faults.heal(load(lab_directory()), region)
        _console.print(f"lab: {region or 'every region'} is connected")


@app.command("kill-etcd")
def kill_etcd() -> None:
    """SIGKILL etcd; its data stay on disk.

    Example: fedctl lab kill-etcd
    """
    from federation.cli.lab import faults
    from federation.cli.lab.lifecycle import lab_directory, load

    with _plain_errors():
        faults.kill_etcd(load(lab_directory()))
        _console.print("lab: etcd is gone; start it again: fedctl lab start-etcd")


@app.command("start-etcd")
def start_etcd() -> None:
    """Start etcd again on its old data.

    Example: fedctl lab start-etcd
    """
    from federation.cli.lab import faults
    from federation.cli.lab.lifecycle import lab_directory, load

    with _plain_errors():
        faults.revive_etcd(load(lab_directory()))
        _console.print("lab: etcd is back")


@app.command()
def call(
    method: Annotated[str, typer.Argument(help="PACKAGE.SERVICE/METHOD, unary.")] = (
        "com.example.api.UserService/GetUser"
    ),
    source: Annotated[
        str | None, typer.Option("--from", help="Region to call from; the first if left out.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("-H", "--header", help="NAME:VALUE (may be repeated).")
    ] = None,
    host: Annotated[str, typer.Option(help="Host name called.")] = "grpc.example.com",
    count: Annotated[
        int, typer.Option("-c", "--count", min=1, max=10_000, help="How many calls, one by one.")
    ] = 20,
) -> None:
    """Call a demo service through a region's gateways and count who answered.

    Example: fedctl lab call com.example.api.UserService/GetUser -H x-canary:true
    """
    from federation.cli.lab.call import call as run_calls
    from federation.cli.lab.call import parse_header
    from federation.cli.lab.lifecycle import lab_directory, load

    with _plain_errors():
        metadata = [parse_header(text) for text in header or ()]
        plan = load(lab_directory())
        region = source or plan.clusters[0].region
        answers = run_calls(plan, region, method, authority=host, metadata=metadata, count=count)
        for who, times in answers:
            typer.echo(f"{times:5}  {who}")
