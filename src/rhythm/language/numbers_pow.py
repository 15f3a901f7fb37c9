"""``a ** b`` as V8 computes it.

V8 does not use the C library's pow but a port of fdlibm's (e_pow.c, Sun Microsystems, 1993), whose result differs from
the correctly rounded one in the last digit for about a tenth of all arguments. The algorithm here follows it: log2(x)
in two pieces by a table-driven reduction and a polynomial, times y in two pieces, and 2 to that power. Its special
cases are those of ECMAScript.

    x = 2**n (1 + f);  log2(x) = n + log2(1 + f) = w1 + w2, w1 with its low half cleared
    y * log2(x) = n' + y', |y'| <= 0.5;  x**y = 2**n' * 2**y'
"""

from __future__ import annotations

import math
from typing import Final

from rhythm.language.numbers_bits import clear_low, high_word, with_high

_BP: Final = (1.0, 1.5)
_DP_H: Final = (0.0, 5.84962487220764160156e-01)
_DP_L: Final = (0.0, 1.35003920212974897128e-08)
_L: Final = (
    5.99999999999994648725e-01,
    4.28571428578550184252e-01,
    3.33333329818377432918e-01,
    2.72728123808534006489e-01,
    2.30660745775561754067e-01,
    2.06975017800338417784e-01,
)
_P: Final = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
_LG2: Final = 6.93147180559945286227e-01
_LG2_H: Final = 6.93147182464599609375e-01
_LG2_L: Final = -1.90465429995776804525e-09
_OVT: Final = 8.0085662595372944372e-17  #: -(1024 - log2(ovfl + .5ulp))
_CP: Final = 9.61796693925975554329e-01  #: 2 / (3 ln 2)
_CP_H: Final = 9.61796700954437255859e-01
_CP_L: Final = -7.02846165095275826516e-09
_IVLN2: Final = 1.44269504088896338700e00
_IVLN2_H: Final = 1.44269502162933349609e00
_IVLN2_L: Final = 1.92596299112661746887e-08
_TWO53: Final = 9007199254740992.0
_INFINITY: Final = math.inf


def power_of(x: float, y: float) -> float:
    """``x ** y`` for doubles."""
    if y == 2.0:
        return x * x
    if y == 0.0:
        return 1.0
    if x != x or y != y:
        return math.nan
    if y == 1.0:
        return x
    if y == 0.5 and x >= 0.0:
        return math.sqrt(x + 0.0) if x < _INFINITY else x
    if y == -1.0 and x != 0.0:
        return 1.0 / x
    if y in (_INFINITY, -_INFINITY):
        size = abs(x)
        if size == 1.0:
            return math.nan
        return _INFINITY if (size > 1.0) == (y > 0.0) else 0.0
    if x.is_integer() and y.is_integer() and 0.0 < y < 1100.0:
        exact = _exact(x, y)
        if exact is not None:
            return exact
    return _power(x, y)


def _exact(x: float, y: float) -> float | None:
    """The power of whole numbers when it is exact."""
    size = abs(x)
    if size > 1.0 and math.log2(size) * y > 53.5:
        return None
    result = int(x) ** int(y) if size > 1.0 else None
    if result is None:
        return None
    return float(result) if abs(result) < 9007199254740992 else None


def _is_odd(y: float) -> bool:
    return abs(y) < _TWO53 and y.is_integer() and int(y) & 1 == 1


def _power(x: float, y: float) -> float:
    ax = abs(x)
    negative_x = math.copysign(1.0, x) < 0.0
    if ax in (0.0, 1.0, _INFINITY):
        if ax == 0.0:
            z = 0.0 if y > 0.0 else _INFINITY
        elif ax == 1.0:
            z = 1.0
        else:
            z = _INFINITY if y > 0.0 else 0.0
        if negative_x:
            if ax == 1.0 and not y.is_integer():
                return math.nan
            if _is_odd(y):
                z = -z
        return z
    if negative_x and not y.is_integer():
        return math.nan
    sign = -1.0 if negative_x and _is_odd(y) else 1.0
    t1, t2 = _log2(ax, y, sign)
    if t2 != t2:  # decided already: t1 is the result
        return t1
    y1 = clear_low(y)
    p_l = (y - y1) * t1 + y * t2
    p_h = y1 * t1
    return _two_to(p_h, p_l, sign)


def _log2(ax: float, y: float, sign: float) -> tuple[float, float]:
    """log2(ax) in two pieces; (result, NaN) when y is so large that the power over- or underflows."""
    ix = high_word(ax)
    iy = high_word(y) & 0x7FFFFFFF
    if iy > 0x41E00000:  # |y| > 2**31
        if iy > 0x43F00000:  # |y| > 2**64
            if ix <= 0x3FEFFFFF:
                return (_INFINITY if y < 0.0 else 0.0), math.nan
            if ix >= 0x3FF00000:
                return (_INFINITY if y > 0.0 else 0.0), math.nan
        if ix < 0x3FEFFFFF:
            return sign * (_INFINITY if y < 0.0 else 0.0), math.nan
        if ix > 0x3FF00000:
            return sign * (_INFINITY if y > 0.0 else 0.0), math.nan
        t = ax - 1.0
        w = (t * t) * (0.5 - t * (0.3333333333333333333333 - t * 0.25))
        u = _IVLN2_H * t
        v = t * _IVLN2_L - w * _IVLN2
        t1 = clear_low(u + v)
        return t1, v - (t1 - u)
    n = 0
    if ix < 0x00100000:  # subnormal
        ax *= _TWO53
        n -= 53
        ix = high_word(ax)
    n += (ix >> 20) - 0x3FF
    j = ix & 0x000FFFFF
    ix = j | 0x3FF00000
    if j <= 0x3988E:
        k = 0
    elif j < 0xBB67A:
        k = 1
    else:
        k = 0
        n += 1
        ix -= 0x00100000
    ax = with_high(ax, ix)
    u = ax - _BP[k]
    v = 1.0 / (ax + _BP[k])
    ss = u * v
    s_h = clear_low(ss)
    t_h = with_high(0.0, ((ix >> 1) | 0x20000000) + 0x00080000 + (k << 18))
    t_l = ax - (t_h - _BP[k])
    s_l = v * ((u - s_h * t_h) - s_h * t_l)
    s2 = ss * ss
    r = s2 * s2 * (_L[0] + s2 * (_L[1] + s2 * (_L[2] + s2 * (_L[3] + s2 * (_L[4] + s2 * _L[5])))))
    r += s_l * (s_h + ss)
    s2 = s_h * s_h
    t_h = clear_low(3.0 + s2 + r)
    t_l = r - ((t_h - 3.0) - s2)
    u = s_h * t_h
    v = s_l * t_h + t_l * ss
    p_h = clear_low(u + v)
    p_l = v - (p_h - u)
    z_h = _CP_H * p_h
    z_l = _CP_L * p_h + p_l * _CP + _DP_L[k]
    t = float(n)
    t1 = clear_low(((z_h + z_l) + _DP_H[k]) + t)
    return t1, z_l - (((t1 - t) - _DP_H[k]) - z_h)


def _two_to(p_h: float, p_l: float, sign: float) -> float:
    """sign * 2**(p_h + p_l)."""
    z = p_l + p_h
    if z >= 1024.0:
        if z > 1024.0 or p_l + _OVT > z - p_h:
            return sign * _INFINITY
    elif z <= -1075.0:
        if z < -1075.0 or p_l <= z - p_h:
            return sign * 0.0
    n = 0
    high = high_word(z)
    i = high & 0x7FFFFFFF
    if i > 0x3FE00000:  # |z| > 0.5
        k = (i >> 20) - 0x3FF
        n = high + (0x00100000 >> (k + 1))
        k = ((n & 0x7FFFFFFF) >> 20) - 0x3FF
        t = with_high(0.0, n & ~(0x000FFFFF >> k))
        n = ((n & 0x000FFFFF) | 0x00100000) >> (20 - k)
        if high & 0x80000000:
            n = -n
        p_h -= t
    t = clear_low(p_l + p_h)
    u = t * _LG2_H
    v = (p_l - (t - p_h)) * _LG2 + t * _LG2_L
    z = u + v
    w = v - (z - u)
    t = z * z
    t1 = z - t * (_P[0] + t * (_P[1] + t * (_P[2] + t * (_P[3] + t * _P[4]))))
    r = (z * t1) / ((t1 - 2.0) - (w + z * w))  # V8 divides by all of it; fdlibm only by t1 - 2
    z = 1.0 - (r - z)
    return sign * math.ldexp(z, n)
