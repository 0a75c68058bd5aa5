"""What every command needs: where the store is, how to open it, how to end with an error.

Decides: which etcd is meant (option, environment, running lab, localhost), the wording and exit
code of failures that all commands share.
Leaves to others: the store (``adapters.etcd``), what commands do.
Invariants: nothing heavy is imported before a store is opened, so that ``--help`` stays quick; an
error is one sentence on stderr, never a traceback.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from federation.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from federation.adapters.etcd import EtcdSettings, EtcdStore
    from federation.operations.refusal import OperationError

DEFAULT_ETCD = "http://127.0.0.1:2379"
"""Where etcd listens when nobody says otherwise."""

DEFAULT_PREFIX = "/federation/v1/"
"""Keys of the federation stand below this."""

IF_LAB_AWAY = "This is the lab's; start it: fedctl lab start-etcd"
IF_GUESS_AWAY = (
    "No lab is up and no etcd is named; start a lab (fedctl lab up), or name etcd with --etcd or "
    "FEDERATION_ETCD"
)


class CommandError(Exception):
    """A command cannot go on: the sentence for people and the code for scripts."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class EtcdFiles:
    """PEM files for TLS to etcd, as the global options name them."""

    authority: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """Where commands act. ``etcd`` holds one or more addresses, ``prefix`` ends with a slash.

    ``if_away`` says what to do when nothing answers there, which depends on who named the place.
    ``kubeconfig`` leads to the running lab's API servers, where its clusters' objects are on such.
    """

    etcd: tuple[str, ...]
    prefix: str
    tls: EtcdFiles = EtcdFiles()
    if_away: str = "Is it up, and is --etcd (FEDERATION_ETCD) right?"
    kubeconfig: Path | None = None

    def etcd_settings(self) -> EtcdSettings:
        """How etcd is reached. Raises ``PortError`` for addresses and files that do not fit."""
        from federation.adapters.etcd import EtcdSettings, EtcdTls

        tls = EtcdTls(self.tls.authority, self.tls.certificate, self.tls.private_key)
        return EtcdSettings(endpoints=self.etcd, tls=tls)

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[EtcdStore]:
        """The store, closed on leaving; it dials on first use.

        ``StoreUnavailable`` leaves with the note ``if_away``.
        """
        from federation.adapters.etcd import EtcdStore
        from federation.ports import StoreUnavailable

        store = EtcdStore(self.etcd_settings())
        try:
            yield store
        except StoreUnavailable as error:
            error.add_note(self.if_away)
            raise
        finally:
            await store.close()


def make_context(etcd: str | None, prefix: str, tls: EtcdFiles | None = None) -> Context:
    """The context for the global options; ``etcd`` is addresses with commas between, if given."""
    lab = None if etcd else etcd_of_lab(os.environ)
    kubeconfig = kubeconfig_of_lab(os.environ) if lab else None
    chosen = etcd or lab or DEFAULT_ETCD
    addresses = tuple(part.strip() for part in chosen.split(",") if part.strip())
    whole_prefix = f"/{prefix.strip('/')}/"
    files = tls or EtcdFiles()
    if etcd:
        return Context(addresses, whole_prefix, files)
    if_away = IF_LAB_AWAY if lab else IF_GUESS_AWAY
    return Context(addresses, whole_prefix, files, if_away, kubeconfig)


def current(ctx: typer.Context) -> Context:
    """The context that ``main`` put in place for all commands."""
    found = ctx.find_object(Context)
    return found if found is not None else make_context(None, DEFAULT_PREFIX)


def lab_state_path(environ: Mapping[str, str]) -> Path:
    """Where a running lab writes its state file."""
    if explicit := environ.get("FEDERATION_LAB_DIR"):
        return Path(explicit) / "lab.json"
    state = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "federation" / "lab" / "lab.json"


def etcd_of_lab(environ: Mapping[str, str]) -> str | None:
    """The address of the lab's etcd, or ``None`` when no lab has written a readable state file."""
    address = _lab_state(environ).get("etcd")
    return address if isinstance(address, str) and address else None


def kubeconfig_of_lab(environ: Mapping[str, str]) -> Path | None:
    """The kubeconfig of a lab whose clusters have API servers, else ``None``."""
    on_kubernetes = _lab_state(environ).get("programs")
    return lab_state_path(environ).with_name("kubeconfig") if on_kubernetes else None


def kubeconfig_for(named: Path | None, context: Context) -> Path:
    """Where contexts are looked up: as ``named``, the lab's, ``KUBECONFIG``'s first, kubectl's."""
    first = os.environ.get("KUBECONFIG", "").partition(os.pathsep)[0]
    usual = Path(first) if first else Path.home() / ".kube" / "config"
    return named or context.kubeconfig or usual


def lab_clusters(context: Context) -> list[dict[str, Any]]:
    """The clusters of the lab that ``context`` is of, as its records say; none where it is of no
    lab. Raises ``CommandError``."""
    if context.etcd != (etcd_of_lab(os.environ),):
        return []
    clusters = _lab_state(os.environ).get("clusters")
    if not isinstance(clusters, list):
        raise CommandError("reading the lab's records: they name no clusters; start it anew")
    return clusters


def _lab_state(environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        state = json.loads(lab_state_path(environ).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def run(work: Coroutine[Any, Any, ExitCode | None]) -> None:
    """Run a command's coroutine; its failures end the process as this module's rules say."""
    from federation.operations.refusal import OperationError
    from federation.ports import PortError, StoreUnavailable

    try:
        code = asyncio.run(work)
    except CommandError as error:
        fail(str(error), error.code)
    except OperationError as error:
        fail(str(error), _code_of(error))
    except StoreUnavailable as error:
        todo = "".join(f". {note}" for note in getattr(error, "__notes__", ()))
        fail(f"etcd is away: {error}; traffic goes on as it is{todo}", ExitCode.STORE_AWAY)
    except PortError as error:
        fail(str(error), ExitCode.FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if code:
        raise typer.Exit(code)


def _code_of(error: OperationError) -> ExitCode:
    from federation.operations.refusal import Why

    match error.why:
        case Why.USAGE:
            return ExitCode.USAGE
        case Why.NOT_FOUND:
            return ExitCode.NOT_FOUND
        case Why.REFUSED:
            return ExitCode.REFUSED


def fail(message: str, code: ExitCode) -> NoReturn:
    """End the command with ``error: MESSAGE`` on stderr."""
    complain(f"error: {message}")
    raise typer.Exit(code)


def complain(message: str) -> None:
    """Print a line to stderr as it is."""
    sys.stderr.write(f"{message}\n")
