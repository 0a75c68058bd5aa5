"""The last good configuration on disk, so that a gateway starts without its control plane.

Decides: the file's form (one delta response with the resources in force, sealed by a checksum and
marked with the cluster they are of), that it is replaced as a whole or not at all, and how often
it is written.
Leaves to others: what is in force (``runtime``), when it is used (``shell``).
Invariants: a reader sees an old or a new file, never a part; a file that is damaged or from another
format is reported and not used; only the owner can read it, since it holds certificates' keys.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

FILE_NAME = "last-good.xds"
_MAGIC = b"grpc-federation last-good 1\n"
_DIGEST_BYTES = 32

WRITE_INTERVAL_S = 0.5
"""Least time between two writes: endpoints may change many times a second, and a file that is half
a second old does at a start."""


class LastGoodError(Exception):
    """The file cannot be used; the message says which file and why."""


@dataclass(frozen=True, slots=True)
class LastGood:
    """What the file holds, and when it was written (Unix seconds)."""

    resources: tuple[discovery_pb2.Resource, ...]
    written_at: float


def load(state_dir: Path, *, cluster: str) -> LastGood | None:
    """The stored configuration; ``None`` when there is none. Raises ``LastGoodError``."""
    path = state_dir / FILE_NAME
    try:
        content = path.read_bytes()
        written_at = path.stat().st_mtime
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise LastGoodError(f"cannot read {path}: {failure.strerror}") from failure
    if not content.startswith(_MAGIC):
        raise LastGoodError(f"{path} is not a last-good file of this version; it is not used")
    digest, body = content[len(_MAGIC) :][:_DIGEST_BYTES], content[len(_MAGIC) + _DIGEST_BYTES :]
    if hashlib.sha256(body).digest() != digest:
        raise LastGoodError(f"{path} is damaged (checksum differs); it is not used")
    try:
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(body)
    except DecodeError as failure:
        raise LastGoodError(f"{path} is damaged: {failure}") from failure
    if response.system_version_info != cluster:
        raise LastGoodError(
            f'{path} is of cluster "{response.system_version_info}", and this gateway stands in '
            f'"{cluster}"; it is not used. Give each gateway its own --state-dir'
        )
    return LastGood(tuple(response.resources), written_at)


def save(state_dir: Path, resources: Iterable[discovery_pb2.Resource], *, cluster: str) -> None:
    """Replace the stored configuration. Raises ``LastGoodError``."""
    response = discovery_pb2.DeltaDiscoveryResponse(
        system_version_info=cluster, resources=resources
    )
    body = response.SerializeToString(deterministic=True)
    path = state_dir / FILE_NAME
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One name, so that a writer that was killed leaves one file at most behind.
        new = state_dir / f"{FILE_NAME}.new"
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(_MAGIC + hashlib.sha256(body).digest() + body)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as failure:
        raise LastGoodError(f"cannot write {path}: {failure.strerror}") from failure


class LastGoodWriter:
    """Writes what is in force after it changed; changes that come together are one write."""

    def __init__(
        self,
        state_dir: Path,
        resources: Callable[[], Iterable[discovery_pb2.Resource]],
        *,
        cluster: str,
    ) -> None:
        self._state_dir = state_dir
        self._cluster = cluster
        self._resources = resources
        self._due = asyncio.Event()
        self.error: str | None = None
        """Why the last write failed; ``None`` when it did not."""

    def changed(self) -> None:
        """Ask for a write."""
        self._due.set()

    async def run(self) -> None:
        """Write for ever; a failed write is kept in ``error`` and repeated with the next change."""
        try:
            while True:
                await self._due.wait()
                await self.write()
                await asyncio.sleep(WRITE_INTERVAL_S)
        finally:
            await self.write()

    async def write(self) -> None:
        """Write now if a change is due."""
        if not self._due.is_set():
            return
        self._due.clear()
        resources = list(self._resources())
        writing = asyncio.ensure_future(
            asyncio.to_thread(save, self._state_dir, resources, cluster=self._cluster)
        )
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # a thread cannot be stopped, and must not meet another
            raise
        except LastGoodError as failure:
            self.error = str(failure)
        else:
            self.error = None
