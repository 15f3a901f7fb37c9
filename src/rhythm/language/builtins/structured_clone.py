"""structuredClone: a deep copy that keeps identity and cycles."""

from __future__ import annotations

from types import FunctionType
from typing import NoReturn

from rhythm.language.operators import describe, is_object, to_string
from rhythm.language.values_map import JSMap, JSSet
from rhythm.language.values_types import (
    HOLES,
    UNDEFINED,
    Builtin,
    EmptySlots,
    JSDate,
    JSError,
    JSThrow,
    Namespace,
    NativeFunction,
    Undefined,
    UnsupportedError,
    Value,
    throw_type_error,
)

_CLONED_KINDS = frozenset(
    {"Error", "EvalError", "RangeError", "ReferenceError", "SyntaxError", "TypeError", "URIError"}
)


def _refuse(value: Value) -> NoReturn:
    is_function = value.__class__ is FunctionType or isinstance(value, NativeFunction)
    shown = "function" if is_function else describe(value)
    error = JSError("Error", f"{shown} could not be cloned.", header=f"DataCloneError: {shown} could not be cloned.")
    error.props["name"] = "DataCloneError"
    error.props["code"] = 25.0
    error.hidden = error.hidden | {"name", "code"}
    raise JSThrow(error)


def _clone(value: Value, seen: dict[int, Value]) -> Value:
    kind = value.__class__
    if kind in (str, float, bool, Undefined) or value is None:
        return value
    known = seen.get(id(value))
    if known is not None:
        return known
    if kind is list:
        array: list[Value] = []
        seen[id(value)] = array
        array.extend([_clone(item, seen) for item in value])
        return array
    if kind is dict:
        copy: dict[str, Value] = {}
        seen[id(value)] = copy
        for key, item in value.items():
            copy[key] = _clone(item, seen)
        return copy
    if kind is JSDate:
        return seen.setdefault(id(value), JSDate(value.ms))
    if kind is JSMap or kind is JSSet:
        collection = JSMap() if kind is JSMap else JSSet()
        seen[id(value)] = collection
        for key, item in value.entries():
            collection.put(_clone(key, seen), _clone(item, seen))
        return collection
    if kind is JSError:
        return _clone_error(value, seen)
    if kind is Namespace and value.name in ("Math", "JSON"):
        return {}  # no property of theirs is enumerable
    if kind is EmptySlots:
        raise UnsupportedError(HOLES)
    _refuse(value)


def _clone_error(error: JSError, seen: dict[int, Value]) -> JSError:
    name = to_string(error.props.get("name", error.kind))
    copy = JSError.restore(name if name in _CLONED_KINDS else "Error", {})
    seen[id(error)] = copy
    for key in ("stack", "message", "cause"):
        if key in error.props:
            value = error.props[key]
            if key == "message":
                copy.props[key] = to_string(value)
            elif key == "cause" or value.__class__ is str:  # a stack that is no text is left out
                copy.props[key] = _clone(value, seen)
    return copy


def _structured_clone(*arguments: Value) -> Value:
    if not arguments:
        throw_type_error("The value argument must be specified")
    if len(arguments) > 1 and not (is_object(arguments[1]) or arguments[1] is None or arguments[1] is UNDEFINED):
        throw_type_error("The options argument must be either an object or undefined")
    return _clone(arguments[0], {})


STRUCTURED_CLONE = Builtin("structuredClone", _structured_clone)
