"""The native core as a typed Python object.

Decides nothing: turns values into the core's messages and its replies into values. The core starts
after any fork, and whoever starts it stops it. Calls block for as long as the core works
(milliseconds), without the interpreter lock; an event loop calls ``apply`` and ``stop`` through a
thread.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from gateway import _native
from gateway.errors import GatewayError
from gateway.settings import CoreSettings

_CRATES: Final = ("binding", "core", "h1", "h2", "proxy")

PACKAGE: Final = Path(__file__).parent
"""In development the Rust sources stand beside this package; a wheel brings none."""

JsonObject = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ListenerState:
    """A listener after an update: where it listens, and why it does not (or not as configured)."""

    name: str
    address: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Applied:
    """The core's answer to an update that it took."""

    version: str
    listeners: tuple[ListenerState, ...]
    pause_us: int
    """The longest time that a worker moved no traffic for it."""


def open_core(settings: CoreSettings, *, sources: Path = PACKAGE) -> _native.Core:
    """A core with these settings, not started.

    Raises ``GatewayError`` when the Rust sources below ``sources`` are not those it was built from.
    """
    if is_stale(sources):
        raise GatewayError(
            f"the native core was not built from the sources in {sources}: run `make build`"
        )
    return _native.Core(json.dumps(dataclasses.asdict(settings)).encode())


class Driver:
    """Owns one native core from its start to its stop; a context manager."""

    def __init__(self, settings: JsonObject | None = None) -> None:
        self._core = _native.Core(json.dumps(dict(settings or {})).encode())
        self._version = ""

    def __repr__(self) -> str:
        return f"<Driver version={self._version!r}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the worker threads."""
        self._core.start()

    def apply(self, update: JsonObject) -> Applied:
        """Take an update; raise ``SnapshotRejected`` with the field's path when it is wrong."""
        return self.apply_encoded(json.dumps(update).encode())

    def apply_encoded(self, update: bytes) -> Applied:
        """Take an update that is encoded already."""
        reply = json.loads(self._core.apply(update))
        self._version = reply["version"]
        listeners = tuple(
            ListenerState(name=it["name"], address=it["address"], error=it["error"])
            for it in reply["listeners"]
        )
        return Applied(reply["version"], listeners, reply["pause_us"])

    def set_health(self, cluster: str, address: str, *, healthy: bool) -> None:
        """Tell the result of an active health check; unknown endpoints are ignored."""
        self._core.set_health(cluster, address, healthy)

    def take_limit_demand(self, keys_max: int = 1024) -> Sequence[dict[str, Any]]:
        """Take what was asked of global rate limits, and what counts still."""
        demand: list[dict[str, Any]] = json.loads(self._core.take_limit_demand(keys_max, True))
        return demand

    def set_limit_shares(self, shares: Sequence[JsonObject]) -> None:
        """Set this gateway's shares of global rate limits."""
        self._core.set_limit_shares(json.dumps(shares).encode())

    def set_known_methods(self, methods: Sequence[JsonObject]) -> None:
        """Name methods beside those that routes name, in place of those named before."""
        self._core.set_known_methods(json.dumps(methods).encode())

    def take_telemetry(self, max_bytes: int = 1 << 20) -> list[tuple[str, str, int, bytes]]:
        """Take spans and log records: (collector, ``traces`` or ``logs``, items, message)."""
        return self._core.take_telemetry(max_bytes)

    def reopen_logs(self) -> None:
        """Open files of access logs again, after they were moved away."""
        self._core.reopen_logs()

    def set_tap(self, tap_filter: JsonObject | None) -> None:
        """Show live calls that fit, or no more; raise ``ValueError`` for a filter that is none."""
        self._core.set_tap(None if tap_filter is None else json.dumps(tap_filter).encode())

    def take_tap(self, limit: int = 1024) -> Sequence[dict[str, Any]]:
        """Take tapped calls, oldest first, at most ``limit``."""
        return [json.loads(line) for line in self._core.take_tap(limit).splitlines()]

    def drain(self, grace_ms: int) -> None:
        """Ask clients to leave; returns at once, see `drained`."""
        self._core.drain(grace_ms)

    @property
    def drained(self) -> bool:
        """A drain was asked for and no client connection is left."""
        return self._core.drained()

    def stop(self) -> None:
        """End what is left and join the threads."""
        self._core.stop()

    def stats(self) -> dict[str, object]:
        """All counters and the state of every endpoint."""
        stats: dict[str, object] = json.loads(self._core.stats())
        return stats

    def loads(self) -> dict[str, Any]:
        """The tries by where they go."""
        loads: dict[str, Any] = json.loads(self._core.loads())
        return loads

    def events(self, limit: int = 1024) -> Sequence[dict[str, object]]:
        """Take what happened since the last call, oldest first, at most ``limit``."""
        events: list[dict[str, object]] = json.loads(self._core.events(limit))
        return events


def source_digest(root: Path) -> str:
    """Digest of the Rust sources under ``root`` (this package), as the core's build computes it."""
    digest = hashlib.sha256()
    for crate in _CRATES:
        files = [root / crate / "Cargo.toml", *(root / crate / "src").rglob("*.rs")]
        for path in sorted(files, key=lambda path: path.relative_to(root).as_posix()):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def is_stale(root: Path) -> bool:
    """Whether the sources beside this package are not those that the core was built from.

    An installed wheel has no sources, and nothing to compare.
    """
    return (root / "binding" / "src").is_dir() and source_digest(root) != _native.SOURCE_DIGEST
