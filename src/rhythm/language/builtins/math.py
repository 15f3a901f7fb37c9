"""Math. Functions that ECMAScript leaves to the implementation give V8's results, to the last digit."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from rhythm.language import numbers_exp, numbers_trig
from rhythm.language.numbers import to_int32, to_uint32
from rhythm.language.numbers_bits import bits_of, of_bits
from rhythm.language.operators import power, to_number
from rhythm.language.values_types import UNDEFINED, Builtin, Namespace, Value, current_realm

_NAN = math.nan
_INF = math.inf


def _of_number(function: Callable[[float], float]) -> Callable[..., float]:
    """A builtin of one number, from a function of doubles that never raises."""

    def call(value: Value = UNDEFINED, *_: Value) -> float:
        return function(value if value.__class__ is float else to_number(value))

    return call


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    """floor, ceil, trunc: huge and special values stay as they are; the sign of zero is kept."""

    def call(x: float) -> float:
        if not abs(x) < 4503599627370496.0:
            return x
        return math.copysign(float(function(x)), x) if abs(x) < 1.0 or x == 0.0 else float(function(x))

    return call


def _round(x: float) -> float:
    if not abs(x) < 4503599627370496.0:
        return x
    whole = float(math.floor(x))
    result = whole + 1.0 if x - whole >= 0.5 else whole
    return math.copysign(result, x) if result == 0.0 else result


def _sign(x: float) -> float:
    return x if x != x or x == 0.0 else math.copysign(1.0, x)


def _cbrt(x: float) -> float:
    """The cube root as V8 computes it: fdlibm's s_cbrt.c in FreeBSD's form (a guess from the exponent, a polynomial to
    23 bits, one step of Newton's method)."""
    if x != x or x in (_INF, -_INF) or x == 0.0:
        return x
    size = abs(x)
    if size < 2.2250738585072014e-308:
        high = (bits_of(size * 2.0**54) >> 32) // 3 + 696219795
    else:
        high = (bits_of(size) >> 32) // 3 + 715094163
    t = of_bits(high << 32)
    r = (t * t) * (t / size)
    t *= (1.87595182427177009643 + r * (-1.88497979543377169875 + r * 1.621429720105354466140)) + ((r * r) * r) * (
        -0.758397934778766047437 + r * 0.145996192886612446982
    )
    t = of_bits((bits_of(t) + 0x80000000) & 0xFFFFFFFFC0000000)
    r = size / (t * t)
    r = (r - t) / (t + t + r)
    return math.copysign(t + t * r, x)


def _fround(x: float) -> float:
    if x != x or x in (_INF, -_INF):
        return x
    try:
        return float(struct.unpack("<f", struct.pack("<f", x))[0])
    except OverflowError:
        return math.copysign(_INF, x)


def _floor(x: float) -> float:
    if not abs(x) < 4503599627370496.0:
        return x
    result = float(math.floor(x))
    return math.copysign(result, x) if result == 0.0 else result


def _ceil(x: float) -> float:
    if not abs(x) < 4503599627370496.0:
        return x
    result = float(math.ceil(x))
    return math.copysign(result, x) if result == 0.0 else result


def _clz32(x: float) -> float:
    return float(32 - to_uint32(x).bit_length())


def _sqrt(x: float) -> float:
    return math.sqrt(x) if x >= 0.0 else _NAN


def _max(*values: Value) -> float:
    return _extreme(values, -_INF, 1.0)


def _min(*values: Value) -> float:
    return _extreme(values, _INF, -1.0)


def _extreme(values: tuple[Value, ...], start: float, direction: float) -> float:
    best = start
    failed = False
    for value in values:
        x = value if value.__class__ is float else to_number(value)
        if x != x:
            failed = True
        elif x * direction > best * direction or (x == best == 0.0 and math.copysign(1.0, x) * direction > 0):
            best = x
    return _NAN if failed else best


def _atan2(y: Value = UNDEFINED, x: Value = UNDEFINED, *_: Value) -> float:
    return numbers_trig.atan2(to_number(y), to_number(x))


def _hypot(*values: Value) -> float:
    numbers = [to_number(value) for value in values]
    if any(x in (_INF, -_INF) for x in numbers):
        return _INF
    largest = max((abs(x) for x in numbers), default=0.0)
    if largest != largest or any(x != x for x in numbers):
        return _NAN
    if largest == 0.0:
        return 0.0
    total = compensation = 0.0
    for x in numbers:
        part = (x / largest) * (x / largest) - compensation
        preliminary = total + part
        compensation = (preliminary - total) - part
        total = preliminary
    return math.sqrt(total) * largest


def _imul(a: Value = UNDEFINED, b: Value = UNDEFINED, *_: Value) -> float:
    return float(to_int32(float((to_int32(to_number(a)) * to_int32(to_number(b))) & 0xFFFFFFFF)))


def _pow(base: Value = UNDEFINED, exponent: Value = UNDEFINED, *_: Value) -> float:
    return power(base, exponent)


_ONE_ARGUMENT: dict[str, Callable[[float], float]] = {
    "abs": abs, "cbrt": _cbrt, "ceil": _ceil, "clz32": _clz32, "floor": _floor, "fround": _fround, "round": _round,
    "sign": _sign, "sqrt": _sqrt, "trunc": _whole(math.trunc),
    "exp": numbers_exp.exp, "expm1": numbers_exp.expm1, "log": numbers_exp.log, "log10": numbers_exp.log10,
    "log1p": numbers_exp.log1p, "log2": numbers_exp.log2, "sinh": numbers_exp.sinh, "cosh": numbers_exp.cosh,
    "tanh": numbers_exp.tanh, "asinh": numbers_exp.asinh, "acosh": numbers_exp.acosh, "atanh": numbers_exp.atanh,
    "sin": numbers_trig.sin, "cos": numbers_trig.cos, "tan": numbers_trig.tan, "asin": numbers_trig.asin,
    "acos": numbers_trig.acos, "atan": numbers_trig.atan,
}  # fmt: skip

MATH = Namespace(
    "Math",
    {
        **{name: Builtin(f"Math.{name}", _of_number(function)) for name, function in _ONE_ARGUMENT.items()},
        "atan2": Builtin("Math.atan2", _atan2),
        "hypot": Builtin("Math.hypot", _hypot),
        "imul": Builtin("Math.imul", _imul),
        "max": Builtin("Math.max", _max),
        "min": Builtin("Math.min", _min),
        "pow": Builtin("Math.pow", _pow),
        "random": Builtin("Math.random", lambda *_: float(current_realm().random())),
        "E": math.e,
        "LN10": 2.302585092994046,
        "LN2": 0.6931471805599453,
        "LOG10E": 0.4342944819032518,
        "LOG2E": 1.4426950408889634,
        "PI": math.pi,
        "SQRT1_2": 0.7071067811865476,
        "SQRT2": 1.4142135623730951,
    },
)
