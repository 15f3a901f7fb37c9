"""Sines and their siblings as V8 computes them.

V8 uses a port of fdlibm (Sun Microsystems, 1993: s_sin.c, s_cos.c, s_tan.c, e_rem_pio2.c, e_asin.c, e_acos.c, s_atan.c,
e_atan2.c), whose results differ from the correctly rounded ones in the last digit for some arguments. The algorithms
here follow it: an argument is reduced by a multiple of pi/2 to a double and a correction, and a polynomial gives the
rest. Only the reduction of huge arguments is done otherwise, by whole numbers, with the same result.

Every function takes and gives doubles, and never raises.
"""

from __future__ import annotations

import math
from typing import Final

from rhythm.language.numbers_bits import clear_low, high_word, of_high_word
from rhythm.language.numbers_bits import of_high_word as _edge

_INFINITY: Final = math.inf
_NAN: Final = math.nan
_PI: Final = 3.14159265358979311600e00
_PI_LO: Final = 1.2246467991473531772e-16
_HALF_PI: Final = 1.57079632679489655800e00
_HALF_PI_LO: Final = 6.12323399573676603587e-17
_QUARTER_PI: Final = 7.85398163397448278999e-01
_QUARTER_PI_LO: Final = 3.06161699786838301793e-17

#: pi/2 in three parts of 33 bits, each with what it leaves out.
_PARTS: Final = (
    (1.57079632673412561417e00, 6.07710050650619224932e-11),
    (6.07710050630396597660e-11, 2.02226624879595063154e-21),
    (2.02226624871116645580e-21, 8.47842766036889956997e-32),
)
_SIMPLE: Final = _edge(0x3FE921FC)  #: Above pi/4; smaller arguments need no reduction.
_THREE_QUARTERS_PI: Final = _edge(0x4002D97C)
_MEDIUM: Final = _edge(0x413921FC)  #: About 2**19 pi/2.
_HIGHS: Final = frozenset(high_word(n * _HALF_PI) for n in range(1, 32))
_TWO24: Final = 2.0**24
#: 2/pi in parts of 24 bits.
_DIGITS: Final = (
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e006492eea09d1921c"
    "fe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980f"
    "ef2f118b5a0a6d1f6d367ecf27cb09b74f463f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d08"
    "56033046fc7b6babf0cfbc209af4361da9e391615ee61b086599855f14a068408dffd8804d73273106061556ca73a8c9"
    "60e27bc08c6b"
)
_TWO_OVER_PI: Final = tuple(float(int(_DIGITS[place : place + 6], 16)) for place in range(0, len(_DIGITS), 6))
#: pi/2 in parts of 24 bits, as doubles.
_HALF_PI_PARTS: Final = (
    1.57079625129699707031e00,
    7.54978941586159635335e-08,
    5.39030252995776476554e-15,
    3.28200341580791294123e-22,
    1.27065575308067607349e-29,
)
_NOTHING: Final = _edge(0x3C600001)
_COSINE_LARGE: Final = _edge(0x3FE90001)
_COSINE_SMALL: Final = _edge(0x3FD33333)
_TANGENT_LARGE: Final = _edge(0x3FE59428)
_ASIN_LARGE: Final = _edge(0x3FEF3333)


def _reduce(x: float) -> tuple[int, float, float]:
    """n, y, c with x = n pi/2 + y + c, |y| <= pi/4; only n & 3 counts. x must be finite, and beyond pi/4."""
    size = abs(x)
    if size < _THREE_QUARTERS_PI:
        part, rest = _PARTS[0]
        z = size - part
        if high_word(size) == 0x3FF921FB:  # close to pi/2
            part, rest = _PARTS[1]
            z -= part
        y = z - rest
        n, c = 1, (z - y) - rest
    elif size < _MEDIUM:
        n = int(size * 6.36619772367581382433e-01 + 0.5)
        part, rest = _PARTS[0]
        r = size - n * part
        w = n * rest
        y = r - w
        if n >= 32 or high_word(size) in _HIGHS:
            exponent = math.frexp(size)[1]
            for bits, (part, rest) in zip((16, 49), _PARTS[1:], strict=True):
                if exponent - math.frexp(y)[1] <= bits:
                    break
                t = r
                w = n * part
                r = t - w
                w = n * rest - ((t - r) - w)
                y = r - w
        c = (r - y) - w
    else:
        n, y, c = _reduce_huge(size)
    return (n, y, c) if x > 0.0 else (-n, -y, -c)


def _reduce_huge(size: float) -> tuple[int, float, float]:
    """k_rem_pio2.c: the argument times those digits of 2/pi that matter, both in parts of 24 bits."""
    scale = math.frexp(size)[1] - 24
    z = math.ldexp(size, -scale)
    given = []
    while z:
        given.append(float(int(z)))
        z = (z - given[-1]) * _TWO24
    first = max(0, (scale - 3) // 24)
    scale -= 24 * (first + 1)
    count = 5
    while True:
        products = [_product(given, first + place) for place in range(count)]
        n, fraction, digits, is_negative = _fraction(products, scale)
        if fraction or any(digits[4:]):
            break
        count += next(place for place in range(1, 5) if digits[4 - place])
    if fraction:
        fraction = math.ldexp(fraction, -scale)
        if fraction >= _TWO24:
            carry = int(fraction / _TWO24)
            digits += [int(fraction - _TWO24 * carry), carry]
            scale += 24
        else:
            digits.append(int(fraction))
    else:
        scale -= 24
        while not digits[-1]:
            digits.pop()
            scale -= 24
    y, c = _times_half_pi(digits, scale)
    return (n & 3, -y, -c) if is_negative else (n & 3, y, c)


def _product(given: list[float], place: int) -> float:
    total = 0.0
    for offset, part in enumerate(given):
        total += part * (_TWO_OVER_PI[place - offset] if place >= offset else 0.0)
    return total


def _fraction(products: list[float], scale: int) -> tuple[int, float, list[int], bool]:
    """n, the fraction of the first part, the other parts from the last to the second; and whether 1 minus all of it."""
    digits = []
    z = products[-1]
    for product in reversed(products[:-1]):
        carry = float(int(z / _TWO24))
        digits.append(int(z - _TWO24 * carry))
        z = product + carry
    z = math.ldexp(z, scale)
    z -= 8.0 * math.floor(z * 0.125)
    n = int(z)
    z -= n
    half = 0
    if scale > 0:
        above = digits[-1] >> (24 - scale)
        n += above
        digits[-1] -= above << (24 - scale)
        half = digits[-1] >> (23 - scale)
    elif scale == 0:
        half = digits[-1] >> 23
    elif z >= 0.5:
        half = 2
    if half > 0:
        n += 1
        is_carried = False
        for place, digit in enumerate(digits):
            if is_carried:
                digits[place] = 0xFFFFFF - digit
            elif digit:
                is_carried = True
                digits[place] = 0x1000000 - digit
        if scale in (1, 2):
            digits[-1] &= 0xFFFFFF >> scale
        if half == 2:
            z = 1.0 - z
            if is_carried:
                z -= math.ldexp(1.0, scale)
    return n, z, digits, half > 0


def _times_half_pi(digits: list[int], scale: int) -> tuple[float, float]:
    """The parts times pi/2, added up to a double and a correction."""
    unit = math.ldexp(1.0, scale)
    parts = [0.0] * len(digits)
    for place in range(len(digits) - 1, -1, -1):
        parts[place] = unit * digits[place]
        unit /= _TWO24
    sums = []
    for place in range(len(digits) - 1, -1, -1):
        total = 0.0
        for factor, part in zip(_HALF_PI_PARTS, parts[place:], strict=False):
            total += factor * part
        sums.append(total)
    y = 0.0
    for total in reversed(sums):
        y += total
    c = sums[0] - y
    for total in sums[1:]:
        c += total
    return y, c


def _sine(x: float, y: float, is_reduced: bool) -> float:
    """sin(x + y), |x| <= pi/4."""
    if abs(x) < 2.0**-27:
        return x
    z = x * x
    v = z * x
    r = 8.33333333332248946124e-03 + z * (
        -1.98412698298579493134e-04
        + z * (2.75573137070700676789e-06 + z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10))
    )
    if not is_reduced:
        return x + v * (-1.66666666666666324348e-01 + z * r)
    return x - ((z * (0.5 * y - v * r) - y) - v * -1.66666666666666324348e-01)


def _cosine(x: float, y: float) -> float:
    """cos(x + y), |x| <= pi/4."""
    size = abs(x)
    if size < 2.0**-27:
        return 1.0
    z = x * x
    r = z * (
        4.16666666666666019037e-02
        + z
        * (
            -1.38888888888741095749e-03
            + z
            * (
                2.48015872894767294178e-05
                + z * (-2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11))
            )
        )
    )
    if size < _COSINE_SMALL:
        return 1.0 - (0.5 * z - (z * r - x * y))
    q = 0.28125 if size >= _COSINE_LARGE else of_high_word(high_word(size) - 0x00200000)
    half = 0.5 * z - q
    return (1.0 - q) - (half - (z * r - x * y))


def _tangent(x: float, y: float, is_cotangent: bool) -> float:
    """tan(x + y), or -1 / tan(x + y); |x| <= pi/4."""
    given = x
    size = abs(x)
    if size < 2.0**-28:
        return _negative_inverse(x, y) if is_cotangent else x
    is_large = size >= _TANGENT_LARGE
    if is_large:
        if x < 0.0:
            x, y = -x, -y
        x = (_QUARTER_PI - x) + (_QUARTER_PI_LO - y)
        y = 0.0
    z = x * x
    w = z * z
    r = 1.33333333333201242699e-01 + w * (
        2.18694882948595424599e-02
        + w
        * (
            3.59207910759131235356e-03
            + w * (5.88041240820264096874e-04 + w * (7.81794442939557092300e-05 + w * -1.85586374855275456654e-05))
        )
    )
    v = z * (
        5.39682539762260521377e-02
        + w
        * (
            8.86323982359930005737e-03
            + w
            * (
                1.45620945432529025516e-03
                + w * (2.46463134818469906812e-04 + w * (7.14072491382608190305e-05 + w * 2.59073051863633712884e-05))
            )
        )
    )
    s = z * x
    r = y + z * (s * (r + v) + y)
    r += 3.33333333333334091986e-01 * s
    w = x + r
    if is_large:
        v = -1.0 if is_cotangent else 1.0
        return math.copysign(1.0, given) * (v - 2.0 * (x - (w * w / (w + v) - r)))
    return _negative_inverse(x, r) if is_cotangent else w


def _negative_inverse(x: float, y: float) -> float:
    """-1 / (x + y), carefully."""
    w = x + y
    z = clear_low(w)
    v = y - (z - x)
    a = -1.0 / w
    t = clear_low(a)
    s = 1.0 + t * z
    return t + a * (s + t * v)


def sin(x: float) -> float:
    """The sine."""
    if abs(x) < _SIMPLE:
        return _sine(x, 0.0, False)
    if not abs(x) < _INFINITY:
        return _NAN
    n, y, c = _reduce(x)
    value = _cosine(y, c) if n & 1 else _sine(y, c, True)
    return -value if n & 2 else value


def cos(x: float) -> float:
    """The cosine."""
    if abs(x) < _SIMPLE:
        return _cosine(x, 0.0)
    if not abs(x) < _INFINITY:
        return _NAN
    n, y, c = _reduce(x)
    value = _sine(y, c, True) if n & 1 else _cosine(y, c)
    return -value if (n + 1) & 2 else value


def tan(x: float) -> float:
    """The tangent."""
    if abs(x) < _SIMPLE:
        return _tangent(x, 0.0, False)
    if not abs(x) < _INFINITY:
        return _NAN
    n, y, c = _reduce(x)
    return _tangent(y, c, bool(n & 1))


def _arc_ratio(t: float) -> float:
    """The rational function that asin and acos share."""
    p = t * (
        1.66666666666666657415e-01
        + t
        * (
            -3.25565818622400915405e-01
            + t
            * (
                2.01212532134862925881e-01
                + t * (-4.00555345006794114027e-02 + t * (7.91534994289814532176e-04 + t * 3.47933107596021167570e-05))
            )
        )
    )
    q = 1.0 + t * (
        -2.40339491173441421878e00
        + t * (2.02094576023350569471e00 + t * (-6.88283971605453293030e-01 + t * 7.70381505559019352791e-02))
    )
    return p / q


def asin(x: float) -> float:
    """The inverse of sin."""
    size = abs(x)
    if not size < 1.0:
        return x * _HALF_PI + x * _HALF_PI_LO if size == 1.0 else _NAN
    if size < 0.5:
        return x if size < 2.0**-27 else x + x * _arc_ratio(x * x)
    t = (1.0 - size) * 0.5
    s = math.sqrt(t)
    ratio = _arc_ratio(t)
    if size >= _ASIN_LARGE:
        t = _HALF_PI - (2.0 * (s + s * ratio) - _HALF_PI_LO)
    else:
        w = clear_low(s)
        c = (t - w * w) / (s + w)
        p = 2.0 * s * ratio - (_HALF_PI_LO - 2.0 * c)
        q = _QUARTER_PI - 2.0 * w
        t = _QUARTER_PI - (p - q)
    return math.copysign(t, x)


def acos(x: float) -> float:
    """The inverse of cos."""
    size = abs(x)
    if not size < 1.0:
        if size != 1.0:
            return _NAN
        return 0.0 if x > 0.0 else _PI + 2.0 * _HALF_PI_LO
    if size < 0.5:
        if size < _NOTHING:
            return _HALF_PI + _HALF_PI_LO
        return _HALF_PI - (x - (_HALF_PI_LO - x * _arc_ratio(x * x)))
    if x < 0.0:
        z = (1.0 + x) * 0.5
        s = math.sqrt(z)
        w = _arc_ratio(z) * s - _HALF_PI_LO
        return _PI - 2.0 * (s + w)
    z = (1.0 - x) * 0.5
    s = math.sqrt(z)
    df = clear_low(s)
    c = (z - df * df) / (s + df)
    w = _arc_ratio(z) * s + c
    return 2.0 * (df + w)


_ATAN: Final = (
    (4.63647609000806093515e-01, 2.26987774529616870924e-17),
    (_QUARTER_PI, _QUARTER_PI_LO),
    (9.82793723247329054082e-01, 1.39033110312309984516e-17),
    (_HALF_PI, _HALF_PI_LO),
)


def atan(x: float) -> float:
    """The inverse of tan."""
    size = abs(x)
    if size >= 2.0**66:
        return math.copysign(_HALF_PI + _HALF_PI_LO, x)
    if not size < _INFINITY:
        return _NAN
    reduced: tuple[float, float] | None = None
    z = x
    if size < 0.4375:
        if size < 2.0**-27:
            return x
    elif size < 0.6875:
        reduced, z = _ATAN[0], (2.0 * size - 1.0) / (2.0 + size)
    elif size < 1.1875:
        reduced, z = _ATAN[1], (size - 1.0) / (size + 1.0)
    elif size < 2.4375:
        reduced, z = _ATAN[2], (size - 1.5) / (1.0 + 1.5 * size)
    else:
        reduced, z = _ATAN[3], -1.0 / size
    square = z * z
    w = square * square
    s1 = square * (
        3.33333333333329318027e-01
        + w
        * (
            1.42857142725034663711e-01
            + w
            * (
                9.09088713343650656196e-02
                + w * (6.66107313738753120669e-02 + w * (4.97687799461593236017e-02 + w * 1.62858201153657823623e-02))
            )
        )
    )
    s2 = w * (
        -1.99999999998764832476e-01
        + w
        * (
            -1.11111104054623557880e-01
            + w * (-7.69187620504482999495e-02 + w * (-5.83357013379057348645e-02 + w * -3.65315727442169155270e-02))
        )
    )
    if reduced is None:
        return z - z * (s1 + s2)
    return math.copysign(reduced[0] - ((z * (s1 + s2) - reduced[1]) - z), x)


def atan2(y: float, x: float) -> float:
    """The angle of the point (x, y)."""
    if x != x or y != y:
        return _NAN
    if x == 1.0:
        return atan(y)
    if 0.0 in (x, y) or abs(x) == _INFINITY or abs(y) == _INFINITY:
        return math.atan2(y, x)  # multiples of pi/4
    distance = (high_word(abs(y)) - high_word(abs(x))) >> 20
    is_left = x < 0.0
    if distance > 60:
        z = _HALF_PI + 0.5 * _PI_LO
        is_left = False
    elif is_left and distance < -60:
        z = 0.0
    else:
        z = atan(abs(y / x))
    if not is_left:
        return math.copysign(z, y)
    return _PI - (z - _PI_LO) if y > 0.0 else (z - _PI_LO) - _PI
