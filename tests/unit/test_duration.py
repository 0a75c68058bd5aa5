"""Durations: GEP-2257 and Go spellings, exact in milliseconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.model.duration import DURATION_MS_MAX, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("0s", 0),
        ("100ms", 100),
        ("30s", 30_000),
        ("1800s", 1_800_000),
        ("1h30m", 5_400_000),
        ("1h0m30s", 3_630_000),
        ("1.5s", 1_500),
        ("0.25m", 15_000),
        ("2000us", 2),
        ("99999h", DURATION_MS_MAX),
    ],
)
def test_reads_both_spellings(text: str, duration_ms: int) -> None:
    assert parse_duration(text) == duration_ms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'not a duration; write it like 100ms, 30s or 1h30m, got ""'),
        ("30", 'not a duration; write it like 100ms, 30s or 1h30m, got "30"'),
        ("-5s", 'not a duration; write it like 100ms, 30s or 1h30m, got "-5s"'),
        ("5 s", 'not a duration; write it like 100ms, 30s or 1h30m, got "5 s"'),
        ("5s\n", 'not a duration; write it like 100ms, 30s or 1h30m, got "5s\n"'),
        ("٣s", 'not a duration; write it like 100ms, 30s or 1h30m, got "٣s"'),
        ("500us", '"500us" is finer than a millisecond'),
        ("99999h1ms", '"99999h1ms" is longer than 99999h'),
    ],
)
def test_refuses_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared below
        parse_duration(text)
    assert str(caught.value) == message


@given(st.integers(min_value=0, max_value=DURATION_MS_MAX))
def test_formatting_and_reading_again_changes_nothing(duration_ms: int) -> None:
    assert parse_duration(format_duration(duration_ms)) == duration_ms


def test_formats_without_empty_units() -> None:
    assert format_duration(3_600_005) == "1h5ms"
    assert format_duration(0) == "0s"
