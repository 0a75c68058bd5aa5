"""``fedctl kind``: start, show and remove the federation in two kind clusters.

Decides: the commands' words, defaults and exit codes.
Leaves to others: everything they do (``clusters``, ``install``, ``demo``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from federation.cli.context import fail
from federation.cli.exit_codes import ExitCode

app = typer.Typer(
    name="kind",
    no_args_is_help=True,
    help="The federation in two kind clusters on this machine, one for each region. Wants Docker, "
    "kind and kubectl.\n\nExample: fedctl kind up && fedctl kind demo",
)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn what the parts raise into one sentence and an exit code."""
    from federation.cli.kind.tools import ToolError

    try:
        yield
    except ToolError as error:
        fail(str(error), ExitCode.FAILED)


def _step(line: str) -> None:
    typer.echo(line, err=True)


@app.command(epilog="Example: fedctl kind up")
def up() -> None:
    """Make both clusters, build and load the image, and install everything."""
    from federation.cli.kind import clusters, install

    with _plain_errors():
        site = clusters.create(_step)
        install.install(site, crds=clusters.released_urls(), say=_step)
        for line in install.how_to_go_on(site):
            typer.echo(line)


@app.command(epilog="Example: fedctl kind down")
def down() -> None:
    """Remove both clusters and what was written for them."""
    from federation.cli.kind import clusters

    with _plain_errors():
        clusters.delete()


@app.command(epilog="Example: fedctl kind demo --rate 100")
def demo(
    rate: Annotated[int, typer.Option(min=1, max=2000, help="Calls a second in each region.")] = 50,
) -> None:
    """Apply one name over both regions, drain one with calls running, and say what happened."""
    from federation.cli.kind import clusters
    from federation.cli.kind.demo import show

    with _plain_errors():
        lost = asyncio.run(show(clusters.there(), rate=rate, say=typer.echo))
    if lost:
        raise typer.Exit(ExitCode.FAILED)


@app.command(epilog="Example: fedctl kind serve --cluster us-west-1 --service app/users")
def serve(
    cluster: Annotated[str, typer.Option(help="The cluster that answers say they come from.")],
    service: Annotated[str, typer.Option(help="NAMESPACE/NAME of the Service it stands behind.")],
    address: Annotated[str, typer.Option(help="HOST:PORT to serve on.")] = "127.0.0.1:9090",
) -> None:
    """Run one server of the demo (com.example.api.UserService), until SIGTERM."""
    from federation.cli.lab.demo import serve as serve_demo
    from federation.cli.lab.plan import DemoEndpoint

    namespace, slash, name = service.partition("/")
    if not slash:
        raise typer.BadParameter(f'"{service}" is not NAMESPACE/NAME', param_hint="--service")
    endpoint = DemoEndpoint(namespace=namespace, service=name, address=address)
    asyncio.run(serve_demo(endpoint, cluster=cluster))
