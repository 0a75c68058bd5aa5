"""``fedctl``: the command line of the federation.

Decides: which commands there are, in which order, and the global options.
Leaves to others: what the commands do; each stands in a module of its own, which is imported only
when its command is called, so that ``fedctl --help`` is quick and a broken part breaks its own
command alone.
Invariants: no module of a command is imported to list commands; every command named here exists in
its module under the same name.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from federation.cli.context import DEFAULT_PREFIX, EtcdFiles, fail, make_context
from federation.cli.exit_codes import ExitCode

OBJECTS = "Objects"
TRAFFIC = "Traffic"
LOOKING = "Looking"
PROCESSES = "Processes"


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: the module whose ``app`` has it, its line in the overview, its panel there.

    ``group`` is true where the module's whole ``app`` is the command (``fedctl lab ...``).
    """

    module: str
    summary: str
    panel: str
    group: bool = False


COMMANDS: dict[str, Entry] = {
    "apply": Entry("objects", "Create or change objects from manifests.", OBJECTS),
    "get": Entry("objects", "List objects, or print them.", OBJECTS),
    "describe": Entry("objects", "Show an object with its status in words.", OBJECTS),
    "patch": Entry("objects", "Change fields of an object.", OBJECTS),
    "delete": Entry("objects", "Delete objects.", OBJECTS),
    "status": Entry("explain", "Show clusters, services and drains at a glance.", TRAFFIC),
    "explain": Entry("explain", "Say where calls of a service go, and why.", TRAFFIC),
    "top": Entry("top", "Show where calls go now.", TRAFFIC),
    "drain": Entry("drain", "Move traffic away from a region or cluster.", TRAFFIC),
    "undrain": Entry("drain", "Take a drain back.", TRAFFIC),
    "accept-shrink": Entry(
        "accept_shrink", "Confirm that exports which are missing are meant to be gone.", TRAFFIC
    ),
    "check": Entry("check.command", "Look for what is wrong, and say what to do.", LOOKING),
    "support-bundle": Entry(
        "bundle", "Pack what a helper needs into one file, without secrets.", LOOKING
    ),
    "tap": Entry("tap", "Show live calls of all gateways.", LOOKING),
    "trace": Entry("trace", "Say why a call goes, or went, where.", LOOKING),
    "logs": Entry("logs", "Show the logs of all parts by time.", LOOKING),
    "config": Entry(
        "config", "What gateways have in force, and how they differ.", LOOKING, group=True
    ),
    "lab": Entry("lab.app", "A federation on this machine, with faults.", PROCESSES, group=True),
    "kind": Entry("kind.app", "A federation in two kind clusters.", PROCESSES, group=True),
    "agent": Entry("agent", "Run the agent of a cluster.", PROCESSES),
    "resolver": Entry("resolver", "Run a resolver.", PROCESSES),
    "gateway": Entry("gateway", "Run a gateway.", PROCESSES),
    "console": Entry("console", "Serve a page that shows the federation live.", PROCESSES),
    "standalone": Entry("standalone", "Run one gateway from a folder of manifests.", PROCESSES),
    "cluster": Entry(
        "cluster", "Let clusters join with their credentials, and part.", PROCESSES, group=True
    ),
    "access": Entry("access", "Say who may write which keys of etcd.", PROCESSES, group=True),
    "crds": Entry("crds", "Print the definitions of the federation's kinds.", OBJECTS),
}


class LazyCommand(TyperCommand):
    """A command known by name and summary; its module is imported when it is called."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(
            name, help=entry.summary, short_help=entry.summary, rich_help_panel=entry.panel
        )
        self._entry = entry

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """The context of the real command, which is run in place of this one."""
        return self._load().make_context(info_name, split_short(args), parent=parent, **extra)

    def _load(self) -> Any:
        path = f"federation.cli.{self._entry.module}"
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError as error:
            fail(
                f"`fedctl {self.name}` cannot start: {error}; is the package installed whole?",
                ExitCode.FAILED,
            )
        group: Any = typer.main.get_group(module.app)
        return group if self._entry.group else group.commands[self.name]


_SHORT_WITH_VALUE = re.compile(r"-[A-Za-z]=", re.ASCII)


def split_short(args: list[str]) -> list[str]:
    """``-p=VALUE`` as ``-p VALUE``, which kubectl takes and people copy; nothing after ``--``."""
    options = args[: args.index("--")] if "--" in args else args
    split: list[str] = []
    for arg in options:
        split += [arg[:2], arg[3:]] if _SHORT_WITH_VALUE.match(arg) else [arg]
    return split + args[len(options) :]


class LazyGroup(TyperGroup):
    """The commands of ``COMMANDS``, in their order there."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """All names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> LazyCommand | None:  # noqa: ARG002
        """The command called ``cmd_name``."""
        entry = COMMANDS.get(cmd_name)
        return LazyCommand(cmd_name, entry) if entry is not None else None


app = typer.Typer(
    name="fedctl",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"fedctl {version('grpc-federation')}")
        raise typer.Exit


@app.callback()
def fedctl(
    ctx: typer.Context,
    etcd: Annotated[
        str | None,
        typer.Option(
            envvar="FEDERATION_ETCD",
            help="Addresses of etcd, with commas between. Without it: the running lab's, else "
            "http://127.0.0.1:2379.",
            show_default=False,
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(envvar="FEDERATION_PREFIX", help="Prefix of the federation's keys.")
    ] = DEFAULT_PREFIX,
    etcd_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="FEDERATION_ETCD_CA",
            help="PEM: authorities that sign the certificate of an https:// etcd.",
        ),
    ] = None,
    etcd_cert: Annotated[
        Path | None,
        typer.Option(envvar="FEDERATION_ETCD_CERT", help="PEM: our certificate towards etcd."),
    ] = None,
    etcd_key: Annotated[
        Path | None, typer.Option(envvar="FEDERATION_ETCD_KEY", help="PEM: the key to it.")
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Route gRPC calls to one service name across clusters and regions.

    Example: fedctl apply -f manifests/ && fedctl explain app/user-service --from us-west-1

    Exit codes: 0 done, 1 refused or failed in part, 2 wrong usage, 3 etcd is away, 4 not found, 5
    forbidden by a rule.
    """
    del version
    if (etcd_cert is None) != (etcd_key is None):
        raise typer.BadParameter("--etcd-cert and --etcd-key go together; give both or none")
    ctx.obj = make_context(etcd, prefix, EtcdFiles(etcd_ca, etcd_cert, etcd_key))


def main() -> None:
    """The entry point."""
    app()
