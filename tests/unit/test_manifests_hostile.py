"""Whatever the text, reading it ends in objects and sentences, never in an exception."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.model.objects import ApiObject
from federation.wire.manifests import Rejected, Skipped, decode_all, decode_value, parse_documents

MANIFESTS = Path(__file__).parent.parent / "manifests"
VALID: list[dict[str, Any]] = [
    raw for file in sorted(MANIFESTS.glob("*.yaml")) for raw in yaml.safe_load_all(file.read_text())
]

SCALARS: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=10),
    st.floats(allow_nan=False, allow_infinity=False),
)
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


def paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a JSON value."""
    inside: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [path, *(found for key, part in inside for found in paths(part, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> object:
    """A valid manifest with one value replaced by any other."""
    raw = copy.deepcopy(draw(st.sampled_from(VALID)))
    path = draw(st.sampled_from([found for found in paths(raw) if found]))
    place: Any = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = draw(JSON_VALUES)
    return raw


@given(st.text(alphabet="abc:-[]{}\n\t #&*!|>'\"%,?.<~0123\x00\ufeff", max_size=200))
def test_any_text_is_read(text: str) -> None:
    decoded = decode_all(parse_documents(text, origin="t"))
    assert all(entry.message for entry in decoded.rejected)


@given(mutated())
@settings(max_examples=300)
def test_any_value_anywhere_is_judged(raw: dict[str, Any]) -> None:
    outcome = decode_value(raw, origin="t")
    if isinstance(outcome, ApiObject):
        assert decode_value(outcome.to_document(), origin="t") == outcome
    elif isinstance(outcome, Rejected):
        assert outcome.message.startswith("t: ")
    else:
        assert isinstance(outcome, Skipped)


@given(mutated())
def test_text_and_value_are_judged_alike(raw: dict[str, Any]) -> None:
    by_value = decode_value(json.loads(json.dumps(raw)), origin="t")
    by_text = decode_all(parse_documents(json.dumps(raw), origin="t"))
    if isinstance(by_value, ApiObject):
        assert by_text.objects == (by_value,)
    else:
        assert by_text.objects == ()
