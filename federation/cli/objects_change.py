"""``fedctl patch`` and ``fedctl delete``.

Decides: what a patch makes of an object, and that it is written to all clusters or to none.
Leaves to others: JSON Patch (RFC 6902, the ``jsonpatch`` package), checking the outcome
(``wire.manifests``), writing (``adapters.universal``).
Invariants: a patched object is checked like an applied one; identity is never patched; what is
deleted is named on the command line or in a manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import jsonpatch
import jsonpointer
import yaml

from federation.adapters.universal import ApplyOutcome
from federation.cli.context import CommandError, complain
from federation.cli.exit_codes import ExitCode
from federation.cli.objects_clusters import ClusterObjects
from federation.cli.objects_get import Query, fetch, not_found, report_failures
from federation.cli.objects_names import reference
from federation.model.base import ClusterId
from federation.model.objects import ApiObject, ObjectKey
from federation.wire.manifests import Rejected, Skipped, decode_value


class PatchType(StrEnum):
    """Values of ``--type``."""

    JSON = "json"
    MERGE = "merge"


def parse_patch(text: str, kind: PatchType) -> Any:
    """The patch in ``text`` (JSON or YAML), of the right shape for its type."""
    try:
        patch = yaml.safe_load(text)
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise CommandError(f"the patch is not valid JSON or YAML: {why}", ExitCode.USAGE) from error
    if kind is PatchType.JSON and not _is_operations(patch):
        raise CommandError(
            'a json patch is a list, such as [{"op":"replace","path":"/spec/...","value":1}]; '
            "for a map of fields use --type=merge",
            ExitCode.USAGE,
        )
    if kind is PatchType.MERGE and not isinstance(patch, dict):
        raise CommandError(
            "a merge patch is a map of fields; for a list of operations use --type=json",
            ExitCode.USAGE,
        )
    return patch


def _is_operations(patch: Any) -> bool:
    return isinstance(patch, list) and all(isinstance(operation, dict) for operation in patch)


def patched(entry: ApiObject, patch: Any, kind: PatchType) -> ApiObject:
    """``entry`` after the patch. Raises ``CommandError`` with the reason."""
    before = entry.to_document()
    after = _operated(entry, before, patch) if kind is PatchType.JSON else merge(before, patch)
    if not isinstance(after, dict):
        raise CommandError(f"{entry.key}: the patch leaves no object")
    outcome = decode_value(json.loads(json.dumps(after)), origin="patch")
    if isinstance(outcome, Rejected):
        raise CommandError(outcome.message)
    if isinstance(outcome, Skipped) or outcome.key != entry.key:
        raise CommandError(f"{entry.key}: a patch cannot change kind, namespace or name")
    return outcome


def _operated(entry: ApiObject, document: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """``document`` after the operations; one that does not apply is named with its path."""
    for operation in operations:
        try:
            document = jsonpatch.apply_patch(document, [operation])
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError) as error:
            words = f"{operation.get('op', 'no op')} {operation.get('path', '(no path)')}"
            raise CommandError(
                f"{entry.key}: the patch does not apply: {words}: {error}; "
                "`fedctl get KIND NAME -o yaml` shows what is there"
            ) from error
    return document


def merge(value: Any, patch: Any) -> Any:
    """JSON Merge Patch (RFC 7396): maps merge, ``null`` removes, all else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(value) if isinstance(value, Mapping) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), part)
    return merged


async def patch(
    objects: ClusterObjects,
    query: Query,
    change: Any,
    kind: PatchType,
) -> ExitCode:
    """Patch the object named wherever it is; in all those clusters, or in none."""
    answer = await fetch(objects, query)
    if answer.unreadable:
        return report_failures(answer)
    changed = [(found, patched(found.object, change, kind)) for found in answer.found]
    for found, after in changed:
        applied = await objects.of(ClusterId(found.cluster)).apply(
            after, resource_version=found.object.metadata.resource_version
        )
        no_change = " (no change)" if applied.outcome is ApplyOutcome.UNCHANGED else ""
        print(f"{reference(after.key)} patched{no_change} ({found.cluster})")
    return report_failures(answer)


async def delete(
    objects: ClusterObjects,
    keys: Sequence[ObjectKey],
    *,
    clusters: Sequence[str],
    ignore_not_found: bool,
) -> ExitCode:
    """Delete the objects wherever they are."""
    code = ExitCode.OK
    targets = await objects.to_read(clusters)
    for key in keys:
        gone = [cluster for cluster in targets if await objects.of(cluster).delete(key)]
        for cluster in gone:
            print(f"{reference(key)} deleted ({cluster})")
        if not gone and not ignore_not_found:
            complain(not_found(key, targets))
            code = ExitCode.NOT_FOUND
    return code
