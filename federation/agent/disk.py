"""The agent's directory: who it is, and the last good state it knew.

Decides: the form of the files. ``instance`` is the agent's identity for the life of the directory;
``lock`` keeps a second process out; ``last-good.json`` holds objects and federation state as JSON
lines: a head, the objects, the store's entries.
Leaves to others: when to save and when to use what was saved (``inputs``).
Invariants: a file is replaced as a whole or not at all; files are readable by their owner only,
since objects include Secrets; an unreadable last good state is reported and is as if there were
none; heartbeats are not saved, because nothing on disk is alive; what has not changed since the
last save is copied from its file, not spelled again.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from federation.model.base import slimmed
from federation.model.objects import ApiObject, ObjectKey, ObjectSnapshot
from federation.ports import Entry, Listing
from federation.wire.manifests import decode_value

FORMAT = 2

_Place = tuple[ApiObject, int, int]
"""An object that was saved, and where its line begins and ends in the file."""


class StateDirError(Exception):
    """The state directory cannot be used; the message says which and why."""


class StateDir:
    """The directory, locked for this process from ``open`` to ``close``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None
        self._saved: dict[ObjectKey, _Place] = {}

    def __repr__(self) -> str:
        return f"StateDir({self._path}, {'locked' if self._lock is not None else 'closed'})"

    @property
    def has_identity(self) -> bool:
        """Whether an agent has run with this directory before."""
        return (self._path / "instance").exists()

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
        path = self._path / "last-good.json"
        before = path.read_bytes() if self._saved and path.exists() else b""
        entries = [entry for entry in listing.entries if not entry.leased]
        head = {
            "format": FORMAT,
            "objectsRevision": objects.revision,
            "objects": len(objects.objects),
            "revision": listing.revision,
            "entries": len(entries),
        }
        lines, saved = [_line(head)], {}
        end = len(lines[0])
        for key, value in objects.objects.items():
            line = _copied(self._saved.get(key), value, before) or _line(_object(value))
            saved[key] = (value, end, end + len(line))
            end += len(line)
            lines.append(line)
        lines += [_line(_entry(entry)) for entry in entries]
        self._saved = {}  # of no file, if it cannot be written
        self._replace(path, b"".join(lines))
        self._saved = saved

    def load(self) -> tuple[ObjectSnapshot, Listing] | None:
        """The last good state; ``None`` if there is none. Raises StateDirError if unreadable."""
        path = self._path / "last-good.json"
        try:
            with path.open("rb") as lines:
                head = json.loads(next(lines))
                if head["format"] != FORMAT:
                    raise StateDirError(f"{path}: format {head['format']} is not known; ignored")
                found = list(_objects(islice(lines, head["objects"]), str(path)))
                entries = tuple(map(_read_entry, lines))
                _check_whole(entries, head["entries"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
            raise StateDirError(f"{path}: cannot be read: {error}; ignored") from error
        snapshot = ObjectSnapshot(
            {value.key: value for value in found}, {}, head["objectsRevision"], synced=True
        )
        return snapshot, Listing(head["revision"], entries)

    def _replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_suffix(".new")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _copied(place: _Place | None, value: ApiObject, before: bytes) -> bytes:
    """The line of ``value`` in the last file; empty if it is not there."""
    if place is None or place[0] is not value:
        return b""
    line = before[place[1] : place[2]]
    return line if line.endswith(b"\n") else b""


def _object(value: ApiObject) -> dict[str, object]:
    return {"order": value.creation_order, "object": value.to_document()}


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.key,
        "value": entry.value.decode(errors="replace"),
        "created": entry.create_revision,
        "modified": entry.mod_revision,
    }


def _read_entry(line: bytes) -> Entry:
    entry = json.loads(line)
    return Entry(entry["key"], entry["value"].encode(), entry["created"], entry["modified"])


def _check_whole(entries: Sequence[Entry], count: int) -> None:
    if len(entries) != count:
        raise ValueError(f"{len(entries)} of {count} entries are there")


def _objects(lines: Iterable[bytes], origin: str) -> Iterator[ApiObject]:
    for line in lines:
        entry = json.loads(line)
        raw, order = entry["object"], entry["order"]
        if not isinstance(raw, dict) or not isinstance(order, int):
            raise TypeError("an object is not one")
        value = decode_value(raw, origin=origin)
        if isinstance(value, ApiObject):
            yield slimmed(value.with_creation_order(order))
