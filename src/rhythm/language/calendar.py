"""The calendar: milliseconds since 1970 as a date and a time of day, in UTC, and back. Numbers are doubles, as in Date.

The conversions between days and dates are those of Howard Hinnant's "chrono-compatible low-level date algorithms".
"""

from __future__ import annotations

import math
from typing import Final

from rhythm.language.numbers import to_integer

DAY_MS: Final = 86_400_000.0
MS_MAX: Final = 8.64e15  #: The first and last moment of Date lie this far from 1970.
_NAN: Final = math.nan


def _days_from_civil(year: int, month: int) -> int:
    """Days from 1970-01-01 to the first of a month (month 0 to 11), proleptic Gregorian calendar."""
    y = year - (month < 2)
    era = y // 400
    year_of_era = y - era * 400
    day_of_year = (153 * ((month + 10) % 12) + 2) // 5
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


def _civil_from_days(days: int) -> tuple[int, int, int]:
    """(year, month 0 to 11, day 1 to 31)."""
    z = days + 719468
    era = z // 146097
    day_of_era = z - era * 146097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 2 if shifted < 10 else shifted - 10
    return year_of_era + era * 400 + (month < 2), month, day_of_year - (153 * shifted + 2) // 5 + 1


def make_day(year: float, month: float, day: float) -> float:
    """MakeDay."""
    if not (math.isfinite(year) and math.isfinite(month) and math.isfinite(day)):
        return _NAN
    y, m, d = to_integer(year), to_integer(month), to_integer(day)
    whole_year = y + math.floor(m / 12.0)
    if abs(whole_year) > 400_000:
        return _NAN
    return _days_from_civil(int(whole_year), int(m % 12.0)) + d - 1.0


def make_time(hour: float, minute: float, second: float, ms: float) -> float:
    """MakeTime."""
    if not (math.isfinite(hour) and math.isfinite(minute) and math.isfinite(second) and math.isfinite(ms)):
        return _NAN
    return to_integer(hour) * 3_600_000.0 + to_integer(minute) * 60_000.0 + to_integer(second) * 1000.0 + to_integer(ms)


def time_clip(ms: float) -> float:
    """TimeClip."""
    if not abs(ms) <= MS_MAX:
        return _NAN
    return to_integer(ms) + 0.0


def make_date(day: float, time: float) -> float:
    """MakeDate."""
    return day * DAY_MS + time


class Parts:
    """A valid date taken apart."""

    __slots__ = ("day", "hour", "minute", "month", "ms", "second", "weekday", "year")

    def __init__(self, ms: float) -> None:
        days = math.floor(ms / DAY_MS)
        rest = int(ms - days * DAY_MS)
        self.year, self.month, self.day = _civil_from_days(days)
        self.weekday = (days + 4) % 7
        self.hour, rest = divmod(rest, 3_600_000)
        self.minute, rest = divmod(rest, 60_000)
        self.second, self.ms = divmod(rest, 1000)


def year_text(year: int, signed: bool) -> str:
    """A year with at least four digits; ``signed`` as in ISO texts, with six digits outside 0 to 9999."""
    if 0 <= year <= 9999:
        return f"{year:04}"
    if signed:
        return f"{'-' if year < 0 else '+'}{abs(year):06}"
    return f"-{-year:04}" if year < 0 else str(year)


def iso_text(ms: float) -> str:
    """toISOString of a valid date."""
    p = Parts(ms)
    year = year_text(p.year, True)
    return f"{year}-{p.month + 1:02}-{p.day:02}T{p.hour:02}:{p.minute:02}:{p.second:02}.{p.ms:03}Z"
