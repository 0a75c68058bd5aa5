"""A folder of manifests as an ``ObjectSource``, watched by looking at it.

Decides: how often it is looked at, precedence between files (by name, then position; the first of
two objects of one identity is kept), what happens when the folder itself is gone.
Leaves to others: single files (``contents``, ``files``), acting on objects.
Invariants: looking, not notification, since that works on every file system and through every kind
of mount; the last good objects stay when the folder vanishes; at most ``FILES_MAX`` files are read.

A look costs one `stat` a file. Contents are read when a stamp changes, and every
``DIGEST_EVERY_SCANS`` looks regardless, for file systems whose times are coarse.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from federation.adapters.folder.contents import Contents, read_contents
from federation.adapters.folder.files import Watched, manifest_files, stamp_of
from federation.model.objects import ApiObject, ObjectKey, ObjectSnapshot, RejectedObject
from federation.ports import PortError

FILES_MAX = 1000
"""Files read of one folder; more are reported, not read."""

DIGEST_EVERY_SCANS = 50
"""Looks between two comparisons of contents."""


class FolderError(PortError):
    """The folder cannot be read at the start, so there is nothing to serve."""


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """``path`` is a folder (or one file); ``poll_every_s`` the wait between looks, above zero.

    A change is taken up after two to three looks.
    """

    path: Path
    poll_every_s: float = 0.2


@dataclass(frozen=True, slots=True)
class _Folder:
    """All files as of the last look."""

    watched: Mapping[Path, Watched] = field(default_factory=dict)
    contents: Mapping[Path, Contents] = field(default_factory=dict)
    problem: RejectedObject | None = None


class FolderSource:
    """Implements ``ports.ObjectSource`` on a folder."""

    def __init__(self, settings: FolderSettings) -> None:
        self._settings = settings

    def __repr__(self) -> str:
        return f"FolderSource({self._settings.path}, every {self._settings.poll_every_s} s)"

    def accept_loss(self) -> None:
        """Nothing is doubted here."""

    async def snapshots(self) -> AsyncGenerator[ObjectSnapshot, None]:
        """The folder's objects now and after every change. Raises ``FolderError`` at the start."""
        folder = await asyncio.to_thread(_first_look, self._settings.path)
        snapshot = _snapshot(folder, revision=1)
        yield snapshot
        shown: tuple[object, object] = folder.contents, folder.problem
        scans = 0
        while True:
            await asyncio.sleep(self._settings.poll_every_s)
            scans += 1
            folder = await asyncio.to_thread(
                _look, self._settings.path, folder, digests=scans % DIGEST_EVERY_SCANS == 0
            )
            if (folder.contents, folder.problem) == shown:
                continue  # unchanged files keep their contents, which costs no look at objects
            shown = folder.contents, folder.problem
            newer = _snapshot(folder, revision=snapshot.revision + 1)
            if (newer.objects, newer.rejected) != (snapshot.objects, snapshot.rejected):
                snapshot = newer
                yield snapshot


def _first_look(path: Path) -> _Folder:
    try:
        files = manifest_files(path)
    except OSError as error:
        raise FolderError(
            f"reading manifests from {path}: {error.strerror or error}; name a folder with "
            ".yaml, .yml or .json files"
        ) from error
    stamps = {file: stamp_of(file) for file in files[:FILES_MAX]}
    return _Folder(
        watched={file: Watched(stamp, stamp) for file, stamp in stamps.items()},
        contents={file: read_contents(file, Contents()) for file in stamps},
        problem=_too_many(path, len(files)),
    )


def _look(path: Path, folder: _Folder, *, digests: bool) -> _Folder:
    try:
        files = manifest_files(path)
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}; the last good objects stay"
        return _Folder(folder.watched, folder.contents, RejectedObject(str(path), message))
    watched: dict[Path, Watched] = {}
    contents: dict[Path, Contents] = {}
    for file in sorted({*files[:FILES_MAX], *folder.watched}):
        before = folder.watched.get(file, Watched(None, None))
        after, changed = before.look(stamp_of(file))
        if after.read is None and after.seen is None:
            continue
        watched[file] = after
        known = folder.contents.get(file, Contents())
        reads = after.read is not None and (changed or digests)
        contents[file] = read_contents(file, known) if reads else known
    return _Folder(watched, contents, _too_many(path, len(files)))


def _too_many(path: Path, count: int) -> RejectedObject | None:
    if count <= FILES_MAX:
        return None
    message = f"{path}: {count} files, only the first {FILES_MAX} are read; join some of them"
    return RejectedObject(str(path), message)


def _snapshot(folder: _Folder, *, revision: int) -> ObjectSnapshot:
    objects: dict[ObjectKey, ApiObject] = {}
    origins: dict[ObjectKey, str] = {}
    rejected: dict[ObjectKey | str, RejectedObject] = {}
    if folder.problem is not None:
        rejected[folder.problem.origin] = folder.problem
    for _, contents in sorted(folder.contents.items()):
        rejected |= contents.rejected
        for key, entry in contents.objects.items():
            origin = contents.origins[key]
            if key in objects:
                message = f"{origin}: {key}: stands already at {origins[key]}, which is kept"
                rejected[origin] = RejectedObject(origin, message)
                continue
            objects[key] = entry.with_creation_order(len(objects) + 1)
            origins[key] = origin
    return ObjectSnapshot(objects, rejected, revision, synced=True)
