"""Files of a folder: which ones are manifests, and when a change of one is over.

Decides: the names taken, and that a file is read only once it has stopped changing.
Leaves to others: what stands in a file (``contents``).
Invariants: a file seen half-written, or missing for a moment (an editor's rename, a checkout), has
no effect; a file that never stops changing is read all the same after ``RESTLESS_SCANS_MAX`` looks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
"""Endings of manifests' names."""

RESTLESS_SCANS_MAX = 10
"""Looks at a changing file before it is read anyhow."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What shows without reading that a file's content may be another."""

    mtime_ns: int
    ctime_ns: int
    size_bytes: int
    inode: int


@dataclass(frozen=True, slots=True)
class Watched:
    """A file over several looks: its stamp when it was read (``None``: not yet) and when seen last
    (``None``: it was not there), and for how many looks the two have differed."""

    read: Stamp | None
    seen: Stamp | None
    restless: int = 0

    def look(self, now: Stamp | None) -> tuple[Watched, bool]:
        """This file after a look that found ``now``, and whether it is to be read (or dropped)."""
        if now == self.read:
            return Watched(now, now), False
        if now == self.seen or self.restless >= RESTLESS_SCANS_MAX:
            return Watched(now, now), True
        return Watched(self.read, now, self.restless + 1), False


def manifest_files(path: Path, *, recursive: bool = False) -> list[Path]:
    """The manifests of a folder in order of their names, or ``path`` itself if it is a file.

    Hidden files and folders are left out. Raises ``OSError``.
    """
    if not path.is_dir():
        path.stat()
        return [path]
    found: list[Path] = []
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if recursive:
                found.extend(manifest_files(entry, recursive=True))
        elif entry.suffix.lower() in SUFFIXES:
            found.append(entry)
    return found


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of the file that ``path`` leads to, or ``None`` when there is none."""
    try:
        status: os.stat_result = path.stat()
    except OSError:
        return None
    return Stamp(status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
