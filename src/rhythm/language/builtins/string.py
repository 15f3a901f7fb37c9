"""String: methods over UTF-16 code units. What needs characters joins the surrogates first, splits them after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rhythm.language.builtins import unicode
from rhythm.language.builtins.support import callback, check_length, integer, relative, unsupported
from rhythm.language.numbers import number_to_string, strip_end, strip_start, to_uint32
from rhythm.language.operators import join_texts, to_number, to_string, too_long
from rhythm.language.units import LONE_SURROGATE, PIECE_UNITS, has_lone_surrogate, join_surrogates, pieces, to_units
from rhythm.language.values_types import (
    STRING_LENGTH_MAX,
    UNDEFINED,
    Builtin,
    Value,
    is_callable,
    register_methods,
    throw_range_error,
)

BACKWARDS_MAX: Final = 1 << 24  #: Comparisons that one search from behind may take.


def _text(value: Value) -> str:
    return value if value.__class__ is str else to_string(value)


def _refuse_missing(value: Value, default: str) -> str:
    return default if value is UNDEFINED else _text(value)


def _checked(text: str) -> str:
    if len(text) > STRING_LENGTH_MAX:
        too_long(len(text))
    return text


def _at(text: str, index: Value = UNDEFINED, *_: Value) -> Value:
    place = integer(index)
    actual = place + len(text) if place < 0 else place
    return text[int(actual)] if 0 <= actual < len(text) else UNDEFINED


def _char_at(text: str, index: Value = UNDEFINED, *_: Value) -> str:
    place = integer(index)
    return text[int(place)] if 0 <= place < len(text) else ""


def _char_code_at(text: str, index: Value = UNDEFINED, *_: Value) -> float:
    place = integer(index)
    return float(ord(text[int(place)])) if 0 <= place < len(text) else float("nan")


def _code_point_at(text: str, index: Value = UNDEFINED, *_: Value) -> Value:
    place = integer(index)
    if not 0 <= place < len(text):
        return UNDEFINED
    pair = text[int(place) : int(place) + 2]
    return float(ord(join_surrogates(pair)[0]))


def _concat(text: str, *others: Value) -> str:
    return join_texts([text, *[_text(other) for other in others]])


def _clamped(value: Value, length: int, default: int) -> int:
    if value is UNDEFINED:
        return default
    return int(min(max(integer(value), 0.0), float(length)))


def _ends_with(text: str, other: Value = UNDEFINED, end: Value = UNDEFINED, *_: Value) -> bool:
    wanted = other if other.__class__ is str else to_string(other)
    return text.endswith(wanted) if end is UNDEFINED else text[: _clamped(end, len(text), 0)].endswith(wanted)


def _starts_with(text: str, other: Value = UNDEFINED, start: Value = UNDEFINED, *_: Value) -> bool:
    wanted = other if other.__class__ is str else to_string(other)
    return text.startswith(wanted) if start is UNDEFINED else text.startswith(wanted, _clamped(start, len(text), 0))


def _includes(text: str, other: Value = UNDEFINED, start: Value = UNDEFINED, *_: Value) -> bool:
    wanted = other if other.__class__ is str else to_string(other)
    return wanted in text if start is UNDEFINED else text.find(wanted, _clamped(start, len(text), 0)) >= 0


def _index_of(text: str, other: Value = UNDEFINED, start: Value = UNDEFINED, *_: Value) -> float:
    wanted = other if other.__class__ is str else to_string(other)
    return float(text.find(wanted) if start is UNDEFINED else text.find(wanted, _clamped(start, len(text), 0)))


def _last_index_of(text: str, other: Value = UNDEFINED, start: Value = UNDEFINED, *_: Value) -> float:
    wanted = _text(other)
    place = float("nan") if start is UNDEFINED else to_number(start)
    last = len(text) if place != place else _clamped(place, len(text), len(text))
    end = min(len(text), last + len(wanted))
    if end * len(wanted) <= BACKWARDS_MAX:
        return float(text.rfind(wanted, 0, end))
    found = text[:end][::-1].find(wanted[::-1])  # looking backwards takes quadratic time in C, forwards does not
    return float(end - found - len(wanted)) if found >= 0 else -1.0


def _normalize(text: str, form: Value = UNDEFINED, *_: Value) -> str:
    name: Any = _refuse_missing(form, "NFC")
    if name not in unicode.FORMS:
        throw_range_error("The normalization form should be one of NFC, NFD, NFKC, NFKD.")
    return unicode.normalize(name, text)


def _padding(text: str, length: Value, filler: Value) -> str:
    wanted = integer(length)
    missing = wanted - len(text)
    if missing <= 0:
        return ""
    fill = _refuse_missing(filler, " ")
    if not fill:
        return ""
    if wanted > STRING_LENGTH_MAX:
        too_long(int(min(wanted, 2.0**53)))
    count = int(missing)
    return (fill * (count // len(fill) + 1))[:count]


def _pad_end(text: str, length: Value = UNDEFINED, filler: Value = UNDEFINED, *_: Value) -> str:
    return text + _padding(text, length, filler)


def _pad_start(text: str, length: Value = UNDEFINED, filler: Value = UNDEFINED, *_: Value) -> str:
    return _padding(text, length, filler) + text


def _repeat(text: str, count: Value = UNDEFINED, *_: Value) -> str:
    times = integer(count)
    if times < 0 or times == float("inf"):
        throw_range_error(f"Invalid count value: {to_string(count)}")
    if not text:
        return ""
    if len(text) * times > STRING_LENGTH_MAX:
        too_long(int(min(len(text) * times, 2.0**53)))
    return text * int(times)


def _expand(replacement: str, text: str, position: int, found: str) -> str:
    """A replacement with its $-patterns filled in."""
    if "$" not in replacement:
        return replacement
    parts: list[str] = []
    index = length = 0
    while True:
        if parts:
            length += len(parts[-1])
            if length > STRING_LENGTH_MAX:
                too_long(length)
        dollar = replacement.find("$", index)
        if dollar < 0 or dollar == len(replacement) - 1:
            parts.append(replacement[index:])
            return "".join(parts)
        length += dollar - index
        parts.append(replacement[index:dollar])
        following = replacement[dollar + 1]
        if following == "$":
            parts.append("$")
        elif following == "&":
            parts.append(found)
        elif following == "`":
            parts.append(text[:position])
        elif following == "'":
            parts.append(text[position + len(found) :])
        else:
            parts.append("$")
            index = dollar + 1
            continue
        index = dollar + 2


def _replacer(replacement: Value, text: str) -> Callable[[int, str], str]:
    if is_callable(replacement):
        f = callback(replacement)
        return lambda position, found: _text(f(found, float(position), text))
    pattern = _text(replacement)
    return lambda position, found: _expand(pattern, text, position, found)


def _replace(text: str, wanted: Value = UNDEFINED, replacement: Value = UNDEFINED, *_: Value) -> str:
    found = _text(wanted)
    replace = _replacer(replacement, text)
    position = text.find(found)
    if position < 0:
        return text
    return _checked(text[:position] + replace(position, found) + text[position + len(found) :])


def _replace_all(text: str, wanted: Value = UNDEFINED, replacement: Value = UNDEFINED, *_: Value) -> str:
    found = _text(wanted)
    replace = _replacer(replacement, text)
    parts: list[str] = []
    end = length = 0
    position = text.find(found)
    step = max(1, len(found))
    while position >= 0:
        part = replace(position, found)
        length += len(part) + position - end
        if length > STRING_LENGTH_MAX:
            too_long(length)
        parts += [text[end:position], part]
        end = position + len(found)
        position = text.find(found, position + step) if position + step <= len(text) else -1
    parts.append(text[end:])
    return _checked("".join(parts))


def _slice(text: str, start: Value = UNDEFINED, end: Value = UNDEFINED, *_: Value) -> str:
    return text[relative(start, len(text), 0) : relative(end, len(text), len(text))]


def _substring(text: str, start: Value = UNDEFINED, end: Value = UNDEFINED, *_: Value) -> str:
    first, last = _clamped(start, len(text), 0), _clamped(end, len(text), len(text))
    return text[min(first, last) : max(first, last)]


def _substr(text: str, start: Value = UNDEFINED, length: Value = UNDEFINED, *_: Value) -> str:
    first = relative(start, len(text), 0)
    count = float(len(text)) if length is UNDEFINED else integer(length)
    return text[first : first + int(min(max(count, 0.0), float(len(text) - first)))]


def _split(text: str, separator: Value = UNDEFINED, limit: Value = UNDEFINED, *_: Value) -> list[Value]:
    if limit is UNDEFINED and separator.__class__ is str and separator and len(text) <= PIECE_UNITS:
        return text.split(separator)
    most = 2**32 - 1 if limit is UNDEFINED else to_uint32(to_number(limit))
    glue = None if separator is UNDEFINED else _text(separator)
    if most == 0:
        return []
    if glue is None:
        return [text]
    if glue == "":
        check_length(min(len(text), most))
        units: list[Value] = []
        for start in range(0, min(len(text), most), PIECE_UNITS):
            units += text[start : min(start + PIECE_UNITS, most)]
        return units
    parts: list[Value] = [*text.split(glue)] if len(text) <= PIECE_UNITS else _split_long(text, glue, most)
    return parts[:most]


def _split_long(text: str, glue: str, most: int) -> list[Value]:
    """``text.split(glue)``, at least the first ``most`` parts, in calls short enough for the watchdog."""
    parts: list[Value] = []
    start, size = 0, PIECE_UNITS
    while len(parts) < most:
        found = text[start : start + size].split(glue)
        if start + size >= len(text):
            parts += found
            check_length(min(len(parts), most))
            break
        if len(found) == 1:
            size *= 2
            continue
        start += size - len(found[-1])  # what may be the beginning of a separator is looked at again
        size = PIECE_UNITS
        parts += found[:-1]
        check_length(min(len(parts), most))
    return parts


def _upper(text: str, *_: Value) -> str:
    return unicode.to_upper(text)


def _lower(text: str, *_: Value) -> str:
    return unicode.to_lower(text)


def _to_well_formed(text: str, *_: Value) -> str:
    if not has_lone_surrogate(text):
        return text
    return "".join([LONE_SURROGATE.sub("\ufffd", piece) for piece in pieces(text)])


_MARKUP = "anchor big blink bold fixed fontcolor fontsize italics link small strike sub sup".split()
_LOCALE = unsupported(
    "methods that depend on a locale are not available in flows; compare with < and >, format in a task"
)
_PATTERN = unsupported("regular expressions are not supported yet; use string methods or a task")


def _trim_start(text: str, *_: Value) -> str:
    return strip_start(text)


def _trim_end(text: str, *_: Value) -> str:
    return strip_end(text)


register_methods(
    str,
    "String",
    {
        "at": _at, "charAt": _char_at, "charCodeAt": _char_code_at, "codePointAt": _code_point_at, "concat": _concat,
        "endsWith": _ends_with, "includes": _includes, "indexOf": _index_of, "isWellFormed": lambda text,
        *_: not has_lone_surrogate(text),
        "lastIndexOf": _last_index_of, "normalize": _normalize, "padEnd": _pad_end, "padStart": _pad_start,
        "repeat": _repeat,
        "replace": _replace, "replaceAll": _replace_all, "slice": _slice, "split": _split, "startsWith": _starts_with,
        "substr": _substr, "substring": _substring, "toLowerCase": _lower, "toString": lambda text, *_: text,
        "toUpperCase": _upper, "toWellFormed": _to_well_formed, "trim": lambda text, *_: strip_end(strip_start(text)),
        "trimEnd": _trim_end, "trimLeft": _trim_start, "trimRight": _trim_end, "trimStart": _trim_start,
        "valueOf": lambda text, *_: text, "localeCompare": _LOCALE, "toLocaleLowerCase": _LOCALE,
        "toLocaleUpperCase": _LOCALE, "toLocaleString": lambda text, *_: text, "match": _PATTERN, "matchAll": _PATTERN,
        "search": _PATTERN, **dict.fromkeys(_MARKUP, unsupported("string methods that write HTML are not available")),
    },
)  # fmt: skip


def _string(*arguments: Value) -> str:
    return _text(arguments[0]) if arguments else ""


def _from_char_code(*codes: Value) -> str:
    return "".join([chr(to_uint32(to_number(code)) & 0xFFFF) for code in codes])


def _from_code_point(*codes: Value) -> str:
    characters: list[str] = []
    for code in codes:
        number = to_number(code)
        if not 0 <= number <= 0x10FFFF or number != int(number):
            throw_range_error(f"Invalid code point {number_to_string(number)}")
        characters.append(chr(int(number)))
    return to_units("".join(characters))


STRING = Builtin(
    "String",
    _string,
    construct=unsupported("`new String` is not available in flows; write String(value)"),
    is_instance=lambda value: False,
    members={
        "raw": Builtin("String.raw", unsupported("String.raw is not available in flows; write an ordinary string")),
        "fromCharCode": Builtin("String.fromCharCode", _from_char_code),
        "fromCodePoint": Builtin("String.fromCodePoint", _from_code_point),
    },
)
