"""Numbers as JavaScript writes and reads them: exact digits, thresholds and roundings of V8.

Values are IEEE doubles held as Python floats. Shortest round-trip digits are the same in both languages
(Python's repr), only the layout differs; fixed, precision and exponential forms are computed with exact
integers, ties away from zero as ECMAScript says; other radixes use V8's digit generation. Reading follows the
StringNumericLiteral grammar by regular expressions of our own, because Python's float() accepts more.
"""

from __future__ import annotations

import math
import re
from typing import Final

DIGITS_KEPT: Final = 800  #: Decimal digits that can influence a double; the rest is only "zero or not".
EXPONENT_DIGITS_MAX: Final = 9  #: Longer exponents are zero or infinity whatever they say.

#: JavaScript's white space and line terminators: what trim() and Number() strip.
WHITESPACE: Final = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)

_DIGIT_CHARACTERS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_SMALL_INTEGERS: Final = {float(number): str(number) for number in range(-128, 1025)}
# Quantifiers are possessive: texts may have megabytes, and going back through them takes seconds.
_DECIMAL: Final = re.compile(r"([+-]?)([0-9]*+)(?:(\.)([0-9]*+))?+(?:[eE]([+-]?[0-9]++))?+", re.ASCII)
_SHORT_DECIMAL: Final = re.compile(
    r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,9})?", re.ASCII
)
_PREFIXED: Final = re.compile(r"0(?:[xX]([0-9a-fA-F]++)|[oO]([0-7]++)|[bB]([01]++))", re.ASCII)
_PARSE_FLOAT: Final = re.compile(r"[+-]?(?:Infinity|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)", re.ASCII)

_NAN: Final = math.nan
_INFINITY: Final = math.inf


STRIPPED_AT_ONCE: Final = 1 << 18  #: Characters that are looked at in one call of C, so that the watchdog can strike.


def strip_start(text: str) -> str:
    """The text without white space at its beginning."""
    start = 0
    while start < len(text):
        piece = text[start : start + STRIPPED_AT_ONCE]
        rest = len(piece.lstrip(WHITESPACE))
        if rest:
            return text[start + len(piece) - rest :]
        start += len(piece)
    return ""


def strip_end(text: str) -> str:
    """The text without white space at its end."""
    end = len(text)
    while end > 0:
        piece = text[max(0, end - STRIPPED_AT_ONCE) : end]
        rest = len(piece.rstrip(WHITESPACE))
        if rest:
            return text[: end - len(piece) + rest]
        end -= len(piece)
    return ""


# Writing -----------------------------------------------------------------------------------------


def number_to_string(number: float) -> str:
    """String(number): shortest digits, exponent form from 1e21 upwards and below 1e-6."""
    text = _SMALL_INTEGERS.get(number)
    if text is not None:
        return text
    if number != number:
        return "NaN"
    text = repr(number)
    size = abs(number)
    if 1e-4 <= size < 1e16:
        return text[:-2] if text.endswith(".0") else text
    if size == _INFINITY:
        return "Infinity" if number > 0 else "-Infinity"
    sign = "-" if number < 0 else ""
    digits, point = shortest_digits(size)
    if size >= 1e21 or size < 1e-6:
        return sign + _exponential(digits, point - 1)
    if size >= 1.0:
        return sign + digits + "0" * (point - len(digits))
    return sign + "0." + "0" * -point + digits


def shortest_digits(size: float) -> tuple[str, int]:
    """The shortest digits of a positive finite number, and where the point goes: 0.digits * 10**point."""
    mantissa, _, exponent = repr(size).partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    point = len(whole) + (int(exponent) if exponent else 0)
    digits = whole + fraction
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    return stripped.rstrip("0"), point


def _exponential(digits: str, exponent: int) -> str:
    mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{mantissa}e{'+' if exponent >= 0 else '-'}{abs(exponent)}"


def to_fixed(number: float, digits: int) -> str:
    """number.toFixed(digits), 0 <= digits <= 100."""
    if number != number or abs(number) >= 1e21:
        return number_to_string(number)
    numerator, denominator = abs(number).as_integer_ratio()
    scaled = (2 * numerator * 10**digits + denominator) // (2 * denominator)
    text = str(scaled)
    if digits:
        text = text.rjust(digits + 1, "0")
        text = f"{text[:-digits]}.{text[-digits:]}"
    return "-" + text if number < 0 else text


def to_exponential(number: float, digits: int | None) -> str:
    """number.toExponential(digits); None means as many digits as needed. The number must be finite."""
    sign = "-" if number < 0 else ""
    size = abs(number)
    if digits is None:
        if size == 0:
            return "0e+0"
        shortest, point = shortest_digits(size)
        return sign + _exponential(shortest, point - 1)
    text, exponent = _rounded_digits(size, digits + 1)
    return sign + _exponential(text, exponent)


def to_precision(number: float, precision: int) -> str:
    """number.toPrecision(precision), 1 <= precision <= 100. The number must be finite."""
    sign = "-" if number < 0 else ""
    digits, exponent = _rounded_digits(abs(number), precision)
    if exponent < -6 or exponent >= precision:
        return sign + _exponential(digits, exponent)
    if exponent == precision - 1:
        return sign + digits
    if exponent >= 0:
        return f"{sign}{digits[: exponent + 1]}.{digits[exponent + 1 :]}"
    return f"{sign}0.{'0' * -(exponent + 1)}{digits}"


def _rounded_digits(size: float, count: int) -> tuple[str, int]:
    """Exactly ``count`` digits of a finite number >= 0, ties up, and the exponent of the first digit."""
    if size == 0:
        return "0" * count, 0
    numerator, denominator = size.as_integer_ratio()
    exponent = shortest_digits(size)[1] - 1
    if numerator * 10 ** max(0, -exponent) < denominator * 10 ** max(0, exponent):
        exponent -= 1  # the shortest digits are rounded up to a power of ten
    shift = count - 1 - exponent
    if shift >= 0:
        numerator *= 10**shift
    else:
        denominator *= 10**-shift
    text = str((2 * numerator + denominator) // (2 * denominator))
    if len(text) > count:
        return text[:count], exponent + 1
    return text, exponent


def to_radix(number: float, radix: int) -> str:
    """number.toString(radix), 2 <= radix <= 36: V8's digits, which stop at the precision of the double."""
    if radix == 10 or number != number or abs(number) == _INFINITY:
        return number_to_string(number)
    size = abs(number)
    whole = math.floor(size)
    fraction = size - whole
    delta = max(0.5 * (math.nextafter(size, _INFINITY) - size), 5e-324)
    fraction_digits: list[int] = []
    carry = False
    if fraction >= delta:
        carry = _radix_fraction(fraction, delta, radix, fraction_digits)
    text = _radix_whole(float(whole) + 1.0 if carry else float(whole), radix)
    if fraction_digits or (fraction >= delta and not carry):
        text = f"{text}.{''.join([_DIGIT_CHARACTERS[digit] for digit in fraction_digits])}"
    return "-" + text if number < 0 else text


def _radix_fraction(fraction: float, delta: float, radix: int, digits: list[int]) -> bool:
    """Appends the digits after the point; True when rounding carried over into the whole part."""
    while True:
        fraction *= radix
        delta *= radix
        digit = int(fraction)
        digits.append(digit)
        fraction -= digit
        if (fraction > 0.5 or (fraction == 0.5 and digit & 1)) and fraction + delta > 1:
            while digits:
                last = digits.pop()
                if last + 1 < radix:
                    digits.append(last + 1)
                    return False
            return True
        if fraction < delta:
            return False


def _radix_whole(whole: float, radix: int) -> str:
    characters: list[str] = []
    while whole >= 2.0**53 * radix:  # the digit beyond the double's precision; V8 writes it as 0
        whole /= radix
        characters.append("0")
    while True:
        remainder = math.fmod(whole, radix)
        characters.append(_DIGIT_CHARACTERS[int(remainder)])
        whole = (whole - remainder) / radix
        if not whole > 0:
            break
    return "".join(reversed(characters))


# Reading -----------------------------------------------------------------------------------------


def string_to_number(text: str) -> float:
    """Number(text): NaN unless the whole trimmed text is a number; 0 when there is nothing."""
    if _SHORT_DECIMAL.fullmatch(text):
        return float(text)
    text = strip_end(strip_start(text))
    if not text:
        return 0.0
    first = text[0]
    if first in "+-I" and text.lstrip("+-") == "Infinity" and len(text) <= 9:
        return -_INFINITY if first == "-" else _INFINITY
    prefixed = _PREFIXED.fullmatch(text)
    if prefixed:
        return integer_text_to_number(
            prefixed[1] or prefixed[2] or prefixed[3], 16 if prefixed[1] else 8 if prefixed[2] else 2
        )
    match = _DECIMAL.fullmatch(text)
    if match is None or not (match[2] or match[4]):
        return _NAN
    return decimal_text_to_number(text)


def decimal_text_to_number(text: str) -> float:
    """The double nearest to a decimal literal of any length, which must be well-formed.

    Digits beyond DIGITS_KEPT only matter as "something follows", so the work is bounded.
    """
    if len(text) <= DIGITS_KEPT:
        return float(text)
    match = _DECIMAL.fullmatch(text)
    assert match is not None, "the caller checked the grammar"
    sign, whole, _, fraction, exponent_text = match.groups()
    fraction = fraction or ""
    exponent_text = exponent_text or "0"
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction)
    if not digits:
        return -0.0 if sign == "-" else 0.0
    if len(exponent_text.lstrip("+-0")) > EXPONENT_DIGITS_MAX:
        magnitude = 0.0 if exponent_text.startswith("-") else _INFINITY
        return -magnitude if sign == "-" else magnitude
    kept = digits[:DIGITS_KEPT]
    if digits[DIGITS_KEPT:].strip("0"):
        kept += "1"
    exponent = int(exponent_text) + point - len(kept)
    if len(digits) < len(kept):
        exponent = int(exponent_text) + point - len(kept)
    return float(f"{sign}{kept}e{exponent}")


def parse_float(text: str) -> float:
    """parseFloat(text): the longest numeric prefix after white space."""
    match = _PARSE_FLOAT.match(strip_start(text))
    if match is None:
        return _NAN
    found = match[0]
    if found.endswith("y"):
        return -_INFINITY if found[0] == "-" else _INFINITY
    return decimal_text_to_number(found)


def parse_int(text: str, radix: int) -> float:
    """parseInt(text, radix) after radix went through ToInt32; 0 means decide by the prefix."""
    text = strip_start(text)
    negative = text.startswith("-")
    if negative or text.startswith("+"):
        text = text[1:]
    if radix != 0 and not 2 <= radix <= 36:
        return _NAN
    if radix in (0, 16) and text[:2] in ("0x", "0X"):
        text, radix = text[2:], 16
    elif radix == 0:
        radix = 10
    digits = _INTEGER_PREFIX[radix].match(text)
    if digits is None:
        return _NAN
    number = integer_text_to_number(digits[0], radix)
    return -number if negative else number


def _integer_prefix(radix: int) -> re.Pattern[str]:
    letters = _DIGIT_CHARACTERS[10:radix]
    return re.compile(f"[0-{min(radix, 10) - 1}{letters}{letters.upper()}]+", re.ASCII)


_INTEGER_PREFIX: Final = {radix: _integer_prefix(radix) for radix in range(2, 37)}


def integer_text_to_number(digits: str, radix: int) -> float:
    """The double of a run of digits. Exact rounding for 10 and powers of two; V8's own for the others."""
    digits = digits.lstrip("0")
    if not digits:
        return 0.0
    if radix == 10:
        return decimal_text_to_number(digits)
    if len(digits) > 1100:  # beyond the largest double in every radix
        return _INFINITY
    if radix in (2, 4, 8, 16, 32):
        try:
            return float(int(digits, radix))
        except OverflowError:
            return _INFINITY
    return _chunked_integer(digits, radix)


def _chunked_integer(digits: str, radix: int) -> float:
    """V8 collects digits in parts of at most 32 bits and multiplies doubles; the errors are visible."""
    part_limit = 0xFFFFFFFF // 36
    value = 0.0
    part, multiplier = 0, 1
    for character in digits:
        if multiplier * radix > part_limit:
            value = value * multiplier + part
            part, multiplier = 0, 1
        part = part * radix + int(character, 36)
        multiplier *= radix
    return value * multiplier + part


# Integers ----------------------------------------------------------------------------------------


def to_int32(number: float) -> int:
    """ToInt32 of a double, as a Python int."""
    try:
        bits = int(number) & 0xFFFFFFFF
    except (ValueError, OverflowError):
        return 0
    return bits - 0x100000000 if bits & 0x80000000 else bits


def to_uint32(number: float) -> int:
    """ToUint32 of a double, as a Python int."""
    try:
        return int(number) & 0xFFFFFFFF
    except (ValueError, OverflowError):
        return 0


def to_integer(number: float) -> float:
    """ToIntegerOrInfinity: NaN gives 0, fractions are cut off, infinities stay, -0 becomes 0."""
    if number != number:
        return 0.0
    if number in (_INFINITY, -_INFINITY):
        return number
    return float(math.trunc(number))


def clamp_index(number: float, length: int) -> int:
    """A relative index: negative counts from the end; the result lies in 0..length."""
    if number != number:
        return 0
    if number <= -1:  # After cutting off the fraction, which is 0 above.
        return 0 if number < -length else max(0, length + math.trunc(number))
    return length if number > length else int(number)
