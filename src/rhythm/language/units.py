"""Text as the language sees it: UTF-16 code units.

A string of the language is a Python string in which every character beyond U+FFFF stands as its two surrogates, so
that lengths and indexes are JavaScript's. The front end and the run time both make such strings; neither knows
the other, so what makes them is here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

PIECE_UNITS: Final = 1 << 18  #: What C does to a text in one call, where that can take long; see pieces().
LONE_SURROGATE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def to_units(text: str) -> str:
    """The text with every astral character as its two surrogates."""
    if _ASTRAL.search(text) is None:
        return text
    return _ASTRAL.sub(_split, text)


def _split(match: re.Match[str]) -> str:
    code = ord(match[0]) - 0x10000
    return chr(0xD800 + (code >> 10)) + chr(0xDC00 + (code & 0x3FF))


def pieces(text: str, size: int = PIECE_UNITS) -> Iterator[str]:
    """The text in pieces of about ``size`` units, no pair of surrogates cut: between them the watchdog can strike."""
    start = 0
    while start < len(text):
        end = start + size
        if _PAIR.match(text, end - 1):
            end += 1
        yield text[start:end]
        start = end


def has_lone_surrogate(text: str) -> bool:
    """Whether there is half a character in the text."""
    if text.isascii() or _SURROGATE.search(text) is None:
        return False
    return any(LONE_SURROGATE.search(piece) is not None for piece in pieces(text))


def join_surrogates(text: str) -> str:
    """The text with pairs of surrogates as one character each; lone ones stay."""
    if _SURROGATE.search(text) is None:
        return text
    if not has_lone_surrogate(text):
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _PAIR.sub(_join, text)


def _join(match: re.Match[str]) -> str:
    high, low = match[0][0], match[0][1]
    return chr(0x10000 + ((ord(high) - 0xD800) << 10) + (ord(low) - 0xDC00))
