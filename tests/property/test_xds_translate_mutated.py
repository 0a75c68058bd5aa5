"""Resources with random places changed: translated whole or refused with words, nothing else."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.xds_translate import Piece
from tests.fuzz.translation import check, resources


def test_what_is_not_changed_is_translated() -> None:
    for number in range(len(resources())):
        assert isinstance(check(number.to_bytes(2, "little")), Piece)


@settings(max_examples=300)
@given(st.binary(max_size=120))
@example(b"")
def test_translation_gives_a_piece_or_a_refusal(decisions: bytes) -> None:
    check(decisions)
