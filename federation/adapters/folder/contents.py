"""What one file of a folder holds: objects, the last good ones of those that broke, problems.

Decides: what stays when a file, or an object in it, is no longer valid.
Leaves to others: reading documents (``wire.manifests``), files among each other (``source``).
Invariants: an object goes only when a readable file does not have it; the generation of an object
grows when, and only when, its content changes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from federation.model.objects import ApiObject, ObjectKey, RejectedObject
from federation.wire.manifest_yaml import TEXT_BYTES_MAX
from federation.wire.manifests import Rejected, decode_all, parse_documents

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Contents:
    """A file as it was last read. ``origins`` says at which line each object stands (or stood)."""

    digest: bytes = b""
    objects: Mapping[ObjectKey, ApiObject] = field(default_factory=dict)
    origins: Mapping[ObjectKey, str] = field(default_factory=dict)
    rejected: Mapping[ObjectKey | str, RejectedObject] = field(default_factory=dict)


def read_contents(path: Path, previous: Contents) -> Contents:
    """The file's contents now, with what is kept of ``previous``."""
    try:
        if path.stat().st_size > TEXT_BYTES_MAX:
            return _unreadable(path, previous, f"larger than {TEXT_BYTES_MAX} bytes")
        data = path.read_bytes()
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _unreadable(path, previous, f"not UTF-8 text: {error.reason} at byte {error.start}")
    except OSError as error:
        return _unreadable(path, previous, error.strerror or str(error))
    digest = hashlib.sha256(data).digest()
    if digest == previous.digest:
        return previous
    return _merged(text, str(path), digest, previous)


def _unreadable(path: Path, previous: Contents, why: str) -> Contents:
    message = f"{path}: cannot be read: {why}; its last good objects stay"
    return replace(previous, digest=b"", rejected={str(path): RejectedObject(str(path), message)})


def _merged(text: str, origin: str, digest: bytes, previous: Contents) -> Contents:
    decoded = decode_all(parse_documents(text, origin=origin))
    for skipped in decoded.skipped:
        _log.info("%s", skipped.notice)
    objects = {entry.key: _with_generation(entry, previous) for entry in decoded.objects}
    origins = dict(decoded.origins)
    for key in _kept(decoded.rejected, previous):
        if key not in objects:
            objects[key] = previous.objects[key]
            origins[key] = previous.origins[key]
    return Contents(
        digest=digest,
        objects=objects,
        origins=origins,
        rejected=dict(_reported(entry, objects) for entry in decoded.rejected),
    )


def _kept(rejected: tuple[Rejected, ...], previous: Contents) -> list[ObjectKey]:
    """Objects of before that stay. A broken document without a key may be any of them."""
    if any(entry.key is None for entry in rejected):
        return list(previous.objects)
    return [entry.key for entry in rejected if entry.key and entry.key in previous.objects]


def _reported(
    entry: Rejected, objects: Mapping[ObjectKey, ApiObject]
) -> tuple[ObjectKey | str, RejectedObject]:
    first = entry.problems[0]
    origin = f"{first.origin}:{first.line}"
    stays = "; its last good version stays" if entry.key in objects else ""
    return entry.key or origin, RejectedObject(origin, f"{entry.message}{stays}")


def _with_generation(entry: ApiObject, previous: Contents) -> ApiObject:
    before = previous.objects.get(entry.key)
    if before is None:
        return entry.with_metadata(generation=1)
    same = entry.with_metadata(generation=before.metadata.generation)
    if same.to_document() == before.to_document():
        return same
    return entry.with_metadata(generation=before.metadata.generation + 1)
