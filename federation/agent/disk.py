"""The agent's directory: who it is, and the last good state it knew.

Decides: the form of the files. ``instance`` is the agent's identity for the life of the directory;
``lock`` keeps a second process out; ``last-good.json`` holds objects and federation state.
Leaves to others: when to save and when to use what was saved (``inputs``).
Invariants: a file is replaced as a whole or not at all; files are readable by their owner only,
since objects include Secrets; an unreadable last good state is reported and is as if there were
none; heartbeats are not saved, because nothing on disk is alive.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from federation.model.objects import ApiObject, ObjectSnapshot
from federation.ports import Entry, Listing
from federation.wire.manifests import decode_value

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = 1


class StateDirError(Exception):
    """The state directory cannot be used; the message says which and why."""


class StateDir:
    """The directory, locked for this process from ``open`` to ``close``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"StateDir({self._path}, {'locked' if self._lock is not None else 'closed'})"

    def open(self, instance: str | None = None) -> str:
        """Create and lock the directory; returns the agent's identity. Raises StateDirError.

        The identity is ``instance`` if that is known, else the one of before, else a fresh one.
        """
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._instance(instance)
        except BlockingIOError as error:
            self.close()
            raise StateDirError(
                f"state directory {self._path} is in use by another agent; "
                "give each agent its own --state-dir"
            ) from error
        except OSError as error:
            self.close()
            raise StateDirError(f"state directory {self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _instance(self, given: str | None) -> str:
        path = self._path / "instance"
        known = path.read_text().strip() if path.exists() else ""
        if known and given in (None, known):
            return known
        fresh = given or uuid.uuid4().hex
        self._replace(path, fresh.encode())
        return fresh

    def save(self, objects: ObjectSnapshot, listing: Listing) -> None:
        """Keep the last good state."""
        document = {
            "format": FORMAT,
            "objectsRevision": objects.revision,
            "objects": [
                {"order": value.creation_order, "object": value.to_document()}
                for value in objects.objects.values()
            ],
            "revision": listing.revision,
            "entries": [
                {
                    "key": entry.key,
                    "value": entry.value.decode(errors="replace"),
                    "created": entry.create_revision,
                    "modified": entry.mod_revision,
                }
                for entry in listing.entries
                if not entry.leased
            ],
        }
        text = json.dumps(document, separators=(",", ":"))
        self._replace(self._path / "last-good.json", text.encode())

    def load(self) -> tuple[ObjectSnapshot, Listing] | None:
        """The last good state; ``None`` if there is none. Raises StateDirError if unreadable."""
        path = self._path / "last-good.json"
        try:
            document = json.loads(path.read_bytes())
            if document["format"] != FORMAT:
                raise StateDirError(f"{path}: format {document['format']} is not known; ignored")
            entries = tuple(
                Entry(entry["key"], entry["value"].encode(), entry["created"], entry["modified"])
                for entry in document["entries"]
            )
            found = list(_objects(document["objects"], str(path)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateDirError(f"{path}: cannot be read: {error}; ignored") from error
        snapshot = ObjectSnapshot(
            {value.key: value for value in found}, {}, document["objectsRevision"], synced=True
        )
        return snapshot, Listing(document["revision"], entries)

    def _replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_suffix(".new")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _objects(stored: Iterable[dict[str, object]], origin: str) -> Iterable[ApiObject]:
    for entry in stored:
        raw, order = entry["object"], entry["order"]
        if not isinstance(raw, dict) or not isinstance(order, int):
            raise TypeError("an object is not one")
        value = decode_value(raw, origin=origin)
        if isinstance(value, ApiObject):
            yield value.with_creation_order(order)
