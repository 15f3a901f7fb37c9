"""Exponentials, logarithms and the hyperbolic functions as V8 computes them.

V8 does not use the C library here but a port of fdlibm (Sun Microsystems, 1993, in FreeBSD's form: e_exp.c, s_expm1.c,
e_log.c, s_log1p.c, e_log2.c, e_log10.c, e_sinh.c and their siblings), whose results differ from the correctly rounded
ones in the last digit for up to a tenth of all arguments. The algorithms here follow it step by step: an argument is
reduced by a multiple of ln 2, a polynomial gives the rest. Order and grouping of the operations are part of the
algorithm. Constants written as `_edge(0x3FD62E43)` are borders that fdlibm tests in the high half of the double.

Every function takes and gives doubles, and never raises.
"""

from __future__ import annotations

import math
from typing import Final

from rhythm.language.numbers_bits import clear_low
from rhythm.language.numbers_bits import of_high_word as _edge

_INFINITY: Final = math.inf
_NAN: Final = math.nan

_LN2: Final = 6.93147180559945286227e-01
_LN2_HI: Final = 6.93147180369123816490e-01
_LN2_LO: Final = 1.90821492927058770002e-10
_INVLN2: Final = 1.44269504088896338700e00
_OVERFLOW: Final = 7.09782712893383973096e02
_UNDERFLOW: Final = -7.45133219101941108420e02
_HYPERBOLIC_OVERFLOW: Final = 710.4758600739439

_HALF_LN2: Final = _edge(0x3FD62E43)
_ONE_AND_A_HALF_LN2: Final = _edge(0x3FF0A2B2)
_FIFTY_SIX_LN2: Final = _edge(0x4043687A)
_LOG_MAX: Final = _edge(0x40862E42)
_BEYOND_TWO28: Final = _edge(0x41B00001)
_BEYOND_TWO: Final = _edge(0x40000001)
_ONE_LESS_HALF_SQRT2: Final = _edge(0x3FD2BEC5)
_SQRT2_LESS_ONE: Final = _edge(0x3FDA827A)


def exp(x: float) -> float:
    """e ** x."""
    size = abs(x)
    k = 0
    high = low = 0.0
    if size >= _LOG_MAX:
        if x != x:
            return _NAN
        if x > _OVERFLOW:
            return _INFINITY
        if x < _UNDERFLOW:
            return 0.0
    if size >= _HALF_LN2:
        if size < _ONE_AND_A_HALF_LN2:
            if x == 1.0:
                return math.e
            k = 1 if x > 0.0 else -1
            high, low = x - k * _LN2_HI, k * _LN2_LO
        else:
            k = int(_INVLN2 * x + (0.5 if x > 0.0 else -0.5))
            high, low = x - k * _LN2_HI, k * _LN2_LO
        x = high - low
    elif size < 2.0**-28:
        return 1.0 + x
    t = x * x
    c = x - t * (
        1.66666666666666019037e-01
        + t
        * (
            -2.77777777770155933842e-03
            + t * (6.61375632143793436117e-05 + t * (-1.65339022054652515390e-06 + t * 4.13813679705723846039e-08))
        )
    )
    if k == 0:
        return 1.0 - ((x * c) / (c - 2.0) - x)
    y = 1.0 - ((low - (x * c) / (2.0 - c)) - high)
    if k == 1024:
        return y * 2.0 * 2.0**1023
    return y * 2.0**k if k >= -1021 else y * 2.0 ** (k + 1000) * 2.0**-1000


def expm1(x: float) -> float:
    """e ** x - 1."""
    size = abs(x)
    k = 0
    c = 0.0
    if size >= _FIFTY_SIX_LN2:
        if x != x:
            return _NAN
        if x > _OVERFLOW:
            return _INFINITY
        if x < 0.0:
            return -1.0
    if size >= _HALF_LN2:
        if size < _ONE_AND_A_HALF_LN2:
            k = 1 if x > 0.0 else -1
        else:
            k = int(_INVLN2 * x + (0.5 if x > 0.0 else -0.5))
        high, low = x - k * _LN2_HI, k * _LN2_LO
        x = high - low
        c = (high - x) - low
    elif size < 2.0**-54:
        return x
    half_x = 0.5 * x
    square = x * half_x
    r = 1.0 + square * (
        -3.33333333333331316428e-02
        + square
        * (
            1.58730158725481460165e-03
            + square
            * (
                -7.93650757867487942473e-05
                + square * (4.00821782732936239552e-06 + square * -2.01099218183624371326e-07)
            )
        )
    )
    t = 3.0 - r * half_x
    e = square * ((r - t) / (6.0 - x * t))
    if k == 0:
        return x - (x * e - square)
    e = x * (e - c) - c
    e -= square
    if k == -1:
        return 0.5 * (x - e) - 0.5
    if k == 1:
        return -2.0 * (e - (x + 0.5)) if x < -0.25 else 1.0 + 2.0 * (x - e)
    if k <= -2 or k > 56:
        y = 1.0 - (e - x)
        return (y * 2.0 * 2.0**1023 if k == 1024 else y * 2.0**k) - 1.0
    if k < 20:
        return (1.0 - 2.0**-k - (e - x)) * 2.0**k
    return (x - (e + 2.0**-k) + 1.0) * 2.0**k


def _normal(x: float) -> tuple[float, int, int]:
    """x = m * 2**k with m from sqrt(2)/2 to sqrt(2), for x > 0; and the first 20 bits of the fraction of x."""
    m, k = math.frexp(x)
    m *= 2.0
    k -= 1
    fraction = int((m - 1.0) * 1048576.0)
    if fraction + 0x95F64 & 0x100000:
        return m * 0.5, k + 1, fraction
    return m, k, fraction


def _log_series(s: float) -> float:
    """The series of log(1 + f), with s = f / (2 + f): what is added to f * f / 2."""
    z = s * s
    w = z * z
    t1 = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
    t2 = z * (
        6.666666666666735130e-01
        + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860510658591e-01))
    )
    return t2 + t1


def log(x: float) -> float:
    """The natural logarithm."""
    if not 0.0 < x < _INFINITY:
        return -_INFINITY if x == 0.0 else x if x > 0.0 else _NAN
    m, k, fraction = _normal(x)
    f = m - 1.0
    if 0x000FFFFF & (2 + fraction) < 3:
        if f == 0.0:
            return k * _LN2_HI + k * _LN2_LO if k else 0.0
        r = f * f * (0.5 - 0.33333333333333333 * f)
        return k * _LN2_HI - ((r - k * _LN2_LO) - f) if k else f - r
    s = f / (2.0 + f)
    r = _log_series(s)
    if (fraction - 0x6147A) | (0x6B851 - fraction) > 0:
        half = 0.5 * f * f
        return k * _LN2_HI - ((half - (s * (half + r) + k * _LN2_LO)) - f) if k else f - (half - s * (half + r))
    return k * _LN2_HI - ((s * (f - r) - k * _LN2_LO) - f) if k else f - s * (f - r)


def log1p(x: float) -> float:
    """log(1 + x)."""
    if not -1.0 < x < _INFINITY:
        return -_INFINITY if x == -1.0 else x if x > 0.0 else _NAN
    size = abs(x)
    if size < 2.0**-29:
        return x if size < 2.0**-54 else x - x * x * 0.5
    if -_ONE_LESS_HALF_SQRT2 < x < _SQRT2_LESS_ONE:
        k, f, c, is_small = 0, x, 0.0, False
    else:
        u = 1.0 + x if x < 2.0**53 else x
        m, k = math.frexp(u)
        m *= 2.0
        k -= 1
        c = 0.0
        if x < 2.0**53:
            c = (1.0 - (u - x) if k > 0 else x - (u - 1.0)) / u
        fraction = int((m - 1.0) * 1048576.0)
        if fraction < 0x6A09E:
            is_small = fraction == 0
        else:
            k += 1
            m *= 0.5
            is_small = (0x00100000 - fraction) >> 2 == 0
        f = m - 1.0
    half = 0.5 * f * f
    if is_small:
        if f == 0.0:
            return k * _LN2_HI + (c + k * _LN2_LO) if k else 0.0
        r = half * (1.0 - 0.66666666666666666 * f)
        return k * _LN2_HI - ((r - (k * _LN2_LO + c)) - f) if k else f - r
    s = f / (2.0 + f)
    z = s * s
    r = z * (
        6.666666666666735130e-01
        + z
        * (
            3.999999999940941908e-01
            + z
            * (
                2.857142874366239149e-01
                + z
                * (
                    2.222219843214978396e-01
                    + z * (1.818357216161805012e-01 + z * (1.531383769920937332e-01 + z * 1.479819860510658591e-01))
                )
            )
        )
    )
    if k == 0:
        return f - (half - s * (half + r))
    return k * _LN2_HI - ((half - (s * (half + r) + (k * _LN2_LO + c))) - f)


def log2(x: float) -> float:
    """The logarithm to base 2."""
    if not 0.0 < x < _INFINITY:
        return -_INFINITY if x == 0.0 else x if x > 0.0 else _NAN
    if x == 1.0:
        return 0.0
    m, k, _ = _normal(x)
    f = m - 1.0
    half = 0.5 * f * f
    s = f / (2.0 + f)
    r = s * (half + _log_series(s))
    high = clear_low(f - half)
    low = (f - high) - half + r
    value_high = high * 1.44269504072144627571e00
    value_low = (low + high) * 1.67517131648865118353e-10 + low * 1.44269504072144627571e00
    w = k + value_high
    value_low += (k - w) + value_high
    return value_low + w


def log10(x: float) -> float:
    """The logarithm to base 10."""
    if not 0.0 < x < _INFINITY:
        return -_INFINITY if x == 0.0 else x if x > 0.0 else _NAN
    if x == 1.0:
        return 0.0
    m, k = math.frexp(x)
    k -= 1
    below = k < 0
    y = k + below
    z = y * 3.69423907715893078616e-13 + 4.34294481903251816668e-01 * log(m if below else m * 2.0)
    return z + y * 3.01029995663611771306e-01


def sinh(x: float) -> float:
    """The hyperbolic sine."""
    half = -0.5 if x < 0.0 else 0.5
    size = abs(x)
    if size < 22.0:
        if size < 2.0**-28:
            return x
        t = expm1(size)
        return half * (2.0 * t - t * t / (t + 1.0)) if size < 1.0 else half * (t + t / (t + 1.0))
    if size < _LOG_MAX:
        return half * exp(size)
    if size <= _HYPERBOLIC_OVERFLOW:
        w = exp(0.5 * size)
        t = half * w
        return t * w
    return x * _INFINITY


def cosh(x: float) -> float:
    """The hyperbolic cosine."""
    size = abs(x)
    if size < _HALF_LN2:
        t = expm1(size)
        w = 1.0 + t
        return w if size < 2.0**-55 else 1.0 + (t * t) / (w + w)
    if size < 22.0:
        t = exp(size)
        return 0.5 * t + 0.5 / t
    if size < _LOG_MAX:
        return 0.5 * exp(size)
    if size <= _HYPERBOLIC_OVERFLOW:
        w = exp(0.5 * size)
        t = 0.5 * w
        return t * w
    return x * x if x != x else _INFINITY


def tanh(x: float) -> float:
    """The hyperbolic tangent."""
    size = abs(x)
    if x != x:
        return _NAN
    if size < 2.0**-28:
        return x
    if size >= 22.0:
        z = 1.0
    elif size >= 1.0:
        z = 1.0 - 2.0 / (expm1(2.0 * size) + 2.0)
    else:
        t = expm1(-2.0 * size)
        z = -t / (t + 2.0)
    return math.copysign(z, x)


def asinh(x: float) -> float:
    """The inverse of sinh."""
    size = abs(x)
    if not size < _INFINITY or size < 2.0**-28:
        return x
    if size >= _BEYOND_TWO28:
        w = log(size) + _LN2
    elif size >= _BEYOND_TWO:
        w = log(2.0 * size + 1.0 / (math.sqrt(x * x + 1.0) + size))
    else:
        t = x * x
        w = log1p(size + t / (1.0 + math.sqrt(1.0 + t)))
    return math.copysign(w, x)


def acosh(x: float) -> float:
    """The inverse of cosh."""
    if not x >= 1.0:
        return _NAN
    if x >= 2.0**28:
        return x if x == _INFINITY else log(x) + _LN2
    if x == 1.0:
        return 0.0
    if x >= _BEYOND_TWO:
        t = x * x
        return log(2.0 * x - 1.0 / (x + math.sqrt(t - 1.0)))
    t = x - 1.0
    return log1p(t + math.sqrt(2.0 * t + t * t))


def atanh(x: float) -> float:
    """The inverse of tanh."""
    size = abs(x)
    if not size < 1.0:
        return math.copysign(_INFINITY, x) if size == 1.0 else _NAN
    if size < 2.0**-28:
        return x
    if size < 0.5:
        t = size + size
        t = 0.5 * log1p(t + t * size / (1.0 - size))
    else:
        t = 0.5 * log1p((size + size) / (1.0 - size))
    return math.copysign(t, x)
