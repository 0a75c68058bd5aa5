"""Which pieces come into force: needs, order, refusals, and what is kept for what needs it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.assembly import Assembly, update_for
from gateway.xds_translate import Kind, Piece, PieceId

CLUSTER, TABLE = PieceId(Kind.CLUSTERS, "c"), PieceId(Kind.ROUTE_TABLES, "t")


def piece(kind: Kind, name: str, *needs: PieceId, body: int = 0) -> Piece:
    return Piece(PieceId(kind, name), {"name": name, "body": body}, frozenset(needs))


def settle(assembly: Assembly) -> None:
    assembly.applied(assembly.change_to(assembly.target()))


def test_a_table_waits_for_its_cluster() -> None:
    assembly = Assembly()
    assembly.want([piece(Kind.ROUTE_TABLES, "t", CLUSTER)])
    settle(assembly)
    assert assembly.in_force == {}
    assert assembly.waiting(TABLE) == (CLUSTER,)
    assembly.want([piece(Kind.CLUSTERS, "c")])
    settle(assembly)
    assert set(assembly.in_force) == {CLUSTER, TABLE}
    assert assembly.waiting(TABLE) == ()


def test_an_old_table_and_its_cluster_stay_while_the_new_table_waits() -> None:
    assembly = Assembly()
    old = piece(Kind.ROUTE_TABLES, "t", CLUSTER)
    assembly.want([piece(Kind.CLUSTERS, "c"), old])
    settle(assembly)
    newcomer = PieceId(Kind.CLUSTERS, "d")
    assembly.want([piece(Kind.ROUTE_TABLES, "t", newcomer, body=1)], removed=[CLUSTER])
    settle(assembly)
    assert assembly.in_force[TABLE] == old
    assert CLUSTER in assembly.in_force
    assembly.want([piece(Kind.CLUSTERS, "d")])
    settle(assembly)
    assert set(assembly.in_force) == {newcomer, TABLE}


def test_refused_endpoints_are_tried_again_with_another_cluster() -> None:
    """A cluster may bring what its endpoints lacked; nobody sends the endpoints a second time."""
    assembly = Assembly()
    endpoints = piece(Kind.ENDPOINTS, "c", CLUSTER)
    assembly.want([piece(Kind.CLUSTERS, "c"), endpoints])
    assembly.refuse(endpoints, "needs `peer_tls` in the cluster")
    settle(assembly)
    assert set(assembly.in_force) == {CLUSTER}
    assembly.want([piece(Kind.CLUSTERS, "c")])
    assert endpoints.id in assembly.refused, "the same cluster again changes nothing"
    assembly.want([piece(Kind.CLUSTERS, "c", body=1)])
    settle(assembly)
    assert set(assembly.in_force) == {CLUSTER, endpoints.id}


def test_a_kept_cluster_keeps_its_endpoints() -> None:
    assembly = Assembly()
    endpoints = piece(Kind.ENDPOINTS, "c", CLUSTER)
    assembly.want([piece(Kind.CLUSTERS, "c"), endpoints, piece(Kind.ROUTE_TABLES, "t", CLUSTER)])
    settle(assembly)
    assembly.want([], removed=[CLUSTER, endpoints.id])
    settle(assembly)
    assert set(assembly.in_force) == {CLUSTER, TABLE, endpoints.id}
    assembly.want([], removed=[TABLE])
    settle(assembly)
    assert assembly.in_force == {}


def test_a_refused_piece_leaves_the_last_good_one_until_another_comes() -> None:
    assembly = Assembly()
    good = piece(Kind.CLUSTERS, "c")
    bad = piece(Kind.CLUSTERS, "c", body=1)
    assembly.want([good])
    settle(assembly)
    assembly.want([bad])
    assembly.refuse(bad, "no")
    settle(assembly)
    assert assembly.in_force[CLUSTER] == good
    assembly.want([bad])
    assert CLUSTER in assembly.refused
    better = piece(Kind.CLUSTERS, "c", body=2)
    assembly.want([better])
    settle(assembly)
    assert assembly.in_force[CLUSTER] == better
    assert assembly.refused == {}


def test_the_core_is_told_by_name_and_its_refusals_find_their_piece() -> None:
    assembly = Assembly()
    assembly.want([piece(Kind.CLUSTERS, "c"), piece(Kind.CLUSTERS, "b")])
    change = assembly.change_to(assembly.target())
    update = update_for(change, assembly.in_force, version="7")
    assert [entry["name"] for entry in update.body["clusters"]] == ["b", "c"]
    assert update.culprits("clusters[1].outlier.max_ejection_percent") == (
        (assembly.wanted[CLUSTER],),
        "outlier.max_ejection_percent",
    )
    for nobodys in ("listeners(public).route_table", "clusters[9]"):
        assert update.culprits(nobodys) == ((), nobodys)


NAMES = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("cluster"), NAMES, NAMES, st.integers(0, 2)),
        st.tuples(st.just("endpoints"), NAMES, NAMES, st.integers(0, 2)),
        st.tuples(st.just("table"), NAMES, NAMES, st.integers(0, 2)),
        st.tuples(st.just("listener"), NAMES, NAMES, st.integers(0, 2)),
        st.tuples(st.just("remove"), NAMES, st.sampled_from(list(Kind)), st.integers(0, 2)),
    ),
    max_size=30,
)


def step_piece(kind: str, name: str, other: str, body: int) -> Piece:
    match kind:
        case "cluster":
            return piece(Kind.CLUSTERS, name, body=body)
        case "endpoints":
            return piece(Kind.ENDPOINTS, name, PieceId(Kind.CLUSTERS, name), body=body)
        case "table":
            return piece(Kind.ROUTE_TABLES, name, PieceId(Kind.CLUSTERS, other), body=body)
        case _:
            return piece(Kind.LISTENERS, name, PieceId(Kind.ROUTE_TABLES, other), body=body)


@given(STEPS)
def test_what_is_in_force_always_refers_to_what_is_in_force(
    steps: list[tuple[str, str, str, int]],
) -> None:
    assembly = Assembly()
    for kind, name, other, body in steps:
        if kind == "remove":
            assembly.want([], removed=[PieceId(Kind(other), name)])
        else:
            assembly.want([step_piece(kind, name, other, body)])
        settle(assembly)
        for entry in assembly.in_force.values():
            assert entry.needs <= assembly.in_force.keys()
        # Settled means settled: nothing more to do until something else comes.
        assert not assembly.change_to(assembly.target())
        for piece_id, wanted in assembly.wanted.items():
            assert assembly.in_force.get(piece_id) == wanted or assembly.waiting(piece_id)
