"""Number, Boolean, and the global functions that read numbers."""

from __future__ import annotations

import math

from rhythm.language.builtins.support import integer, unsupported
from rhythm.language.numbers import (
    number_to_string,
    parse_float,
    parse_int,
    to_exponential,
    to_fixed,
    to_int32,
    to_precision,
    to_radix,
)
from rhythm.language.operators import to_number, to_string, truthy
from rhythm.language.values_types import OBJECT_TAGS, UNDEFINED, Builtin, Value, register_methods, throw_range_error

_NOT_FINITE = (math.inf, -math.inf)


def _fixed(number: float, digits: Value = UNDEFINED, *_: Value) -> str:
    count = integer(digits)
    if not 0 <= count <= 100:
        throw_range_error("toFixed() digits argument must be between 0 and 100")
    if number != number or number in _NOT_FINITE or abs(number) >= 1e21:
        return number_to_string(number)
    return to_fixed(number, int(count))


def _exponential(number: float, digits: Value = UNDEFINED, *_: Value) -> str:
    count = integer(digits)
    if number != number or number in _NOT_FINITE:
        return number_to_string(number)
    if not 0 <= count <= 100:
        throw_range_error("toExponential() argument must be between 0 and 100")
    return to_exponential(number, None if digits is UNDEFINED else int(count))


def _precision(number: float, digits: Value = UNDEFINED, *_: Value) -> str:
    if digits is UNDEFINED:
        return number_to_string(number)
    count = integer(digits)
    if number != number or number in _NOT_FINITE:
        return number_to_string(number)
    if not 1 <= count <= 100:
        throw_range_error("toPrecision() argument must be between 1 and 100")
    return to_precision(number, int(count))


def _text(number: float, radix: Value = UNDEFINED, *_: Value) -> str:
    base = 10.0 if radix is UNDEFINED else integer(radix)
    if not 2 <= base <= 36:
        throw_range_error("toString() radix argument must be between 2 and 36")
    if base == 10 or number != number or number in _NOT_FINITE:
        return number_to_string(number)
    return to_radix(number, int(base))


_LOCALE = unsupported("`.toLocaleString` depends on a locale; format for people in a task")
register_methods(
    float,
    "Number",
    {
        "toFixed": _fixed, "toExponential": _exponential, "toPrecision": _precision, "toString": _text,
        "valueOf": lambda number, *_: number, "toLocaleString": _LOCALE,
    },
)  # fmt: skip
register_methods(
    bool, "Boolean", {"toString": lambda value, *_: "true" if value else "false", "valueOf": lambda value, *_: value}
)


def _is_integer(value: Value) -> bool:
    return value.__class__ is float and bool(value.is_integer())


def _parse_float(text: Value = UNDEFINED, *_: Value) -> float:
    return parse_float(text if text.__class__ is str else to_string(text))


def _parse_int(text: Value = UNDEFINED, radix: Value = UNDEFINED, *_: Value) -> float:
    shown = text if text.__class__ is str else to_string(text)
    return parse_int(shown, 0 if radix is UNDEFINED else to_int32(to_number(radix)))


PARSE_FLOAT = Builtin("parseFloat", _parse_float)
PARSE_INT = Builtin("parseInt", _parse_int)
IS_NAN = Builtin("isNaN", lambda value=UNDEFINED, *_: math.isnan(to_number(value)))
IS_FINITE = Builtin("isFinite", lambda value=UNDEFINED, *_: math.isfinite(to_number(value)))


def _is_finite(value: Value = UNDEFINED, *_: Value) -> bool:
    return value.__class__ is float and math.isfinite(value)


def _number(*arguments: Value) -> float:
    return to_number(arguments[0]) if arguments else 0.0


NUMBER = Builtin(
    "Number",
    _number,
    construct=unsupported("`new Number` is not available in flows; write Number(value)"),
    is_instance=lambda value: False,
    members={
        "isFinite": Builtin("Number.isFinite", _is_finite),
        "isInteger": Builtin("Number.isInteger", lambda value=UNDEFINED, *_: _is_integer(value)),
        "isNaN": Builtin("Number.isNaN", lambda value=UNDEFINED, *_: value.__class__ is float and bool(value != value)),
        "isSafeInteger": Builtin(
            "Number.isSafeInteger", lambda value=UNDEFINED, *_: _is_integer(value) and abs(value) < 2.0**53
        ),
        "parseFloat": PARSE_FLOAT,
        "parseInt": PARSE_INT,
        "EPSILON": 2.0**-52,
        "MAX_SAFE_INTEGER": 2.0**53 - 1,
        "MIN_SAFE_INTEGER": 1 - 2.0**53,
        "MAX_VALUE": 1.7976931348623157e308,
        "MIN_VALUE": 5e-324,
        "NaN": math.nan,
        "NEGATIVE_INFINITY": -math.inf,
        "POSITIVE_INFINITY": math.inf,
    },
)
BOOLEAN = Builtin(
    "Boolean",
    lambda value=UNDEFINED, *_: truthy(value),
    construct=unsupported("`new Boolean` is not available in flows; write Boolean(value)"),
    is_instance=lambda value: False,
)
OBJECT_TAGS[float], OBJECT_TAGS[bool] = "Number", "Boolean"
