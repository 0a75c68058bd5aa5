"""Stored objects and statuses as values.

Decides: what of an object the store knows better than its text: age, uid, resource_version.
Leaves to others: what a valid object is (``wire.manifests``).
Invariants: reading never raises for a bad value.
"""

from __future__ import annotations

import json

from federation.model.objects import ApiObject
from federation.ports import Entry
from federation.wire.manifests import Rejected, Skipped, decode_value


def object_of(entry: Entry) -> ApiObject | Skipped | Rejected | str:
    """The object at ``entry``; a string says why its value is no JSON object."""
    try:
        raw = json.loads(entry.value)
    except ValueError as error:
        return f"not valid JSON: {error}"
    if not isinstance(raw, dict):
        return f"expected a JSON object, got {type(raw).__name__}"
    decoded = decode_value(raw, origin=entry.key)
    if isinstance(decoded, Rejected | Skipped):
        return decoded
    placed = decoded.with_metadata(
        uid=f"{entry.create_revision:08x}", resource_version=str(entry.mod_revision)
    )
    return placed.with_creation_order(entry.create_revision)


def object_bytes(value: ApiObject) -> bytes:
    """The stored form: without what ``object_of`` adds."""
    document = value.with_metadata(uid=None, resource_version=None).to_document()
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
