from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhythm.durations import format_rate, format_seconds, parse_milliseconds, parse_rate, parse_seconds
from rhythm.errors import InvalidDuration


@pytest.mark.parametrize(
    ("given_value", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("7d", 604_800),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        (" 1.5s ", 1.5),
        ("12", 12),
        (0, 0),
        (2.5, 2.5),
        (timedelta(minutes=2), 120),
    ],
)
def test_durations_in_seconds(given_value: object, seconds: float) -> None:
    assert parse_seconds(given_value) == pytest.approx(seconds)  # type: ignore[arg-type]  # any shape a caller passes


@pytest.mark.parametrize(("given_value", "milliseconds"), [(250, 250), ("30s", 30_000), ("1m", 60_000)])
def test_a_bare_number_in_a_flow_is_milliseconds(given_value: object, milliseconds: float) -> None:
    assert parse_milliseconds(given_value) == pytest.approx(milliseconds)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    "given_value",
    ["", "abc", "5 minutes", "-5s", "1e3s", "٣s", "5m3", -1, float("nan"), float("inf"), True, None, [], "11y", 1e12],
)
def test_what_is_not_a_duration_is_refused(given_value: object) -> None:
    with pytest.raises(InvalidDuration):
        parse_seconds(given_value)  # type: ignore[arg-type]  # wrong on purpose


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        seconds = parse_seconds(text)
    except InvalidDuration:
        return

    assert seconds >= 0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.25, "250ms"), (3.2, "3.2s"), (30, "30s"), (59.96, "1m"), (310, "5m 10s"), (7380, "2h 3m"), (352_800, "4d 2h")],
)
def test_durations_for_people(seconds: float, shown: str) -> None:
    assert format_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/1m", (100, 60.0)), ("5/s", (5, 1.0)), (" 1 / 90s ", (1, 90.0)), ("10/500ms", (10, 0.5)), ("7/2", (7, 2.0))],
)
def test_rates(text: str, rate: tuple[int, float]) -> None:
    assert rate == parse_rate(text)
    assert rate == parse_rate(format_rate(*rate))


@pytest.mark.parametrize("text", ["", "5", "/1m", "5/", "0/1m", "5/0s", "-5/1m", "5.5/s", "5/32d", "2000000/s", "5/1y"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(InvalidDuration, match="is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["5", " 5 ", "1.5"])
def test_text_without_a_unit_is_none_in_flows_where_a_number_is_not_seconds(text: str) -> None:
    with pytest.raises(InvalidDuration, match="has no unit"):
        parse_milliseconds(text)
    assert float(text) == parse_seconds(text)
