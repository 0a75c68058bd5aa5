"""The delta ADS state machine without sockets: order, versions, answers, bounds."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st

from federation.discovery.catalog import Catalog, Resource, ResourceType
from federation.discovery.stream import SETTLE_S, Stream
from federation.discovery.subscription import SubscriptionError

C, E, L, R = (
    ResourceType.CLUSTERS,
    ResourceType.ENDPOINTS,
    ResourceType.LISTENERS,
    ResourceType.ROUTES,
)


def catalog(generation: int = 1, **types: dict[str, str]) -> Catalog:
    """A catalog from versions by name; the versions are the bodies too."""
    return Catalog(
        generation,
        {
            ResourceType[kind.upper()]: {
                name: Resource(version, any_pb2.Any(value=version.encode()))
                for name, version in entries.items()
            }
            for kind, entries in types.items()
        },
    )


class Client:
    """Drives a stream as a client that subscribes to everything and acknowledges on demand."""

    def __init__(self, *types: ResourceType, response_bytes: int = 1 << 20) -> None:
        self.stream = Stream("1", response_bytes=response_bytes)
        self.now_s = 100.0
        for resource_type in types:
            self.ask(resource_type, subscribe=["*"])

    def ask(
        self,
        resource_type: ResourceType | str,
        *,
        subscribe: list[str] | None = None,
        unsubscribe: list[str] | None = None,
        held: dict[str, str] | None = None,
        nonce: str = "",
        error: str | None = None,
    ) -> str | None:
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=resource_type,
            resource_names_subscribe=subscribe or [],
            resource_names_unsubscribe=unsubscribe or [],
            initial_resource_versions=held or {},
            response_nonce=nonce,
        )
        if error is not None:
            request.error_detail.message = error
        return self.stream.receive(request, now_s=self.now_s)

    def next(self, source: Catalog) -> Any:
        return self.stream.next_response(source, now_s=self.now_s)

    def ack(self, response: Any, error: str | None = None) -> None:
        self.ask(response.type_url, nonce=response.nonce, error=error)

    def drain(self, source: Catalog) -> list[Any]:
        """All responses, each acknowledged at once."""
        responses = []
        while (response := self.next(source)) is not None:
            self.ack(response)
            responses.append(response)
        return responses


def names(response: Any) -> list[str]:
    return [resource.name for resource in response.resources]


FULL = catalog(clusters={"c": "1"}, endpoints={"c": "1"}, listeners={"l": "1"}, routes={"l": "1"})


def test_what_is_new_goes_out_before_what_refers_to_it() -> None:
    client = Client(R, L, E, C)
    assert [r.type_url for r in client.drain(FULL)] == [C, E, L, R]
    assert client.stream.generation() == 1


def test_routes_wait_until_new_clusters_are_answered() -> None:
    client = Client(C, E, L, R)
    clusters = client.next(FULL)
    endpoints = client.next(FULL)
    assert client.next(FULL) is None
    client.ack(clusters)
    assert client.next(FULL) is None
    client.ack(endpoints)
    assert client.next(FULL).type_url == L
    # Listeners do not hold up the routes they wait for.
    assert client.next(FULL).type_url == R


def test_changes_of_endpoints_do_not_hold_up_routes() -> None:
    client = Client(C, E, L, R)
    client.drain(FULL)
    newer = catalog(
        2, clusters={"c": "1"}, endpoints={"c": "2"}, listeners={"l": "1"}, routes={"l": "2"}
    )
    assert client.next(newer).type_url == E
    assert client.next(newer).type_url == R


def test_a_cluster_goes_only_after_the_routes_without_it_are_answered() -> None:
    client = Client(C, E, L, R)
    client.drain(FULL)
    newer = catalog(
        2, clusters={"d": "1"}, endpoints={"d": "1"}, listeners={"l": "1"}, routes={"l": "2"}
    )
    client.ack(client.next(newer))
    client.ack(client.next(newer))
    routes = client.next(newer)
    assert routes.type_url == R
    assert client.next(newer) is None
    client.ack(routes)
    endpoints = client.next(newer)
    assert (endpoints.type_url, list(endpoints.removed_resources)) == (E, ["c"])
    assert client.next(newer) is None
    client.ack(endpoints)
    clusters = client.next(newer)
    assert (clusters.type_url, list(clusters.removed_resources)) == (C, ["c"])
    client.ack(clusters)
    assert client.next(newer) is None
    assert client.stream.generation() == 2


def test_one_response_is_outstanding_and_the_newest_wins() -> None:
    client = Client(C)
    first = client.next(catalog(1, clusters={"c": "1"}))
    assert client.next(catalog(2, clusters={"c": "2"})) is None
    client.ack(first)
    second = client.next(catalog(3, clusters={"c": "3"}))
    assert [(r.name, r.version) for r in second.resources] == [("c", "3")]


def test_held_versions_are_not_sent_again_and_vanished_ones_are_removed() -> None:
    client = Client()
    client.ask(C, subscribe=["*"], held={"a": "1", "b": "1", "gone": "1"})
    source = catalog(clusters={"a": "1", "b": "2"})
    changed, removed = client.drain(source)
    assert names(changed) == ["b"]
    assert list(removed.removed_resources) == ["gone"]


def test_the_first_request_of_a_type_is_answered_even_with_nothing() -> None:
    client = Client(C)
    response = client.next(catalog())
    assert names(response) == []
    client.ack(response)
    assert client.next(catalog()) is None


def test_a_refusal_is_kept_by_name_and_not_sent_again_until_it_changes() -> None:
    client = Client(L)
    source = catalog(listeners={"infra/gw/80": "1", "infra/gw/8080": "1"})
    client.ack(client.next(source), error="infra/gw/8080: address already in use")
    ((resource_type, refusals),) = client.stream.refusals()
    assert (resource_type, list(refusals)) == (L, ["infra/gw/8080"])
    assert client.next(source) is None
    newer = catalog(2, listeners={"infra/gw/80": "1", "infra/gw/8080": "2"})
    response = client.next(newer)
    assert names(response) == ["infra/gw/8080"]
    client.ack(response)
    assert list(client.stream.refusals()) == []


def test_each_refused_resource_keeps_its_own_part_of_the_message() -> None:
    client = Client(L)
    source = catalog(listeners={"a": "1", "b": "1", "c": "1"})
    client.ack(client.next(source), error="a: port taken; b: no such; table")
    ((_, refusals),) = client.stream.refusals()
    assert {name: refusal.message for name, refusal in refusals.items()} == {
        "a": "port taken",
        "b": "no such; table",
    }


def test_a_refusal_that_names_nothing_is_of_the_whole_response() -> None:
    client = Client(L)
    client.ack(client.next(catalog(listeners={"a": "1", "b": "1"})), error="no")
    ((_, refusals),) = client.stream.refusals()
    assert sorted(refusals) == ["a", "b"]


def test_a_stale_nonce_changes_nothing() -> None:
    client = Client(C)
    client.next(catalog(clusters={"c": "1"}))
    assert client.ask(C, nonce="of-another-time", error="no") is None
    assert client.next(catalog(2, clusters={"c": "2"})) is None


def test_a_name_that_does_not_exist_is_reported_once() -> None:
    client = Client()
    client.ask(E, subscribe=["missing"])
    source = catalog(endpoints={"other": "1"})
    responses = client.drain(source)
    assert [list(r.removed_resources) for r in responses if r.removed_resources] == [["missing"]]
    response = client.next(catalog(2, endpoints={"missing": "1"}))
    assert names(response) == ["missing"]


def test_asking_again_for_what_one_has_sends_it_again() -> None:
    client = Client(L)
    source = catalog(listeners={"l": "1"})
    client.drain(source)
    client.ask(L, subscribe=["l"])
    assert names(client.next(source)) == ["l"]


def test_a_request_without_names_means_all_clusters_and_listeners() -> None:
    client = Client()
    client.ask(C)
    client.ask(E)
    clusters, endpoints = client.drain(FULL)
    assert names(clusters) == ["c"]
    assert names(endpoints) == []


def test_routes_wait_for_endpoints_not_yet_asked_for_but_not_for_ever() -> None:
    client = Client(C, L, R)
    client.ack(client.next(FULL))
    assert client.next(FULL) is None
    client.now_s = client.stream.retry_at_s()
    assert client.now_s == 100.0 + SETTLE_S
    assert client.next(FULL).type_url == L


def test_large_types_are_cut_and_continued_after_the_answer() -> None:
    client = Client(C, response_bytes=4)
    source = catalog(clusters=dict.fromkeys("abcde", "12"))
    assert [names(r) for r in client.drain(source)] == [["a"], ["b"], ["c"], ["d"], ["e"]]


def test_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(SubscriptionError, match=r"type\.googleapis\.com/x\.Y\W+is not served here"):
        Client().ask("type.googleapis.com/x.Y", subscribe=["*"])


VERSIONS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("123"))


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(("clusters", "routes"), VERSIONS)), max_size=5))
def test_any_course_of_publications_ends_with_what_was_published_last(
    publications: list[dict[str, dict[str, str]]],
) -> None:
    client = Client(C, E, L, R)
    held: dict[str, dict[str, str]] = {C: {}, E: {}, L: {}, R: {}}
    unanswered: list[Any] = []
    source = catalog(0)
    for number, publication in enumerate(publications, 1):
        source = catalog(number, **publication)
        # Some responses stay unanswered while the next publication comes.
        while (response := client.next(source)) is not None and len(unanswered) < 2:
            unanswered.append(response)
        if response is not None:
            unanswered.append(response)
        _apply(client, unanswered, held)
    for response in client.drain(source):
        _hold(response, held)
    assert held[C] == {n: r.version for n, r in source.of(C).items()}
    assert held[R] == {n: r.version for n, r in source.of(R).items()}
    assert client.stream.generation() == source.generation


def _apply(client: Client, unanswered: list[Any], held: dict[str, dict[str, str]]) -> None:
    while unanswered:
        response = unanswered.pop(0)
        _hold(response, held)
        client.ack(response)


def _hold(response: Any, held: dict[str, dict[str, str]]) -> None:
    for resource in response.resources:
        held[response.type_url][resource.name] = resource.version
    for name in response.removed_resources:
        held[response.type_url].pop(name, None)


def test_a_refusal_too_long_to_name_all_refuses_the_whole_response() -> None:
    client = Client(C)
    response = client.stream.next_response(catalog(clusters={"a": "1", "b": "1"}), now_s=100.0)
    assert response is not None
    error = "a: " + "x" * 20_000
    client.ask(C, nonce=response.nonce, error=error)
    ((_, refusals),) = client.stream.refusals()
    assert sorted(refusals) == ["a", "b"]
    assert all(len(refusal.message) < len(error) for refusal in refusals.values())
