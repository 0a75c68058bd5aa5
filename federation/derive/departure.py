"""What a cluster leaves behind in the federation's state, and whether it can be missed.

Decides: what counts as carrying traffic.
Leaves to others: keys (``wire.etcd_keys``), removing (``cli``).
Invariants: pure; a cluster whose part is drained to nothing carries nothing, nor does one whose
exports are gone, even where no resolver has concluded so yet.
"""

from __future__ import annotations

from federation.model.base import ClusterId, ServiceName
from federation.model.view import FederationView


def carried(view: FederationView, cluster: ClusterId) -> tuple[ServiceName, ...]:
    """The services of which callers in some region have a part in ``cluster`` now."""
    return tuple(
        service
        for service, resolved in sorted(view.resolved.items(), key=lambda entry: str(entry[0]))
        if cluster in view.exports.get(service, {})
        and any(
            share.cluster == cluster and share.weight_bp > 0
            for source in resolved.sources
            for share in source.shares
        )
    )
