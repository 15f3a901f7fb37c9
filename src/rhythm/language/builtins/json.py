"""JSON: parse with a reviver, stringify with a replacer; walked in Python, so that callbacks stay off the C stack."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

from rhythm import json_deep
from rhythm.language.builtins import json_errors
from rhythm.language.builtins.support import callback, integer
from rhythm.language.members import get_member, own_keys, own_value
from rhythm.language.numbers import number_to_string
from rhythm.language.operators import to_string, too_long
from rhythm.language.units import LONE_SURROGATE, PIECE_UNITS, has_lone_surrogate, pieces, to_units
from rhythm.language.values_types import (
    METHODS,
    OBJECT_TAGS,
    STRING_LENGTH_MAX,
    UNDEFINED,
    Builtin,
    EmptySlots,
    JSDate,
    JSError,
    JSThrow,
    LimitError,
    Namespace,
    UnsupportedError,
    Value,
    is_callable,
    throw_type_error,
)

TEXT_UNITS_MAX: Final = 1 << 22  #: Units of text that JSON.parse reads: at most a second's work, and 150 MB.
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


# Reading ------------------------------------------------------------------------------------------


def _constant(name: str) -> Any:
    raise ValueError(name)


_decoder: Any = json.JSONDecoder(parse_int=float, parse_float=float, parse_constant=_constant)


def parse_text(text: str) -> Value:
    """The value of JSON text (UTF-16 units). Throws a SyntaxError as JSON.parse does."""
    if len(text) > TEXT_UNITS_MAX:  # one call of C, which nothing can interrupt
        raise LimitError(f"JSON.parse was given {len(text)} units of text, over the limit of {TEXT_UNITS_MAX}")
    try:
        try:
            value = _decoder.decode(text.strip(" \t\n\r"))
            return _split(value) if "\\u" in text and _ESCAPED_SURROGATE.search(text) else value
        except RecursionError:
            return json_deep.parse(text, _scan)
    except ValueError:
        raise JSThrow(JSError("SyntaxError", json_errors.message(text))) from None


def _scan(text: str, at: int) -> tuple[Value, int]:
    value, end = _decoder.scan_once(text, at)
    return _split(value), end


def _split(value: Value) -> Value:
    """Escaped pairs of surrogates come back as one character; flows keep two units."""
    if value.__class__ is str:
        return to_units(value)
    if value.__class__ is list:
        return [_split(item) for item in value]
    if value.__class__ is dict:
        return {to_units(key): _split(item) for key, item in value.items()}
    return value


def _revive(holder: Value, key: str, function: Callable[..., Value]) -> Value:
    value = own_value(holder, key)
    if isinstance(value, dict | list):
        for name in own_keys(value):
            revived = _revive(value, name, function)
            if isinstance(value, dict):
                if revived is UNDEFINED:
                    value.pop(name, None)
                else:
                    value[name] = revived
            else:
                _revive_element(value, int(name), revived)
    return function(key, value)


def _revive_element(array: list[Value], index: int, revived: Value) -> None:
    """Puts back what a reviver made of an element; the reviver may have changed the length of the array."""
    if revived is not UNDEFINED and index <= len(array):
        array[index : index + 1] = [revived]
    elif revived is not UNDEFINED or index < len(array):
        raise UnsupportedError("a reviver that removes array elements would leave holes")


def _parse(text: Value = UNDEFINED, reviver: Value = UNDEFINED, *_: Value) -> Value:
    value = parse_text(text if text.__class__ is str else to_string(text))
    if is_callable(reviver):
        return _revive({"": value}, "", callback(reviver))
    return value


# Writing ------------------------------------------------------------------------------------------


_quote = json.JSONEncoder(ensure_ascii=False).encode


def quote(text: str) -> str:
    """A string as JSON, lone surrogates escaped."""
    if len(text) <= PIECE_UNITS:
        return _quote_piece(text)
    parts = []
    length = 2
    for piece in pieces(text):
        parts.append(_quote_piece(piece)[1:-1])
        length += len(parts[-1])
        if length > STRING_LENGTH_MAX:
            too_long(length)
    return f'"{"".join(parts)}"'


def _quote_piece(text: str) -> str:
    quoted = _quote(text)
    if has_lone_surrogate(quoted):
        return LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
    return quoted


class _Writer:
    def __init__(self, replacer: Value, gap: str) -> None:
        self.function = callback(replacer) if is_callable(replacer) else None
        self.allowed = _allowed(replacer) if replacer.__class__ is list else None
        self.gap = gap
        self.indent = ""
        self.active: dict[int, tuple[str, Value]] = {}  # by id: the key it was found under, and the object
        self.size = 0

    def property(self, holder: Value, key: str, value: Value) -> str | None:
        """The text of a property; None for what JSON leaves out."""
        value = _to_json(value, key)
        if self.function is not None:
            value = self.function(key, value)
        kind = value.__class__
        if kind is str:
            return self.sized(quote(value))
        if kind is float:
            return number_to_string(value) if math.isfinite(value) else "null"
        if value is None:
            return "null"
        if kind is bool:
            return "true" if value else "false"
        if value is UNDEFINED or is_callable(value):
            return None
        if kind is EmptySlots:
            value, kind = [UNDEFINED] * value.length, list
        place = id(value)
        if place in self.active:
            throw_type_error(_circular(list(self.active.values()), key, value))
        self.active[place] = key, value
        try:
            return self.array(value) if kind is list else self.object(value)
        finally:
            del self.active[place]

    def sized(self, text: str) -> str:
        self.size += len(text)
        if self.size > STRING_LENGTH_MAX:
            too_long(self.size)
        return text

    def array(self, value: list[Value]) -> str:
        outer, self.indent = self.indent, self.indent + self.gap
        parts = []
        for index in range(len(value)):
            item = value[index] if index < len(value) else UNDEFINED
            parts.append(self.property(value, str(index), item) or "null")
        result = self.wrapped(parts, "[", "]", outer)
        self.indent = outer
        return result

    def object(self, value: Value) -> str:
        outer, self.indent = self.indent, self.indent + self.gap
        colon = ": " if self.gap else ":"
        parts = []
        for key in own_keys(value) if self.allowed is None else self.allowed:
            text = self.property(value, key, own_value(value, key) if self.allowed is None else _any_value(value, key))
            if text is not None:
                parts.append(self.sized(quote(key)) + colon + text)
        result = self.wrapped(parts, "{", "}", outer)
        self.indent = outer
        return result

    def wrapped(self, parts: list[str], opening: str, closing: str, outer: str) -> str:
        self.size += len(parts) * (len(self.indent) + 2)
        length = max(self.size, sum(map(len, parts)))
        if length > STRING_LENGTH_MAX:
            too_long(length)
        if not parts:
            return opening + closing
        if not self.gap:
            return opening + ",".join(parts) + closing
        separator = f",\n{self.indent}"
        return f"{opening}\n{self.indent}{separator.join(parts)}\n{outer}{closing}"


def _any_value(value: Value, key: str) -> Value:
    """The value of a key that a replacer lists, which may be inherited: the name of an error, the size of a Map."""
    if value.__class__ is dict and key != "__proto__":
        return value.get(key, UNDEFINED)
    return get_member(value, key, None)


def _circular(active: list[tuple[str, Value]], closing: str, start: Value) -> str:
    """V8's picture of a circle: where it starts, the next two objects of it and the last one."""
    first = next(place for place, (_, value) in enumerate(active) if value is start)
    circle = active[first:]
    lines = [
        f"{_shown_key(key, holder)} -> object with constructor '{_constructor(value)}'"
        for (_, holder), (key, value) in pairwise(circle)
    ]
    if len(lines) > 3:
        lines[2:-1] = ["..."]
    return "\n    ".join(
        [
            "Converting circular structure to JSON",
            f"--> starting at object with constructor '{_constructor(start)}'",
            *(f"|     {line}" for line in lines),
            f"--- {_shown_key(closing, active[-1][1])} closes the circle",
        ]
    )


def _shown_key(key: str, holder: Value) -> str:
    if holder.__class__ is list:
        return f"index {key}"
    return f"property '{key}'" if key else "<anonymous>"


def _constructor(value: Value) -> str:
    return str(value.kind) if value.__class__ is JSError else OBJECT_TAGS.get(value.__class__, "Object")


def _to_json(value: Value, key: str) -> Value:
    kind = value.__class__
    if kind is JSDate:
        return METHODS[JSDate]["toJSON"](value)
    if kind is dict or kind is JSError:
        function = value.get("toJSON") if kind is dict else get_member(value, "toJSON", None)
        if function is not None and is_callable(function):
            return callback(function)(key)
    return value


def _allowed(replacer: list[Value]) -> list[str]:
    keys: dict[str, None] = {}
    for item in replacer:
        if item.__class__ in (str, float):
            keys[to_string(item)] = None
    return list(keys)


def stringify(value: Value = UNDEFINED, replacer: Value = UNDEFINED, space: Value = UNDEFINED, *_: Value) -> Value:
    """JSON.stringify."""
    gap = ""
    if space.__class__ is float:
        gap = " " * int(min(max(integer(space), 0.0), 10.0))
    elif space.__class__ is str:
        gap = space[:10]
    text = _Writer(replacer, gap).property({"": value}, "", value)
    return UNDEFINED if text is None else text


JSON = Namespace("JSON", {"parse": Builtin("JSON.parse", _parse), "stringify": Builtin("JSON.stringify", stringify)})
