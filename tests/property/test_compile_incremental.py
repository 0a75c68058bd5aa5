"""Whatever was derived before, the result is that of deriving anew."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.derive.compile import CompileInputs, Compiler, compile_cluster
from federation.derive.exports import FactDeriver, derive_facts
from federation.model.base import Region
from federation.model.objects import ApiObject, ObjectKey, ObjectSnapshot
from federation.model.view import FederationView
from tests.testkit.random_clusters import clusters, federations
from tests.testkit.routing import WEST

Objects = Mapping[ObjectKey, ApiObject]

BOUNDED = settings(max_examples=80)
"""Each draws two clusters and two federations, and compiles up to a dozen times."""

pytestmark = pytest.mark.timeout(240)


def inputs(objects: Objects, view: FederationView) -> CompileInputs:
    snapshot = ObjectSnapshot(objects, synced=True)
    return CompileInputs(cluster=WEST, region=Region(WEST), objects=snapshot, view=view)


@st.composite
def changed(draw: st.DrawFn, objects: Objects, others: Objects) -> Objects:
    """``objects`` with some taken from ``others``, some gone and some replaced by equal copies."""
    found = dict(objects)
    for key in draw(st.lists(st.sampled_from(sorted(others)), max_size=3)):
        found[key] = others[key]
    touched = st.lists(st.sampled_from(sorted(found)), max_size=2, unique=True)
    for key in draw(touched) if found else ():
        if draw(st.booleans()):
            del found[key]
        else:
            found[key] = found[key].with_creation_order(found[key].creation_order)
    return found


@given(st.data(), clusters(), clusters(), federations(), federations())
@BOUNDED
def test_successive_compilations_are_those_of_each_input_alone(
    data: st.DataObject,
    objects: Objects,
    others: Objects,
    view: FederationView,
    new: FederationView,
) -> None:
    compiler = Compiler()
    assert compiler.compile(inputs(objects, view)) == compile_cluster(inputs(objects, view))
    for _ in range(data.draw(st.integers(1, 5))):
        objects = data.draw(changed(objects, others))
        view = data.draw(st.sampled_from([view, view, view, new]))
        found, fresh = (
            compiler.compile(inputs(objects, view)),
            compile_cluster(inputs(objects, view)),
        )
        assert found.snapshot == fresh.snapshot
        assert found.statuses == fresh.statuses
        assert list(found.statuses) == list(fresh.statuses)


@given(clusters(), federations())
@BOUNDED
def test_nothing_is_made_twice_for_the_same_inputs(objects: Objects, view: FederationView) -> None:
    compiler = Compiler()
    first = compiler.compile(inputs(objects, view))
    again = compiler.compile(inputs(dict(objects), view))
    assert not any(compiler.made.values()), compiler
    assert again.statuses is first.statuses
    assert again.snapshot.endpoint_sets is first.snapshot.endpoint_sets


@given(st.data(), clusters(), clusters(), federations(), federations())
@BOUNDED
def test_successive_facts_are_those_of_each_snapshot_alone(
    data: st.DataObject,
    objects: Objects,
    others: Objects,
    view: FederationView,
    new: FederationView,
) -> None:
    deriver = FactDeriver(WEST, Region(WEST))
    for _ in range(data.draw(st.integers(1, 6))):
        snapshot = ObjectSnapshot(objects, synced=True)
        found = deriver.derive(snapshot, view.exports)
        fresh = derive_facts(
            cluster=WEST, region=Region(WEST), objects=snapshot, exported=tuple(view.exports)
        )
        assert found == fresh
        assert list(found.exports) == list(fresh.exports)
        objects = data.draw(changed(objects, others))
        view = data.draw(st.sampled_from([view, new]))
