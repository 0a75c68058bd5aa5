"""One service from several exports: precedence, union of ports, differences."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from federation.derive.merge import merge
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import ExportFact, ServicePort

SERVICE = ServiceName(namespace="app", name="users")


def fact(cluster: str, age: int, *ports: tuple[str, int], **fields: object) -> ExportFact:
    whole = ExportFact(
        cluster=ClusterId(cluster),
        region=Region("r"),
        service=SERVICE,
        ports=tuple(ServicePort(name=name, port=number) for name, number in ports),
        ready=1,
        total=1,
        capacity=1,
        create_revision=age,
    )
    return whole.model_copy(update=fields)


def by_cluster(*facts: ExportFact) -> dict[ClusterId, ExportFact]:
    return {entry.cluster: entry for entry in facts}


def names(*facts: ExportFact) -> list[tuple[str, int]]:
    return [(port.name, port.port) for port in merge(by_cluster(*facts)).ports]


def test_a_single_export_has_no_conflict() -> None:
    merged = merge(by_cluster(fact("a", 5, ("grpc", 1))))
    assert (merged.differences, merged.message()) == ((), "")


def test_the_older_export_has_its_way_with_a_name() -> None:
    assert names(fact("a", 5, ("grpc", 1)), fact("b", 4, ("grpc", 2))) == [("grpc", 2)]


def test_a_number_under_two_names_stands_once() -> None:
    assert names(fact("a", 1, ("grpc", 1)), fact("b", 2, ("rpc", 1))) == [("grpc", 1)]


def test_an_unnamed_port_counts_as_a_name() -> None:
    assert names(fact("a", 1, ("", 1)), fact("b", 2, ("", 2))) == [("", 1)]


def test_equal_ages_go_by_the_clusters_name() -> None:
    assert merge(by_cluster(fact("b", 1), fact("a", 1))).oldest.cluster == "a"


def test_several_differences_are_told_together() -> None:
    merged = merge(
        by_cluster(
            fact("a", 1, ("grpc", 1), internal_traffic_policy="Local"),
            fact("b", 2, ("grpc", 1), ("http", 2)),
        )
    )
    assert [entry.reason for entry in merged.differences] == [
        "PortConflict",
        "InternalTrafficPolicyConflict",
    ]
    assert merged.message() == (
        'Conflicting ports. Using "grpc:1/TCP" from oldest service export in "a". 1/2 clusters '
        'disagree. Conflicting internal traffic policy. Using "Local" from oldest service export '
        'in "a". 1/2 clusters disagree.'
    )


def test_an_unset_internal_traffic_policy_is_cluster() -> None:
    assert not merge(
        by_cluster(fact("a", 1), fact("b", 2, internal_traffic_policy="Cluster"))
    ).differences


def test_families_are_those_in_common() -> None:
    both = fact("a", 1, ip_families=("IPv4", "IPv6"))
    one = fact("b", 2, ip_families=("IPv6",))
    merged = merge(by_cluster(both, one))
    assert merged.ip_families == ("IPv6",)
    assert [entry.reason for entry in merged.differences] == ["IPFamilyConflict"]


ports = st.lists(
    st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(1, 4)), max_size=4, unique=True
)


@given(st.lists(st.tuples(st.integers(1, 3), ports), min_size=1, max_size=4))
def test_order_does_not_matter_and_ports_are_distinct(
    exports: list[tuple[int, list[tuple[str, int]]]],
) -> None:
    facts = [fact(f"c{index}", age, *given) for index, (age, given) in enumerate(exports)]
    merged = merge(by_cluster(*facts))
    for shuffled in itertools.islice(itertools.permutations(facts), 6):
        assert merge(by_cluster(*shuffled)) == merged
    assert len({port.name for port in merged.ports}) == len(merged.ports)
    assert len({(port.protocol, port.port) for port in merged.ports}) == len(merged.ports)
    asked = {port.name for entry in facts for port in entry.ports}
    assert {port.name for port in merged.ports} <= asked
