"""Doubles as their bits: what ports of fdlibm do with the two halves of a number."""

from __future__ import annotations

import struct
from typing import Final

_double: Final = struct.Struct("<d")
_word: Final = struct.Struct("<Q")


def bits_of(x: float) -> int:
    """The 64 bits of a double."""
    return int(_word.unpack(_double.pack(x))[0])


def of_bits(bits: int) -> float:
    """The double of 64 bits."""
    return float(_double.unpack(_word.pack(bits))[0])


def high_word(x: float) -> int:
    """Sign, exponent and the first 20 bits of the fraction."""
    return int(_word.unpack(_double.pack(x))[0]) >> 32


def of_high_word(high: int) -> float:
    """The double with that high half and a low half of zeros."""
    return of_bits((high & 0xFFFFFFFF) << 32)


def clear_low(x: float) -> float:
    """The double with its low half set to zeros."""
    return float(_double.unpack(_word.pack(_word.unpack(_double.pack(x))[0] & 0xFFFFFFFF00000000))[0])


def with_high(x: float, high: int) -> float:
    """The double with its high half replaced."""
    return of_bits((high & 0xFFFFFFFF) << 32 | (bits_of(x) & 0xFFFFFFFF))
