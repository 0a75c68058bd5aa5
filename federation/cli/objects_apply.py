"""``fedctl apply``: manifests into the clusters' objects.

Decides: which files are read, which clusters get what, what is printed about each object.
Leaves to others: reading documents (``wire.manifests``), writing objects (``adapters.universal``).
Invariants: one bad object or file stops no other; every refusal is printed with file and line; the
exit code says whether there was one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from federation.adapters.folder import manifest_files
from federation.adapters.universal import ConflictError
from federation.cli.context import CommandError, complain
from federation.cli.exit_codes import ExitCode
from federation.cli.objects_clusters import ClusterObjects
from federation.cli.objects_names import reference
from federation.model.base import ClusterId
from federation.model.objects import ApiObject
from federation.ports import StoreRefused
from federation.wire.manifests import (
    DEFAULT_NAMESPACE,
    Decoded,
    Document,
    decode_all,
    parse_documents,
)


@dataclass(frozen=True, slots=True)
class Manifests:
    """What the command line names: files, folders or `-`; and the namespace given, if any."""

    paths: tuple[str, ...]
    recursive: bool = False
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """Objects read, in order, and how many things went wrong on the way (all printed)."""

    objects: tuple[ApiObject, ...]
    failures: int


def load(manifests: Manifests) -> Loaded:
    """Read all manifests; problems and notices go to stderr."""
    documents: list[Document] = []
    failures = 0
    for path in manifests.paths:
        try:
            for origin, text in _texts(path, recursive=manifests.recursive):
                documents.extend(parse_documents(text, origin=origin))
        except (OSError, UnicodeDecodeError) as error:
            complain(f"error: reading {path}: {_reason(error)}")
            failures += 1
    decoded = decode_all(documents, default_namespace=manifests.namespace or DEFAULT_NAMESPACE)
    _report(decoded)
    kept = [entry for entry in decoded.objects if _in_namespace(entry, manifests, decoded)]
    failures += len(decoded.rejected) + len(decoded.objects) - len(kept)
    if not documents and not failures:
        complain(f"error: no objects in {', '.join(manifests.paths)}")
        failures = 1
    return Loaded(tuple(kept), failures)


async def apply(
    objects: ClusterObjects, manifests: Manifests, *, clusters: Sequence[str]
) -> ExitCode:
    """Bring the clusters' objects to what the manifests say."""
    loaded = load(manifests)
    if not loaded.objects:
        return ExitCode.FAILED if loaded.failures else ExitCode.OK
    failures = loaded.failures
    targets = await objects.to_write(clusters)
    for entry in loaded.objects:
        for cluster in targets:
            failures += not await _apply_one(objects, cluster, entry)
    return ExitCode.FAILED if failures else ExitCode.OK


async def _apply_one(objects: ClusterObjects, cluster: ClusterId, entry: ApiObject) -> bool:
    try:
        applied = await objects.of(cluster).apply(entry)
    except (StoreRefused, ConflictError) as error:
        complain(f"error: {entry.key} ({cluster}): {error}")
        return False
    print(f"{reference(entry.key)} {applied.outcome} ({cluster})")
    return True


def _texts(path: str, *, recursive: bool) -> list[tuple[str, str]]:
    if path == "-":
        return [("stdin", sys.stdin.read())]
    files = manifest_files(Path(path), recursive=recursive)
    if not files:
        raise CommandError(f"no .yaml, .yml or .json files in {path}", ExitCode.USAGE)
    return [(str(file), file.read_text(encoding="utf-8")) for file in files]


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text: {error.reason} at byte {error.start}"
    return error.strerror or str(error)


def _report(decoded: Decoded) -> None:
    for skipped in decoded.skipped:
        complain(f"notice: {skipped.notice}")
    for rejected in decoded.rejected:
        for problem in rejected.problems:
            complain(f"error: {problem}")


def _in_namespace(entry: ApiObject, manifests: Manifests, decoded: Decoded) -> bool:
    given = manifests.namespace
    if given is None or not entry.NAMESPACED or entry.metadata.namespace == given:
        return True
    complain(
        f"error: {decoded.origins[entry.key]}: {entry.key}: metadata.namespace: does not match "
        f"`-n {given}`; leave out one of the two"
    )
    return False
