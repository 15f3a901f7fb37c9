"""Date, in the one time zone flows know: UTC. Dates are whole milliseconds since 1970, or NaN."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

from rhythm.language.builtins.support import unsupported
from rhythm.language.calendar import DAY_MS, Parts, iso_text, make_date, make_day, make_time, time_clip, year_text
from rhythm.language.numbers import to_integer
from rhythm.language.operators import DEFAULT_TEXT, to_number, to_primitive, to_string
from rhythm.language.values_types import (
    UNDEFINED,
    Builtin,
    JSDate,
    UnsupportedError,
    Value,
    current_realm,
    register_methods,
    throw_range_error,
)

_NAN: Final = math.nan
_ISO: Final = re.compile(
    r"(?P<year>\d{4}|[+-]\d{6})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d))?)?"
    r"(?:T(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?(?P<zone>Z|[+-]\d\d:\d\d)?)?",
    re.ASCII,
)
_DAYS: Final = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_YEAR: Final = r"(?P<year>[1-9]\d{3}|0[1-9]\d\d)"  #: V8 takes the years to 99 for later ones.
_CLOCK: Final = r"(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d):(?P<second>[0-5]\d)"
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_WEEKDAY: Final = f"(?:{'|'.join(_DAYS)})"
_OWN: Final = re.compile(
    rf"{_WEEKDAY} {_MONTH} (?P<day>\d\d) {_YEAR}(?: {_CLOCK} GMT\+0000 \(Coordinated Universal Time\))?", re.ASCII
)
_OWN_UTC: Final = re.compile(rf"{_WEEKDAY}, (?P<day>\d\d) {_MONTH} {_YEAR} {_CLOCK} GMT", re.ASCII)


# Text ---------------------------------------------------------------------------------------------


def _date_text(date: JSDate, *_: Value) -> str:
    if date.ms != date.ms:
        return "Invalid Date"
    p = Parts(date.ms)
    return f"{_DAYS[p.weekday]} {_MONTHS[p.month]} {p.day:02} {year_text(p.year, False)}"


def _time_text(date: JSDate, *_: Value) -> str:
    if date.ms != date.ms:
        return "Invalid Date"
    p = Parts(date.ms)
    return f"{p.hour:02}:{p.minute:02}:{p.second:02} GMT+0000 (Coordinated Universal Time)"


def _text(date: JSDate, *_: Value) -> str:
    return "Invalid Date" if date.ms != date.ms else f"{_date_text(date)} {_time_text(date)}"


def _utc_text(date: JSDate, *_: Value) -> str:
    if date.ms != date.ms:
        return "Invalid Date"
    p = Parts(date.ms)
    year = year_text(p.year, False)
    return f"{_DAYS[p.weekday]}, {p.day:02} {_MONTHS[p.month]} {year} {p.hour:02}:{p.minute:02}:{p.second:02} GMT"


def _iso(date: JSDate, *_: Value) -> str:
    if date.ms != date.ms:
        throw_range_error("Invalid time value")
    return iso_text(date.ms)


def _to_json(date: JSDate, *_: Value) -> Value:
    return None if date.ms != date.ms else iso_text(date.ms)


def parse_date(text: str) -> float:
    """Milliseconds of an ISO date text, or of what a Date itself writes; NaN for one with impossible parts.

    UnsupportedError for other texts.
    """
    match = _ISO.fullmatch(text)
    if match is None or match["year"] == "-000000":
        own = _parse_own(text)
        if own is not None:
            return own
        if text in ("", "Invalid Date") or not any(character.isdigit() for character in text):
            return _NAN
        raise UnsupportedError(f"the date text {text[:40]!r} is not in ISO form; write it like 2026-01-31T10:00:00Z")
    month, day = int(match["month"] or 1), int(match["day"] or 1)
    hour, minute, second = int(match["hour"] or 0), int(match["minute"] or 0), int(match["second"] or 0)
    ms = float(((match["fraction"] or "") + "000")[:3])
    if not (1 <= month <= 12 and 1 <= day <= 31 and minute < 60 and second < 60):
        return _NAN
    if hour > 24 or (hour == 24 and (minute or second or ms)):
        return _NAN
    time = make_time(float(hour), float(minute), float(second), ms)
    zone = match["zone"]
    if zone and zone != "Z":
        offset = int(zone[1:3]) * 60 + int(zone[4:6])
        if int(zone[1:3]) > 23 or int(zone[4:6]) > 59:
            return _NAN
        time -= (offset if zone[0] == "+" else -offset) * 60_000.0
    return time_clip(make_date(make_day(float(match["year"]), month - 1.0, float(day)), time))


def _parse_own(text: str) -> float | None:
    """Milliseconds of a text of toString, toUTCString or toDateString, with a year of four digits; None for others."""
    match = _OWN.fullmatch(text) or _OWN_UTC.fullmatch(text)
    if match is None or not 1 <= int(match["day"]) <= 31:
        return None
    day = make_day(float(match["year"]), float(_MONTHS.index(match["month"])), float(match["day"]))
    hour, minute, second = (float(match[name] or 0) for name in ("hour", "minute", "second"))
    return make_date(day, make_time(hour, minute, second, 0.0))


# Getters and setters ------------------------------------------------------------------------------


def _getter(part: str) -> Callable[..., float]:
    def get(date: JSDate, *_: Value) -> float:
        return _NAN if date.ms != date.ms else float(getattr(Parts(date.ms), part))

    return get


_TIME_PARTS: Final = ("hour", "minute", "second", "ms")
_DATE_PARTS: Final = ("year", "month", "day")


def _time_setter(first: str) -> Callable[..., float]:
    start = _TIME_PARTS.index(first)

    def set_time(date: JSDate, part: Value = UNDEFINED, *rest: Value) -> float:
        given = to_number(part)
        ms = date.ms  # read now: after the first argument, before the others, which V8 skips for an invalid date
        if ms != ms:
            return _NAN
        parts = Parts(ms)
        values = [float(getattr(parts, name)) for name in _TIME_PARTS]
        values[start] = given
        for place, value in zip(range(start + 1, len(values)), rest, strict=False):
            values[place] = to_number(value)
        date.ms = time_clip(make_date(math.floor(ms / DAY_MS), make_time(*values)))
        return date.ms

    return set_time


def _date_setter(first: str) -> Callable[..., float]:
    start = _DATE_PARTS.index(first)

    def set_date(date: JSDate, part: Value = UNDEFINED, *rest: Value) -> float:
        given = to_number(part)
        ms = date.ms  # as above; a year makes an invalid date valid
        if ms != ms:
            if first != "year":
                return _NAN
            ms = 0.0
        parts = Parts(ms)
        values = [float(getattr(parts, name)) for name in _DATE_PARTS]
        values[start] = given
        for place, value in zip(range(start + 1, len(values)), rest, strict=False):
            values[place] = to_number(value)
        date.ms = time_clip(make_date(make_day(*values), ms - math.floor(ms / DAY_MS) * DAY_MS))
        return date.ms

    return set_date


def _set_year(date: JSDate, year: Value = UNDEFINED, *_: Value) -> float:
    given = to_number(year)
    if 0 <= to_integer(given) <= 99 and given == given:
        given = 1900.0 + to_integer(given)
    return _SETTERS["FullYear"](date, given)


def _set_time(date: JSDate, ms: Value = UNDEFINED, *_: Value) -> float:
    date.ms = time_clip(to_number(ms))
    return date.ms


def _get_year(date: JSDate, *_: Value) -> float:
    return _NAN if date.ms != date.ms else Parts(date.ms).year - 1900.0


_GETTERS = {
    "FullYear": "year", "Month": "month", "Date": "day", "Day": "weekday", "Hours": "hour", "Minutes": "minute",
    "Seconds": "second", "Milliseconds": "ms",
}  # fmt: skip
_SETTERS = {
    "FullYear": _date_setter("year"), "Month": _date_setter("month"), "Date": _date_setter("day"),
    "Hours": _time_setter("hour"), "Minutes": _time_setter("minute"), "Seconds": _time_setter("second"),
    "Milliseconds": _time_setter("ms"),
}  # fmt: skip
_LOCALE = unsupported("`.toLocaleString` and its siblings depend on a locale; format for people in a task")
register_methods(
    JSDate,
    "Date",
    {
        **{f"get{zone}{name}": _getter(part) for name, part in _GETTERS.items() for zone in ("", "UTC")},
        **{f"set{zone}{name}": setter for name, setter in _SETTERS.items() for zone in ("", "UTC")},
        "getTime": lambda date, *_: date.ms,
        "valueOf": lambda date, *_: date.ms,
        "setTime": _set_time,
        "getTimezoneOffset": lambda date, *_: _NAN if date.ms != date.ms else 0.0,
        "getYear": _get_year,
        "setYear": _set_year,
        "toISOString": _iso,
        "toJSON": _to_json,
        "toString": _text,
        "toDateString": _date_text,
        "toTimeString": _time_text,
        "toUTCString": _utc_text,
        "toGMTString": _utc_text,
        "toLocaleString": _LOCALE,
        "toLocaleDateString": _LOCALE,
        "toLocaleTimeString": _LOCALE,
    },
)
DEFAULT_TEXT[JSDate] = _text


# Date itself --------------------------------------------------------------------------------------


def _from_fields(arguments: tuple[Value, ...]) -> float:
    values = [to_number(value) for value in arguments[:7]]
    year, month, day, hour, minute, second, ms = [*values, *(0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0)[len(values) :]]
    if year == year and 0 <= to_integer(year) <= 99:
        year = 1900.0 + to_integer(year)
    return time_clip(make_date(make_day(year, month, day), make_time(hour, minute, second, ms)))


def _new(*arguments: Value) -> JSDate:
    if not arguments:
        return JSDate(math.floor(current_realm().now_ms()) + 0.0)
    if len(arguments) > 1:
        return JSDate(_from_fields(arguments))
    value = arguments[0]
    if value.__class__ is JSDate:
        return JSDate(value.ms)
    value = to_primitive(value, "default")
    return JSDate(parse_date(value) if value.__class__ is str else time_clip(to_number(value)))


def _utc(*arguments: Value) -> float:
    return _from_fields(arguments or (UNDEFINED,))


def _parse(text: Value = UNDEFINED, *_: Value) -> float:
    value = to_primitive(text, "string")
    return parse_date(value if value.__class__ is str else to_string(value))


DATE = Builtin(
    "Date",
    lambda *_: _text(_new()),
    construct=_new,
    is_instance=lambda value: value.__class__ is JSDate,
    members={
        "now": Builtin("Date.now", lambda *_: math.floor(current_realm().now_ms()) + 0.0),
        "UTC": Builtin("Date.UTC", _utc),
        "parse": Builtin("Date.parse", _parse),
    },
)
