"""Values that share what pydantic keeps beside them are the values that they were."""

from __future__ import annotations

from federation.model.base import slimmed
from federation.model.objects import ApiObject, EndpointSlice
from federation.wire.manifests import decode_value
from tests.testkit.big_cluster import probe_slice


def decoded(address: str) -> EndpointSlice:
    value = decode_value(probe_slice(address), origin="test")
    assert isinstance(value, EndpointSlice)
    return value


def given(value: ApiObject) -> set[str]:
    return value.metadata.__pydantic_fields_set__


def test_a_slimmed_value_is_equal_and_spelled_alike() -> None:
    assert slimmed(decoded("10.0.0.1")) == decoded("10.0.0.1")
    assert slimmed(decoded("10.0.0.1")).to_document() == decoded("10.0.0.1").to_document()


def test_values_of_one_form_share_their_names() -> None:
    one, other = slimmed(decoded("10.0.0.1")), slimmed(decoded("10.0.0.2"))
    assert given(one) is given(other)
    assert (
        one.endpoints[0].conditions.__pydantic_fields_set__
        is other.endpoints[0].conditions.__pydantic_fields_set__
    )


def test_a_copy_with_more_fields_changes_no_other_value() -> None:
    one, other = slimmed(decoded("10.0.0.1")), slimmed(decoded("10.0.0.2"))
    assert "uid" in given(one.with_metadata(uid="7"))
    assert "uid" not in given(other)
    assert slimmed(one.with_metadata(uid="7")).metadata.uid == "7"
    assert other.metadata.uid is None
