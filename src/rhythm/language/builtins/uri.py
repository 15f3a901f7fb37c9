"""encodeURI, encodeURIComponent and their inverses."""

from __future__ import annotations

import re
from typing import NoReturn

from rhythm.language.operators import to_string, too_long
from rhythm.language.units import join_surrogates, to_units
from rhythm.language.values_types import STRING_LENGTH_MAX, UNDEFINED, Builtin, JSError, JSThrow, Value

_UNESCAPED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()"
_RESERVED = ";/?:@&=+$,#"
ESCAPES_AT_ONCE_MAX = 1 << 14  #: Decoded in one go; a longer run is cut between two characters.
_ESCAPES = re.compile(f"(?:%[0-9a-fA-F]{{2}}){{1,{ESCAPES_AT_ONCE_MAX}}}+")
_CONTINUED = frozenset(["%8", "%9", "%a", "%A", "%b", "%B"])
_SURROGATE = re.compile("[\ud800-\udfff]")


def _malformed() -> NoReturn:
    raise JSThrow(JSError("URIError", "URI malformed"))


def _encode(value: Value, kept: frozenset[str]) -> str:
    text = join_surrogates(value if value.__class__ is str else to_string(value))
    if _SURROGATE.search(text):
        _malformed()
    if len(text) * 12 > STRING_LENGTH_MAX * 4:
        too_long(len(text) * 12)
    return "".join([c if c in kept else "".join([f"%{byte:02X}" for byte in c.encode()]) for c in text])


def _decode(value: Value, kept: str) -> str:
    text = value if value.__class__ is str else to_string(value)
    if re.search("%(?![0-9a-fA-F]{2})", text):
        _malformed()
    parts: list[str] = []
    at = 0
    while (match := _ESCAPES.search(text, at)) is not None:
        end = match.end()
        for _ in range(3):  # not inside a character: its second to fourth byte begin with 8, 9, A or B
            if text[end : end + 2] in _CONTINUED:
                end -= 3
        parts += [text[at : match.start()], _decode_run(text[match.start() : end], kept)]
        at = end
    parts.append(text[at:])
    return "".join(parts)


def _decode_run(run: str, kept: str) -> str:
    """A run of escapes; those of kept characters stay as they are."""
    parts: list[str] = []
    pending: list[str] = []
    for escape in [run[index : index + 3] for index in range(0, len(run), 3)]:
        if chr(int(escape[1:], 16)) in kept:
            parts += [_bytes_text(pending), escape]
            pending = []
        else:
            pending.append(escape)
    parts.append(_bytes_text(pending))
    return "".join(parts)


def _bytes_text(escapes: list[str]) -> str:
    try:
        return to_units(bytes.fromhex("".join(escapes).replace("%", "")).decode("utf-8"))
    except UnicodeDecodeError:
        _malformed()


_COMPONENT = frozenset(_UNESCAPED)
_WHOLE = frozenset(_UNESCAPED + _RESERVED)
URI_FUNCTIONS = {
    "encodeURI": Builtin("encodeURI", lambda value=UNDEFINED, *_: _encode(value, _WHOLE)),
    "encodeURIComponent": Builtin("encodeURIComponent", lambda value=UNDEFINED, *_: _encode(value, _COMPONENT)),
    "decodeURI": Builtin("decodeURI", lambda value=UNDEFINED, *_: _decode(value, _RESERVED)),
    "decodeURIComponent": Builtin("decodeURIComponent", lambda value=UNDEFINED, *_: _decode(value, "")),
}
