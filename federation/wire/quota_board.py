"""What a cluster writes on the quota board: JSON, one object for each limit.

Decides: the spelling ``{LIMIT: {KEY: [demand, used, part]}}``; an empty KEY is the limit itself.
Leaves to others: the numbers (``quota``), the board (``adapters``).
Invariants: an entry that cannot be read is no entry; unknown limits are kept, since clusters do not
learn of a policy at the same moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from federation.model.quota import Bucket, Claim

Entry = Mapping[Bucket, Claim]


def to_bytes(entry: Entry) -> bytes:
    """``entry`` as it is written."""
    limits: dict[str, dict[str, list[int]]] = {}
    for bucket in sorted(entry):
        claim = entry[bucket]
        limits.setdefault(bucket.limit, {})[bucket.key] = [claim.demand, claim.used, claim.part]
    return json.dumps(limits, separators=(",", ":")).encode()


def from_bytes(raw: bytes) -> Entry | None:
    """The entry, or ``None`` when it is not one."""
    try:
        return {
            Bucket(limit, key): _claim(*numbers)
            for limit, keys in json.loads(raw).items()
            for key, numbers in keys.items()
        }
    except (ValueError, TypeError, AttributeError):
        return None


def _claim(demand: int, used: int, part: int) -> Claim:
    numbers = (demand, used, part)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(numbers)
    return Claim(*numbers)
