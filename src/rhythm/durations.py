"""Durations: text like "500ms", "30s", "5m", "2h", "7d", plain numbers, and timedelta.

A plain number is seconds in Python, in configuration and on the command line, and milliseconds in
``.flow`` files, as JavaScript developers expect; callers choose the function that fits. Several parts
may follow each other ("1h30m"). Negative, infinite and absurd values are refused here, once.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

from rhythm.errors import InvalidDuration

SECONDS_MAX = 10 * 366 * 86_400.0  #: ten years; longer waits are a mistake
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.ASCII)
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:ms|s|m|h|d|w)\s*)+", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_TEXT_MAX = 64

_RATE = re.compile(r"([0-9]{1,12})\s*/\s*(\S.*)", re.ASCII)
RATE_MAX = 1_000_000  #: of one period
PERIOD_SECONDS_MIN, PERIOD_SECONDS_MAX = 0.001, 31 * 86_400.0  #: of a rate

Duration = str | int | float | timedelta


def parse_seconds(value: Duration, *, number_unit: float = 1.0) -> float:
    """The duration in seconds.

    ``number_unit`` is what one plain number is worth in seconds: 1.0 by default, 0.001 in flows.
    Raises InvalidDuration for anything that is not a finite duration between 0 and ten years.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, bool):
        raise InvalidDuration(f"{value!r} is not a duration; write for example 30, '30s' or '5m'")
    elif isinstance(value, int | float):
        seconds = float(value) * number_unit
    elif isinstance(value, str):
        seconds = _parse_text(value, number_unit)
    else:
        raise InvalidDuration(f"a {type(value).__name__} is not a duration; write for example 30, '30s' or '5m'")
    if not math.isfinite(seconds) or seconds < 0 or seconds > SECONDS_MAX:
        raise InvalidDuration(f"{value!r} is not between zero and ten years")
    return seconds


def parse_milliseconds(value: Duration) -> float:
    """The duration in milliseconds, a plain number counting as milliseconds (the rule of ``.flow`` files).

    Raises InvalidDuration as ``parse_seconds``, and for text without a unit, which elsewhere would be seconds.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        raise InvalidDuration(
            f"{value[:_TEXT_MAX]!r} has no unit; write for example '5s', or a number for milliseconds"
        )
    return parse_seconds(value, number_unit=0.001) * 1000.0


def parse_rate(value: str) -> tuple[int, float]:
    """How many in how many seconds: "100/1m" is (100, 60.0); a unit alone counts once, so "5/s" is (5, 1.0).

    Raises InvalidDuration for anything but a whole number from 1 to a million, "/", and a period of 1 ms to 31 days.
    """
    example = "write for example '100/1m' or '5/s'"
    found = _RATE.fullmatch(value.strip()) if len(value) <= _TEXT_MAX else None
    if found is None:
        raise InvalidDuration(f"{value!r:.100} is not a rate; {example}")
    count, period = int(found[1]), found[2]
    try:
        seconds = _UNITS[period] if period in _UNITS else parse_seconds(period)
    except InvalidDuration:
        raise InvalidDuration(f"{value!r} is not a rate: {period!r} is not a period; {example}") from None
    if not 1 <= count <= RATE_MAX:
        raise InvalidDuration(f"{value!r} is not a rate: it lets from 1 to {RATE_MAX:,} pass in one period")
    if not PERIOD_SECONDS_MIN <= seconds <= PERIOD_SECONDS_MAX:
        raise InvalidDuration(f"{value!r} is not a rate: its period is from 1 ms to 31 days")
    return count, seconds


def format_rate(count: int, seconds: float) -> str:
    """A rate for people, as ``parse_rate`` reads it: "100/1m"."""
    return f"{count}/{format_seconds(seconds)}"


def _parse_text(value: str, number_unit: float) -> float:
    text = value.strip()
    if len(text) <= _TEXT_MAX:
        if _NUMBER.fullmatch(text):
            return float(text) * number_unit
        if _WHOLE.fullmatch(text):
            return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    raise InvalidDuration(
        f"{value[:_TEXT_MAX]!r} is not a duration; write for example '500ms', '30s', '5m', '2h', '7d'"
    )


def format_seconds(seconds: float) -> str:
    """A duration for people: "250ms", "3.2s", "5m 10s", "2h 3m", "4d 2h"."""
    if seconds < 0.9995:
        return f"{round(seconds * 1000)}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f" {rest}{smaller_unit}" if rest else "")
    return f"{whole}s"
