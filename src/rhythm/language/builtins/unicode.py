"""Case mapping and normalisation, piece by piece.

The C functions behind them cannot be interrupted, take seconds for the longest strings a flow may have, and sort runs
of combining marks in quadratic time. So a text is cut where nothing on one side looks at the other, and a run of marks
without such a place has a limit.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final, Literal

from rhythm.language.operators import too_long
from rhythm.language.units import join_surrogates, to_units
from rhythm.language.values_types import STRING_LENGTH_MAX, LimitError

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: Final[tuple[Form, ...]] = ("NFC", "NFD", "NFKC", "NFKD")

PIECE_CHARACTERS: Final = 1 << 16  #: Mapped to another case by one call.
NORMALIZED_CHARACTERS: Final = 1 << 10  #: Normalised by one call, and what follows without a boundary.
MARKS_MAX: Final = 1 << 12  #: Characters in a row that may combine with those before them.

#: The vowels and final consonants of Hangul, which compose with what stands before them.
_JAMO: Final = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff]")


def to_upper(text: str) -> str:
    """``text.toUpperCase()``: every character is mapped by itself."""
    if text.isascii():
        return text.upper()
    return _mapped(_pieces(text, PIECE_CHARACTERS, lambda _: True), str.upper)


def to_lower(text: str) -> str:
    """``text.toLowerCase()``: a capital sigma looks at the word around it."""
    if text.isascii():
        return text.lower()
    ends = str.isspace if "\u03a3" in text else lambda _: True
    return _mapped(_pieces(text, PIECE_CHARACTERS, lambda pair: ends(pair[0])), str.lower)


def normalize(form: Form, text: str) -> str:
    """``text.normalize(form)``. LimitError for too many combining marks in a row."""
    if text.isascii():
        return text
    pieces = _pieces(text, NORMALIZED_CHARACTERS, _parts, more=MARKS_MAX)
    return _mapped(pieces, lambda piece: unicodedata.normalize(form, piece))


def _parts(pair: str) -> bool:
    """Whether the second of two characters begins anew, whatever stands before it."""
    first = unicodedata.normalize("NFKD", pair[1])[0]
    return not (unicodedata.category(first).startswith("M") or unicodedata.combining(first) or _JAMO.match(first))


def _mapped(pieces: Iterator[str], mapping: Callable[[str], str]) -> str:
    mapped = []
    length = 0
    for piece in pieces:
        mapped.append(to_units(mapping(piece)))
        length += len(mapped[-1])
        if length > STRING_LENGTH_MAX:
            too_long(length)
    return "".join(mapped)


def _pieces(units: str, size: int, parts: Callable[[str], bool], *, more: int = STRING_LENGTH_MAX) -> Iterator[str]:
    """The text in pieces of a size and at most ``more``; ``parts`` says whether two characters may be parted."""
    text = join_surrogates(units)
    start = 0
    while start < len(text):
        end = start + size
        while end < len(text) and not parts(text[end - 1 : end + 1]):
            end += 1
            if end - start > size + more:
                raise LimitError(f"more than {more} combining marks stand in a row")
        yield text[start:end]
        start = end
