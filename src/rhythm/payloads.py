"""Payloads: what goes in and out of an execution, as JSON bytes.

Written as ASCII-escaped JSON, so that U+0000 and lone surrogates survive on their way through the
database, and with key order kept. Read with msgspec, which is fast, and with the standard library where
msgspec is stricter than JSON is (an escaped lone surrogate). Written with msgspec where both write the same
bytes: ASCII without U+007F and without floats (2.7 against 0.9 µs for a small dict, 2026-11).

What JSON cannot say is refused here with the path to it, before anything was stored: NaN, infinities,
sets, bytes, keys that are not text, nesting beyond DEPTH_MAX.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from rhythm import json_deep
from rhythm.errors import InvalidInput, PayloadTooLarge
from rhythm.model import PAYLOAD_BYTES_MAX

DEPTH_MAX = 1000  #: levels of lists and objects
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_SCALARS = frozenset((str, int, bool, type(None)))  #: that msgspec writes as the standard library does
_reader: Any = json.JSONDecoder()
_scan: Callable[[str, int], tuple[Any, int]] = _reader.scan_once


def _unencodable(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON")


# Built once: json.dumps with options makes a new encoder each call, 1.8 against 0.5 us for a small dict.
_encoder: Any = json.encoder
_encode_parts: Callable[[object, int], Iterable[str]] = _encoder.c_make_encoder(
    None, _unencodable, _encoder.encode_basestring_ascii, None, ":", ",", False, False, False
)


def to_text(value: object) -> str:
    """The ASCII-escaped JSON text of a value with nothing in it but what JSON has: no checks, the fastest way.

    Keys that are numbers become text. Raises TypeError, ValueError (NaN, infinities) or RecursionError.
    """
    return "".join(_encode_parts(value, 0))


def encode(value: object, what: str, *, bytes_max: int = PAYLOAD_BYTES_MAX) -> bytes:
    """The value as JSON bytes.

    ``what`` names it in messages ("inputs of 'processOrder'"). Objects of pydantic, dataclasses, datetimes,
    UUIDs, enums and decimals are written the way pydantic writes them. Raises InvalidInput with the path of
    what JSON cannot hold, and PayloadTooLarge over ``bytes_max``.
    """
    try:
        if value.__class__ is dict and (quick := _encode_flat(value)) is not None and len(quick) <= bytes_max:
            return quick
        if not _is_plain(value, bytes_max):
            value = _plain(value, what, "$", 0)
        try:
            data = to_text(value).encode("ascii")
        except RecursionError:
            data = json_deep.write(value, to_text).encode("ascii")
    except RecursionError:
        raise InvalidInput(f"{what} is nested deeper than {DEPTH_MAX} levels") from None
    if len(data) > bytes_max:
        raise PayloadTooLarge(
            f"{what}: {len(data):,} bytes, over the limit of {bytes_max:,} (payload_bytes_max); "
            "store it elsewhere and pass where it is"
        )
    return data


def _encode_flat(value: dict[Any, Any]) -> bytes | None:
    """The JSON bytes of a dict of texts, integers, booleans and None, or None when that is not what it is."""
    for key, item in value.items():
        if key.__class__ is not str or item.__class__ not in _SCALARS:
            return None
    try:
        data = _encode(value)
    except UnicodeEncodeError:  # lone surrogates
        return None
    return data if data.isascii() and b"\x7f" not in data else None


def decode(data: bytes) -> Any:
    """The value of JSON bytes. Raises ValueError when they are not JSON."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, RecursionError):
        text = data.decode()
    try:
        return json.loads(text)
    except RecursionError:
        return json_deep.parse(text, _scan)


def _is_plain(value: object, count_max: int) -> bool:
    """Whether there is nothing in it but what JSON has: the common case, found without making paths.

    More than ``count_max`` values, and levels beyond DEPTH_MAX, are not looked at (a cycle has no end); False then.
    """
    level: list[Any] = [value]
    count = 1
    for depth in range(DEPTH_MAX + 1):
        below: list[Any] = []
        for item in level:
            kind = item.__class__
            if kind is str or kind is int or item is None or item is True or item is False:
                continue
            if kind is dict:
                for key in item:
                    if key.__class__ is not str:
                        return False
                below.extend(item.values())
            elif kind is list:
                below.extend(item)
            elif kind is not float or not math.isfinite(item):
                return False
            if depth == DEPTH_MAX and kind is not float:
                return False
        if not below:
            return True
        count += len(below)
        if count > count_max:
            return False
        level = below
    return False


def _plain(value: Any, what: str, path: str, depth: int) -> Any:
    """The value with nothing in it but what JSON has; the common case is returned as it is."""
    if value is None or isinstance(value, str | bool):
        return value if type(value) in (str, bool, type(None)) else _foreign(value, what, path, depth)
    if type(value) is int:
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise InvalidInput(f"{what}: {path} is {value!r}, which JSON cannot hold")
        return value
    if depth >= DEPTH_MAX:
        raise InvalidInput(f"{what} is nested deeper than {DEPTH_MAX} levels")
    if isinstance(value, dict):
        return {_key(k, what, path): _plain(v, what, f"{path}.{k}", depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, what, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    return _foreign(value, what, path, depth)


def _key(key: object, what: str, path: str) -> str:
    if not isinstance(key, str):
        raise InvalidInput(f"{what}: {path} has the key {key!r}; keys must be text")
    return str(key)


def _foreign(value: object, what: str, path: str, depth: int) -> Any:
    import pydantic
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    if isinstance(value, bytes | bytearray | memoryview | set | frozenset):
        raise InvalidInput(f"{what}: {path} is a {type(value).__name__}, which JSON cannot hold")
    try:
        dump: Callable[..., Any] | None = value.model_dump if isinstance(value, pydantic.BaseModel) else None
        plain = dump(mode="json") if dump else to_jsonable_python(value)
    except (PydanticSerializationError, ValueError, TypeError):
        raise InvalidInput(f"{what}: {path} is a {type(value).__name__}, which JSON cannot hold") from None
    if type(plain) is type(value):
        raise InvalidInput(f"{what}: {path} is a {type(value).__name__}, which JSON cannot hold")
    return _plain(plain, what, path, depth + 1)
