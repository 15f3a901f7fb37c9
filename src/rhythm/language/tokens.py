"""Tokens of the flow language.

Words are tokens of kind NAME, whether reserved or not: the parser knows where a word is a keyword. Values of strings
and templates are UTF-16 code units (see ``units``).
"""

from __future__ import annotations

from typing import Final

NAME: Final = "name"
NUMBER: Final = "number"
STRING: Final = "string"
PUNCTUATOR: Final = "punctuator"
TEMPLATE: Final = "template"  #: `text` without substitutions
TEMPLATE_HEAD: Final = "template head"  #: `text${
TEMPLATE_MIDDLE: Final = "template middle"  #: }text${
TEMPLATE_TAIL: Final = "template tail"  #: }text`
REGEX: Final = "regular expression"
PRIVATE: Final = "private name"
BAD: Final = "bad"  #: could not be read; its diagnostic is already reported
END: Final = "end"

KEYWORDS: Final = frozenset(
    "await break case catch class const continue debugger default delete do else enum export extends false finally "
    "for function if import in instanceof new null return super switch this throw true try typeof var void while "
    "with".split()
)
STRICT_RESERVED: Final = frozenset("implements interface let package private protected public static yield".split())
RESERVED: Final = KEYWORDS | STRICT_RESERVED


class Token:
    """One token. ``newline`` says whether a line break stands before it."""

    __slots__ = ("end", "kind", "newline", "start", "value")

    def __init__(self, kind: str, value: str | float, start: int, end: int, newline: bool) -> None:
        self.kind = kind
        self.value = value
        self.start = start
        self.end = end
        self.newline = newline

    def __repr__(self) -> str:
        return f"<{self.kind} {self.value!r} {self.start}-{self.end}>"
