"""One delta ADS stream as a state machine without I/O: requests in, responses out.

Decides: the order between types. What is new goes out before what refers to it (secrets, clusters,
endpoints, listeners, routes), and is answered first; what is gone is removed only after everything
that could refer to it has been answered, in the reverse order. So no moment exists in which a route
names a cluster that the client does not hold. A mere change of a resource holds up nothing:
endpoints that change all the time do not keep weights from arriving.
Leaves to others: sockets and waiting (``server``), the content (``catalog``).
Invariants: one outstanding response per type, the newest catalog wins; a response stays below
``response_bytes`` unless a single resource is larger; nothing is sent before there is a catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from envoy.service.discovery.v3 import discovery_pb2

from federation.discovery.catalog import (
    BREAK_ORDER,
    MAKE_ORDER,
    Catalog,
    Resource,
    ResourceType,
)
from federation.discovery.subscription import Pending, Refusal, Subscription, SubscriptionError

SETTLE_S = 1.0
"""How long routes wait for a client to subscribe to the endpoints of clusters it was just given.
Envoy does so within milliseconds; a client that never does must not be kept from its routes."""

_NEEDED = {ResourceType.LISTENERS, ResourceType.ROUTES}


@dataclass(slots=True)
class Stream:
    """State of one stream. ``identifier`` makes nonces of different streams different."""

    identifier: str
    response_bytes: int
    subscriptions: dict[ResourceType, Subscription] = field(default_factory=dict)
    answered: dict[ResourceType, int] = field(default_factory=dict)
    _responses: int = 0
    _clusters_answered_s: float = 0.0

    def __post_init__(self) -> None:
        self.subscriptions = {kind: Subscription(kind) for kind in ResourceType}

    def __repr__(self) -> str:
        open_types = ",".join(s.resource_type.word for s in self._opened())
        return f"Stream({self.identifier}, {open_types or 'silent'})"

    def receive(self, request: discovery_pb2.DeltaDiscoveryRequest, *, now_s: float) -> str | None:
        """Take one request. Returns the error text if it refuses the outstanding response.

        Raises ``SubscriptionError`` for a type that is not served.
        """
        try:
            resource_type = ResourceType(request.type_url)
        except ValueError:
            known = ", ".join(ResourceType)
            raise SubscriptionError(
                f'type URL "{request.type_url}" is not served here; served are {known}'
            ) from None
        subscription = self.subscriptions[resource_type]
        subscription.subscribe(
            request.resource_names_subscribe,
            request.resource_names_unsubscribe,
            request.initial_resource_versions,
        )
        if not request.response_nonce:
            return None
        error = request.error_detail.message if request.HasField("error_detail") else None
        if not subscription.answer(request.response_nonce, error):
            return None
        if resource_type is ResourceType.CLUSTERS:
            self._clusters_answered_s = now_s
        return error

    def next_response(
        self, catalog: Catalog, *, now_s: float
    ) -> discovery_pb2.DeltaDiscoveryResponse | None:
        """The next response that may be sent now, recorded as outstanding; ``None`` if none may."""
        pending = {s.resource_type: self._pending(s, catalog) for s in self._opened()}
        response = self._next_made(catalog, pending, now_s) or self._next_broken(pending)
        if response is None:
            self._note_answered(catalog, pending)
        return response

    def retry_at_s(self) -> float:
        """When to call ``next_response`` again although nothing has arrived."""
        return self._clusters_answered_s + SETTLE_S

    def refusals(self) -> Iterable[tuple[ResourceType, Mapping[str, Refusal]]]:
        """Resources in refusal, by type."""
        return [(s.resource_type, s.refusals) for s in self._opened() if s.refusals]

    @property
    def left(self) -> bool:
        """Whether the client wants no listeners any more, which it had asked for: it is leaving."""
        listeners = self.subscriptions[ResourceType.LISTENERS]
        return listeners.opened and not listeners.wildcard and not listeners.names

    def generation(self) -> int:
        """The newest generation that this client has answered whole; 0 before the first.

        A client that has not asked for listeners and routes yet cannot have any in force.
        """
        needed = {s.resource_type for s in self._opened()} | _NEEDED
        return min(self.answered.get(resource_type, 0) for resource_type in needed)

    def _opened(self) -> list[Subscription]:
        return [s for s in self.subscriptions.values() if s.opened]

    @staticmethod
    def _pending(subscription: Subscription, catalog: Catalog) -> Pending:
        return subscription.pending(catalog.of(subscription.resource_type))

    # Making: in MAKE_ORDER, a type waits for introductions of the types before it.

    def _next_made(
        self, catalog: Catalog, pending: Mapping[ResourceType, Pending], now_s: float
    ) -> discovery_pb2.DeltaDiscoveryResponse | None:
        held_up = False
        for resource_type in MAKE_ORDER:
            if resource_type not in pending:
                continue
            subscription = self.subscriptions[resource_type]
            owed = pending[resource_type]
            names = owed.introduced + owed.changed
            refers = resource_type in (ResourceType.LISTENERS, ResourceType.ROUTES)
            if refers and not held_up:
                held_up = self._endpoints_unsettled(catalog, now_s)
            due = names or subscription.first_answer_owed
            if due and subscription.outstanding is None and not (refers and held_up):
                return self._upserts(subscription, catalog.of(resource_type), owed)
            # Listeners do not hold up the routes that they wait for.
            if resource_type is not ResourceType.LISTENERS:
                held_up = held_up or bool(owed.introduced) or _introducing(subscription)
        return None

    def _endpoints_unsettled(self, catalog: Catalog, now_s: float) -> bool:
        """Whether the client holds new clusters whose endpoints it has not asked for yet."""
        endpoints = self.subscriptions[ResourceType.ENDPOINTS]
        clusters = self.subscriptions[ResourceType.CLUSTERS]
        if not clusters.opened or endpoints.wildcard or now_s >= self.retry_at_s():
            return False
        return any(name not in endpoints.names for name in catalog.of(ResourceType.ENDPOINTS))

    def _upserts(
        self, subscription: Subscription, resources: Mapping[str, Resource], owed: Pending
    ) -> discovery_pb2.DeltaDiscoveryResponse:
        response = self._response(subscription)
        versions: dict[str, str] = {}
        size = 0
        for name in owed.introduced + owed.changed:
            resource = resources[name]
            size += resource.body.ByteSize()
            if versions and size > self.response_bytes:
                break
            response.resources.add(name=name, version=resource.version, resource=resource.body)
            versions[name] = resource.version
        introduces = any(name in versions for name in owed.introduced)
        subscription.sent(response.nonce, versions, (), introduces=introduces)
        return response

    # Breaking: only when nothing is being made, and after everything that could refer to it.

    def _next_broken(
        self, pending: Mapping[ResourceType, Pending]
    ) -> discovery_pb2.DeltaDiscoveryResponse | None:
        for resource_type in BREAK_ORDER:
            if resource_type not in pending:
                continue
            subscription = self.subscriptions[resource_type]
            owed = pending[resource_type]
            if owed.removed and subscription.outstanding is None:
                response = self._response(subscription)
                response.removed_resources.extend(owed.removed)
                subscription.sent(response.nonce, {}, owed.removed, introduces=False)
                return response
            refers = resource_type in (ResourceType.LISTENERS, ResourceType.ROUTES)
            busy = subscription.outstanding is not None
            if (refers and (busy or not owed.empty)) or _removing(subscription):
                return None
        return None

    def _response(self, subscription: Subscription) -> discovery_pb2.DeltaDiscoveryResponse:
        self._responses += 1
        return discovery_pb2.DeltaDiscoveryResponse(
            type_url=subscription.resource_type,
            nonce=f"{self.identifier}-{self._responses}",
        )

    def _note_answered(self, catalog: Catalog, pending: Mapping[ResourceType, Pending]) -> None:
        for resource_type, owed in pending.items():
            if owed.empty and self.subscriptions[resource_type].outstanding is None:
                self.answered[resource_type] = catalog.generation


def _introducing(subscription: Subscription) -> bool:
    return subscription.outstanding is not None and subscription.outstanding.introduces


def _removing(subscription: Subscription) -> bool:
    return subscription.outstanding is not None and subscription.outstanding.removes
