"""What may leave in a support bundle: named fields alone, and nothing that looks like a secret.

Decides: two nets. The first is a shape for each document: what it does not name is left out. The
second is a scan of every text that is left, for keys, tokens and passwords wherever they stand.
Leaves to others: where documents come from (``bundle``).
Invariants: pure; what is left out is counted; a text in which the second net still finds something
after it was cleaned is not written at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Shape: TypeAlias = "bool | Sequence[Shape] | Mapping[str, Shape]"
"""``True``: a number, a flag or a text. A list: a list of it. A dict: these keys; ``*`` stands for
any key."""

TEXT_MAX = 2_000
"""Characters kept of a text."""

REMOVED = "[removed]"

SECRETS = (
    re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL),
    re.compile(r"LS0tLS1CRUdJT[A-Za-z0-9+/=]*"),  # the same in base64, as Secrets have it
    re.compile(r"eyJ[\w-]{6,}\.[\w-]{4,}(?:\.[\w-]*)?"),  # a JSON web token
    re.compile(r"(?i)\b(?:bearer|basic)\s+[\w.+/=~-]{6,}"),
    # To the end of the line: these have blanks, commas and semicolons in them.
    re.compile(
        r"(?i)(?:authori[sz]ation|cookie|password|passwd|passphrase)[\w-]{0,32}[\"']?\s{0,8}[:=]"
        r"(?!\s{0,8}[\"']?(?:\[removed\]|null\b|true\b|false\b))\s{0,8}[^\n]*"
    ),
    re.compile(
        r"(?i)(?:--[\w-]{0,32})(?:password|passwd|secret|token|api[-_]?key|credential)[\w-]{0,32}"
        r"[ =]\s{0,8}(?!\[removed\])[^\s\"',;}]+"
    ),
    re.compile(
        r"(?i)(?:secret|token|api[-_]?key|credential)"
        r"[\w-]{0,32}[\"']?\s{0,8}[:=]\s{0,8}[\"']?(?!\[removed\]|null\b|true\b|false\b)"
        r"[^\s\"',;}]+"
    ),
    re.compile(r"(?<=://)[^/\s:@]{1,128}:[^/\s@]{1,256}@"),
    re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}\b"),
)
"""What is a secret wherever it stands."""

SENSITIVE = re.compile(
    r"(?i)authori[sz]ation|cookie|token|passw|api-?key|private_?key|credential|\bpem\b|_pem$"
)
"""Names whose value is one, whatever it looks like."""

NUMBER_REMOVED = re.compile(rf"{SENSITIVE.pattern}|secret")
"""Names whose value is left out even if it is a number: no count of ours is called so."""

_WEIGHTED: Shape = [{"cluster": True, "weight": True}]
_MATCH: Shape = {
    "grpc": True,
    "path": {"*": True},
    "headers": [{"name": True}],
}


def _fields(names: str) -> dict[str, Shape]:
    """These keys, each with a plain value."""
    return dict.fromkeys(names.split(), True)


READY: Shape = {
    **_fields("name cluster region state version age_s why ready release clock_s"),
    "listeners": {"*": True},
    "refused": {"*": True},
}

STATS: Shape = {
    "gateway": READY,
    "core": {
        "version": True,
        "notices_dropped": True,
        "endpoints_total": True,
        "numbers": {"*": True},
        "answered": {"*": True},
        "endpoints": [{"*": True}],
        "telemetry": [{"collector": True, "kind": True, "items": True, "dropped": True}],
    },
}

CONFIG: Shape = {
    "version": True,
    "refused": {"*": True},
    "waiting": {"*": [True]},
    "pending": [{"kind": True, "name": True}],
    "certificates": [{"name": True, "version": True}],
    "listeners": [
        {
            "name": True,
            "version": True,
            "body": {
                "address": True,
                "port": True,
                "kind": True,
                "route_table": True,
                "tls": {
                    "allowed_spiffe": [True],
                    "certificates": [True],
                    "client_ca": True,
                    "client_optional": True,
                },
            },
        }
    ],
    "clusters": [
        {
            "name": True,
            "version": True,
            "body": {
                "lb": True,
                "protocol": True,
                "panic_percent": True,
                "connect_timeout_ms": True,
                "max_requests": True,
                "max_connections": True,
                "max_pending_requests": True,
                "outlier": {"*": True},
                "keepalive": {"*": True},
                "peer_tls": {"allowed_spiffe": [True], "sni": True},
            },
        }
    ],
    "endpoints": [
        {
            "name": True,
            "version": True,
            "body": {
                "localities": [
                    {
                        "cluster_id": True,
                        "region": True,
                        "priority": True,
                        "weight": True,
                        "endpoints": [{"address": True, "health": True, "peer": True}],
                    }
                ]
            },
        }
    ],
    "route_tables": [
        {
            "name": True,
            "version": True,
            "body": {
                "virtual_hosts": [
                    {
                        "name": True,
                        "hostnames": [True],
                        "routes": [
                            {
                                "name": True,
                                "match": _MATCH,
                                "timeout_ms": True,
                                "action": {"weighted": _WEIGHTED, "status": True},
                            }
                        ],
                    }
                ]
            },
        }
    ],
}

EVENTS: Shape = [_fields("at event cluster address reason listener until_ms")]
PEERS: Shape = {
    "left_out": True,
    "peers": [_fields("cluster address reached why took_ms down")],
}
_CERTIFICATE: Shape = [_fields("subject issuer not_before not_after")]
CERTIFICATES: Shape = [{"name": True, "certificate": _CERTIFICATE, "authorities": _CERTIFICATE}]

STATUS: Shape = {
    "revision": True,
    "leader": _fields("resolver term"),
    "members": [
        {
            **_fields("cluster region stale staleAgeS gateways exports version"),
            "quarantine": _fields("reason since"),
            "degraded": [True],
        }
    ],
    "drains": [
        {
            **_fields("name target targetKind progress remainingBp overMs graceMs ageS requested"),
            **_fields("requestedBy refusal"),
            "service": _fields("namespace name"),
        }
    ],
    "services": [
        {
            "service": _fields("namespace name"),
            "clusters": [_fields("cluster ready total")],
            "weightsBp": {"*": {"*": True}},
        }
    ],
}
CHECK: Shape = {
    "findings": [_fields("severity area what subject why next")],
    "unexamined": [_fields("area why")],
}
OBJECTS: Shape = [
    {
        **_fields("cluster kind name generation unreadable"),
        "conditions": [_fields("where type status reason message observed_generation")],
    }
]
LOG: Shape = {
    **_fields("time level component cluster source event"),
    "fields": _fields(
        "cluster service version reason why generation gateway agent admin term revision resource "
        "part exception listener attempt node kind name namespace writes grace_s address logger"
    ),
}


@dataclass(slots=True)
class Scrubber:
    """Cleans documents; counts what it left out."""

    left_out: int = 0
    removed: int = 0
    unwritten: list[str] = field(default_factory=list)

    def document(self, value: Any, shape: Shape) -> Any:
        """What ``shape`` names of ``value``, cleaned."""
        return self._shaped(value, shape, "")

    def text(self, value: str) -> str:
        """``value`` without what looks like a secret."""
        for pattern in SECRETS:
            value, count = pattern.subn(REMOVED, value)
            self.removed += count
        return value

    def _shaped(self, value: Any, shape: Shape, name: str) -> Any:
        if value is None:
            return None
        if isinstance(shape, Mapping) and isinstance(value, Mapping):
            kept = {}
            for key, inside in value.items():
                wanted = shape.get(str(key), shape.get("*", False))
                if wanted is False:
                    self.left_out += 1
                    continue
                kept[self.text(str(key))] = self._shaped(inside, wanted, str(key))
            return kept
        if isinstance(shape, Sequence) and isinstance(value, list | tuple):
            return [self._shaped(each, shape[0], name) for each in value]
        if shape is True and isinstance(value, int | float):
            if isinstance(value, bool) or not NUMBER_REMOVED.search(name):
                return value
            self.removed += 1
            return REMOVED
        if shape is True and isinstance(value, str):
            if SENSITIVE.search(name):
                self.removed += 1
                return REMOVED
            return self.text(value)[:TEXT_MAX]
        self.left_out += 1
        return None


def is_clean(text: str) -> bool:
    """Whether the second net finds nothing in ``text``."""
    return not any(pattern.search(text) for pattern in SECRETS)
