"""Statuses as Kubernetes spells them, and what of a stored status is ours.

Decides: the JSON form of a status, and that entries of other controllers are kept where one list
holds those of several (a route's ``parents``, a policy's ``ancestors``).
Leaves to others: conditions (``derive``), requests (``adapters``).
Invariants: entries of others keep their order and come first, ours follow in their own order, so
that equal input gives an equal list; nothing of another controller is ever changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from federation.model.status import DrainProgress, ObjectStatus
from federation.wire.timestamps import timestamp

SHARED_LISTS = ("parents", "ancestors")
"""Lists with entries of several controllers, told apart by ``controllerName`` (Gateway API)."""


def status_document(status: ObjectStatus) -> dict[str, Any]:
    """The JSON form, without what is empty."""
    written = {
        name: value
        for name, value in status.model_dump(mode="json", by_alias=True, exclude_none=True).items()
        if value != []
    }
    if "clusters" in written:
        written["clusters"] = [{"cluster": name} for name in written["clusters"]]
    if status.drain is not None:
        del written["drain"]
        written |= _drain_fields(status.drain)
    if "supportedFeatures" in written:
        written["supportedFeatures"] = [{"name": name} for name in written["supportedFeatures"]]
    # It repeats what each condition carries; Kubernetes' kinds have it nowhere else.
    written.pop("observedGeneration", None)
    return written


def _drain_fields(progress: DrainProgress) -> dict[str, Any]:
    fields: dict[str, Any] = {"phase": progress.phase, "percentMoved": progress.percent_moved}
    if progress.streams_left is not None:
        fields["streamsLeft"] = progress.streams_left
    for name, at_ms in (
        ("startTime", progress.started_at_ms),
        ("expirationTime", progress.expires_at_ms),
    ):
        if at_ms is not None:
            fields[name] = timestamp(at_ms / 1000)
    return fields


def with_others(
    document: Mapping[str, Any], stored: Mapping[str, Any], *, controller: str
) -> dict[str, Any]:
    """``document`` with the entries that other controllers have in ``stored``.

    A list that is stored stays, with nothing in it if it had ours alone: statuses must have it.
    """
    merged = dict(document)
    for name in SHARED_LISTS:
        others = [entry for entry in stored.get(name) or [] if not _is_of(entry, controller)]
        if name in stored or name in merged:
            merged[name] = [*others, *merged.get(name, [])]
    return merged


def stored_status(document: Mapping[str, Any], *, controller: str) -> ObjectStatus | None:
    """Our part of a stored status, or ``None`` if it cannot be read: it is then replaced."""
    own = dict(document)
    for name in SHARED_LISTS:
        own[name] = [entry for entry in document.get(name) or [] if _is_of(entry, controller)]
    own["clusters"] = [entry.get("cluster") for entry in document.get("clusters") or []]
    features = document.get("supportedFeatures") or []
    own["supportedFeatures"] = [entry.get("name") for entry in features]
    try:
        return ObjectStatus.model_validate(own, extra="ignore")
    except ValidationError:
        return None


def _is_of(entry: object, controller: str) -> bool:
    return isinstance(entry, Mapping) and entry.get("controllerName") == controller
