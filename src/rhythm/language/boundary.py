"""The boundary: JSON in, JSON out, the same rules for `evaluate`, workers and clients.

In: numbers become doubles; a whole number that no double holds exactly is refused with its path, never rounded; keys
as given (`__proto__` is an own key), later duplicates win. Out: the rules of JSON.stringify, but loud: NaN, infinities,
functions, promises, Map, Set and cycles are a TypeError that names the path; whole numbers below 1e21 have no fraction;
an Error becomes {name, message, cause?, own properties}. Written ASCII-escaped. Nesting beyond DEPTH_MAX is refused
both ways.

Failures: `to_json` throws flow TypeErrors (JSThrow) at the call that caused them; `from_json` raises InvalidInput.
"""

from __future__ import annotations

import json
import math
from itertools import islice
from types import FunctionType
from typing import Any, Final, NoReturn

import msgspec

from rhythm.errors import InvalidInput
from rhythm.language.calendar import iso_text
from rhythm.language.members import own_keys
from rhythm.language.numbers import number_to_string
from rhythm.language.operators import describe
from rhythm.language.units import to_units
from rhythm.language.values_map import JSIterator, JSMap, JSSet
from rhythm.language.values_types import (
    UNDEFINED,
    EmptySlots,
    FatalError,
    JSDate,
    JSError,
    Namespace,
    NativeFunction,
    Value,
    is_callable,
    throw_type_error,
)

DEPTH_MAX: Final = 1000  #: Levels of objects and arrays.
JSON_BYTES_MAX: Final = 64 << 20  #: Anything larger is given up while it is written, whatever the caller allows.
NAME_UNITS_MAX: Final = 1 << 10  #: Of an error's name that is stored; more is cut.
TEXT_UNITS_MAX: Final = 1 << 14  #: Of an error's message or stack that is stored; more is cut.
PROPERTIES_BYTES_MAX: Final = 256 << 10  #: Of an error's properties that are stored; what no longer fits is left out.
CAUSE_UNITS_MAX: Final = 1 << 11  #: The same of a cause.
CAUSES_MAX: Final = 20  #: Errors of a chain of causes that are stored.
PATH_UNITS_MAX: Final = 200  #: Of a path that is shown.
_EXACT: Final = 2**53
_decode = msgspec.json.Decoder().decode
_quote = json.JSONEncoder(ensure_ascii=True).encode


# In -----------------------------------------------------------------------------------------------


def from_json(data: bytes, what: str = "value") -> Value:
    """The flow value of JSON bytes. Raises InvalidInput naming the path of what flows cannot hold."""
    try:
        value = _decode(data)
    except (msgspec.DecodeError, RecursionError):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{what} is not JSON that flows can read: {error}") from None
    return from_plain(value, what)


def from_plain(value: Any, what: str = "value") -> Value:
    """The flow value of JSON-shaped Python data. Raises InvalidInput as ``from_json``."""
    return _convert(value, what, "$", 0)


def _convert(value: Any, what: str, path: str, depth: int) -> Value:
    kind = value.__class__
    if kind is str:
        return value if value.isascii() else to_units(value)
    if kind is int:
        if -_EXACT <= value <= _EXACT:
            return float(value)
        return _big(value, what, path)
    if kind is float:
        if not math.isfinite(value):
            raise InvalidInput(f"{what}: {path} is {value!r}, which JSON cannot hold")
        return value
    if value is None or kind is bool:
        return value
    if depth >= DEPTH_MAX:
        raise InvalidInput(f"{what} is nested deeper than {DEPTH_MAX} levels")
    if kind is dict:
        return {
            (key if key.isascii() else to_units(key)): (
                item if item.__class__ is str and item.isascii() else _convert(item, what, f"{path}.{key}", depth + 1)
            )
            for key, item in value.items()
        }
    if kind is list or kind is tuple:
        return [_convert(item, what, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise InvalidInput(f"{what}: {path} is a {kind.__name__}, which JSON cannot hold")


def _big(value: int, what: str, path: str) -> float:
    """A double for a whole number that it holds exactly, or that is written as JavaScript writes that double."""
    try:
        exact = float(value)
    except OverflowError:
        exact = math.inf
    if exact != value and number_to_string(exact) != str(value):
        raise InvalidInput(
            f"{what}: {path} is {value}, which no double holds exactly; pass ids and big numbers as strings"
        )
    return exact


# Out ----------------------------------------------------------------------------------------------


def to_json(value: Value, what: str, bytes_max: int = JSON_BYTES_MAX) -> bytes:
    """JSON bytes of a flow value. Throws a TypeError with the path of what JSON cannot hold.

    So it does when there are many more than ``bytes_max``, without writing them all: the caller measures exactly.
    """
    text = _Writer(what, bytes_max).write(value, "$", "", 0)
    return b"null" if text is None else text.encode("ascii")


def to_plain(value: Value, what: str, bytes_max: int = JSON_BYTES_MAX) -> Any:
    """The same as JSON-shaped Python data."""
    return json.loads(to_json(value, what, bytes_max))


class _Writer:
    def __init__(self, what: str, bytes_max: int) -> None:
        self.what = what
        self.bytes_max = bytes_max
        self.bytes = 0  # at least so many are written
        self.active: set[int] = set()

    def fail(self, path: str, problem: str) -> NoReturn:
        shown = path if len(path) <= PATH_UNITS_MAX else f"{path[:PATH_UNITS_MAX]}…"
        throw_type_error(f"{self.what} {shown} {problem}")

    def made_of(self, count: int, path: str) -> None:
        """Counts the elements of an array or object before they are written: each takes two bytes at least."""
        self.bytes += 2 * count
        if self.bytes > self.bytes_max:
            self.too_large(path)

    def too_large(self, path: str) -> NoReturn:
        self.fail(path, f"makes it larger than {self.bytes_max:,} bytes; store it elsewhere and pass where it is")

    def quoted(self, text: str, path: str) -> str:
        if self.bytes + len(text) <= self.bytes_max:
            text = _quote(text)
            self.bytes += len(text)
            if self.bytes <= self.bytes_max:
                return text
        self.too_large(path)

    def write(self, value: Value, path: str, key: str, depth: int) -> str | None:
        """The text; None for undefined."""
        kind = value.__class__
        if kind is str:
            return self.quoted(value, path)
        if kind is float:
            return self.number(value, path)
        if value is None:
            return "null"
        if kind is bool:
            return "true" if value else "false"
        if value is UNDEFINED:
            return None
        if kind is JSDate:
            return "null" if value.ms != value.ms else f'"{iso_text(value.ms)}"'
        return self.structure(value, path, key, depth)

    def number(self, value: float, path: str) -> str:
        if value.is_integer():
            if -_EXACT <= value <= _EXACT:
                return str(int(value))
            if abs(value) < 1e21:
                return number_to_string(value)  # the digits of JSON.stringify: the shortest that mean this double
        if not math.isfinite(value):
            self.fail(path, f"is {describe(value)}, which JSON cannot hold")
        return repr(value)

    def structure(self, value: Value, path: str, key: str, depth: int) -> str | None:
        if depth >= DEPTH_MAX:
            self.fail(path, f"is nested deeper than {DEPTH_MAX} levels")
        if id(value) in self.active:
            self.fail(path, "is part of a cycle")
        self.active.add(id(value))
        try:
            own = value.get("toJSON") if value.__class__ is dict else None
            if value.__class__ is JSError:
                own = value.props.get("toJSON")
            if own is not None and is_callable(own):
                result = own(key) if own.__class__ is FunctionType else own.call(key)
                if result is not value:
                    return self.replacement(result, path, depth)
            return self.contents(value, path, depth)
        finally:
            self.active.discard(id(value))

    def replacement(self, value: Value, path: str, depth: int) -> str | None:
        """What a toJSON gave, whose own toJSON is not called."""
        if value.__class__ is not dict and value.__class__ is not JSError:
            return self.write(value, path, "", depth)
        if id(value) in self.active:
            self.fail(path, "is part of a cycle")
        self.active.add(id(value))
        try:
            return self.contents(value, path, depth)
        finally:
            self.active.discard(id(value))

    def contents(self, value: Value, path: str, depth: int) -> str | None:
        """An array, object or error without asking its toJSON, which may change it from below all the same."""
        kind = value.__class__
        if kind is list:
            count = len(value)
            self.made_of(count, path)
            items = [
                self.write(item, f"{path}[{index}]", str(index), depth + 1) or "null"
                for index, item in enumerate(islice(value, count))
            ]
            items += ["null"] * (count - len(items))
            return f"[{','.join(items)}]"
        if kind is not dict and kind is not JSError:
            self.fail(path, f"is {_name(value)}, which JSON cannot hold")
        properties = value if kind is dict else error_properties(value)
        self.made_of(len(properties), path)
        parts = []
        for key in own_keys(properties):
            item = properties.get(key, UNDEFINED)
            if key == "toJSON" and is_callable(item):
                continue
            text = self.write(item, f"{path}.{key}", key, depth + 1)
            if text is not None:
                parts.append(f"{self.quoted(key, path)}:{text}")
        return f"{{{','.join(parts)}}}"


def _name(value: Value) -> str:
    if value.__class__ is FunctionType or isinstance(value, NativeFunction):
        return "a function"
    names = {
        JSMap: "a Map",
        JSSet: "a Set",
        JSIterator: "an iterator",
        EmptySlots: "an array with holes",
        Namespace: "a builtin",
    }
    return names.get(value.__class__, "a promise")


def error_properties(error: JSError) -> dict[str, Value]:
    """An error as a plain object: name, message, cause if there is one, own enumerable properties."""
    props = error.props
    result: dict[str, Value] = {"name": props.get("name", error.kind), "message": props.get("message", "")}
    if "cause" in props:
        result["cause"] = props["cause"]
    if error.kind == "AggregateError" and "errors" in props:
        result["errors"] = props["errors"]
    for key, value in error.enumerable().items():
        if key not in result:
            result[key] = value
    return result


# Errors across the boundary -----------------------------------------------------------------------

_PAYLOAD_FIELDS: Final = ("task", "workflow", "executionId", "attempts", "type", "data", "retryable")
_HIDDEN_FIELDS: Final = frozenset({"name", "message", "cause", "stack", "traceback", "props"})


def error_from_payload(payload: dict[str, Any]) -> Value:
    """The value a flow catches for a stored failure: an Error, or what was thrown."""
    if "thrown" in payload:
        return from_plain(payload["thrown"])
    return _error(payload, 0)


def _error(payload: dict[str, Any], depth: int) -> JSError:
    name = to_units(str(payload.get("name") or "Error"))
    message = to_units(str(payload.get("message") or ""))
    error = JSError("Error", message, header=f"{name}: {message}" if message else name)
    error.props["name"] = name
    error.hidden = error.hidden | {"name"}
    extra = payload.get("props")
    fields = {
        **(extra if isinstance(extra, dict) else {}),
        **{key: payload[key] for key in _PAYLOAD_FIELDS if key in payload},
    }
    for key, value in fields.items():
        if key not in _HIDDEN_FIELDS:
            error.props[to_units(key)] = from_plain(value)
    cause = payload.get("cause")
    if isinstance(cause, dict) and "message" in cause and depth < 20:
        error.props["cause"] = _error(cause, depth + 1)
    elif cause is not None:
        error.props["cause"] = from_plain(cause)
    return error


def error_payload(value: Value) -> dict[str, Any]:
    """What is stored of a value that a flow threw: {"name", "message", "stack", …}, or {"thrown"}.

    Properties that JSON cannot hold are left out: a failure must never fail to be stored.
    """
    if value.__class__ is not JSError:
        try:
            return {"thrown": to_plain(value, "thrown value", PROPERTIES_BYTES_MAX)}
        except FatalError:
            raise
        except Exception:  # noqa: BLE001  (whatever it is, the failure itself has to be kept)
            return {"thrown": _text(value, TEXT_UNITS_MAX)}
    return _ErrorWriter().payload(value, 0)


class _ErrorWriter:
    """Writes one failure. Its properties, and those of its causes, share PROPERTIES_BYTES_MAX."""

    def __init__(self) -> None:
        self.bytes_left = PROPERTIES_BYTES_MAX

    def payload(self, error: JSError, depth: int) -> dict[str, Any]:
        props = error.props
        units_max = CAUSE_UNITS_MAX if depth else TEXT_UNITS_MAX
        payload: dict[str, Any] = {
            "name": _text(props.get("name", error.kind), NAME_UNITS_MAX),
            "message": _text(props.get("message", ""), units_max),
            "type": "failed",
            "stack": _text(props.get("stack", ""), units_max),
        }
        extra: dict[str, Any] = {}
        for key, value in error.enumerable().items():
            if key in ("name", "message", "stack"):
                continue
            if self.bytes_left <= len(key):
                break
            try:
                plain = self.plain(value, key)
            except FatalError:
                raise
            except Exception:  # noqa: BLE001  (as above)
                continue
            self.bytes_left -= len(key)
            (payload if key in _PAYLOAD_FIELDS else extra)[key] = plain
        if extra:
            payload["props"] = extra
        cause = props.get("cause")
        if cause.__class__ is JSError and depth < CAUSES_MAX:
            payload["cause"] = self.payload(cause, depth + 1)
        elif cause is not None and cause is not UNDEFINED:
            try:
                payload["cause"] = self.plain(cause, "cause")
            except FatalError:
                raise
            except Exception:  # noqa: BLE001  (as above)
                payload["cause"] = _text(cause, TEXT_UNITS_MAX)
        return payload

    def plain(self, value: Value, what: str) -> Any:
        data = to_json(value, what[:PATH_UNITS_MAX], self.bytes_left)
        self.bytes_left -= len(data)
        return json.loads(data)


def _text(value: Value, units_max: int) -> str:
    text = value if value.__class__ is str else describe(value)
    return text if len(text) <= units_max else text[:units_max] + "…"
