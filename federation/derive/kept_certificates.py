"""The last good certificate of a Secret whose newest content no gateway could load.

Decides: when what a Secret said before stands in for what it says now: while that is no certificate
with its key. A write that went wrong then changes nothing for clients; the listener says so.
Leaves to others: which Secrets are used (``compile.certificates``), where the last good ones are
remembered (the agent, on disk with its last good state).
Invariants: pure; a Secret that is deleted is gone; one that never was good is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from federation.derive.compile.certificates import secret_fault
from federation.model.objects import ApiObject, ObjectKey, ObjectSnapshot, Secret


@dataclass(frozen=True, slots=True)
class KeptCertificates:
    """A snapshot in which Secrets are as they last were good.

    ``faults`` say of each that differs from the source what is wrong with the newest content;
    ``good`` is what to go on with at the next snapshot, ``judged`` what was looked at already.
    """

    snapshot: ObjectSnapshot = field(default_factory=ObjectSnapshot)
    faults: Mapping[ObjectKey, str] = field(default_factory=dict)
    good: Mapping[ObjectKey, Secret] = field(default_factory=dict)
    judged: Mapping[ObjectKey, tuple[Secret, str]] = field(default_factory=dict)


def good_secrets(objects: Mapping[ObjectKey, ApiObject]) -> dict[ObjectKey, Secret]:
    """The Secrets among ``objects`` that are certificates."""
    return {
        key: entry
        for key, entry in objects.items()
        if isinstance(entry, Secret) and not secret_fault(entry)
    }


def keep_certificates(before: KeptCertificates, snapshot: ObjectSnapshot) -> KeptCertificates:
    """``snapshot`` with the last good content of the Secrets that are not good now."""
    judged: dict[ObjectKey, tuple[Secret, str]] = {}
    good: dict[ObjectKey, Secret] = {}
    faults: dict[ObjectKey, str] = {}
    for key, entry in snapshot.objects.items():
        if not isinstance(entry, Secret):
            continue
        known = before.judged.get(key)
        fault = known[1] if known is not None and known[0] is entry else secret_fault(entry)
        judged[key] = (entry, fault)
        if not fault:
            good[key] = entry
        elif key in before.good:
            good[key] = before.good[key]
            faults[key] = fault
    if faults:
        kept = {key: good[key] for key in faults}
        snapshot = replace(snapshot, objects={**snapshot.objects, **kept})
    return KeptCertificates(snapshot, faults, good, judged)
