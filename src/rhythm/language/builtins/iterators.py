"""The method of iterators, and Map and Set."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from rhythm.language.builtins.support import callback
from rhythm.language.members import iterate, kind_and_value, own_value
from rhythm.language.operators import describe, is_object
from rhythm.language.values_map import (
    COLLECTION_ENTRIES,
    COLLECTION_KEYS,
    COLLECTION_VALUES,
    Collection,
    JSIterator,
    JSMap,
    JSSet,
)
from rhythm.language.values_types import (
    DONE,
    OBJECT_TAGS,
    UNDEFINED,
    Builtin,
    Value,
    is_callable,
    register_methods,
    throw_type_error,
)


def _next(iterator: JSIterator, *_: Value) -> Value:
    value = iterator.step()
    if value is DONE:
        return {"value": UNDEFINED, "done": True}
    return {"value": value, "done": False}


register_methods(JSIterator, "Iterator", {"next": _next})
OBJECT_TAGS[JSIterator] = "Iterator"


def _for_each(collection: Collection, function: Value = UNDEFINED, *_: Value) -> Value:
    if not is_callable(function):
        throw_type_error(f"{kind_and_value(function)} is not a function")
    f = callback(function)
    iterator = JSIterator(COLLECTION_ENTRIES, collection)
    while (entry := iterator.step()) is not DONE:
        f(entry[1], entry[0], collection)
    return UNDEFINED


def _iterator(kind: str) -> Callable[..., Value]:
    return lambda collection, *_: JSIterator(kind, collection)


_SHARED: dict[str, Callable[..., Value]] = {
    "has": Collection.has,
    "delete": Collection.delete,
    "clear": Collection.clear,
    "forEach": _for_each,
    "entries": _iterator(COLLECTION_ENTRIES),
    "keys": _iterator(COLLECTION_KEYS),
    "values": _iterator(COLLECTION_VALUES),
}
register_methods(JSMap, "Map", {**_SHARED, "get": Collection.get, "set": Collection.put})
register_methods(JSSet, "Set", {**_SHARED, "add": JSSet.add})


def _new_map(entries: Value = UNDEFINED, *_: Value) -> JSMap:
    result = JSMap()
    if entries is None or entries is UNDEFINED:
        return result
    for entry in iterate(entries, None):
        if entry.__class__ is list:
            result.put(entry[0] if entry else UNDEFINED, entry[1] if len(entry) > 1 else UNDEFINED)
        elif is_object(entry):
            result.put(own_value(entry, "0"), own_value(entry, "1"))
        else:
            throw_type_error(f"Iterator value {describe(entry)} is not an entry object")
    return result


def _new_set(values: Value = UNDEFINED, *_: Value) -> JSSet:
    result = JSSet()
    if values is not None and values is not UNDEFINED:
        for value in iterate(values, None):
            result.add(value)
    return result


def _needs_new(name: str) -> Callable[..., NoReturn]:
    return lambda *_: throw_type_error(f"Constructor {name} requires 'new'")


MAP = Builtin("Map", _needs_new("Map"), construct=_new_map, is_instance=lambda value: value.__class__ is JSMap)
SET = Builtin("Set", _needs_new("Set"), construct=_new_set, is_instance=lambda value: value.__class__ is JSSet)
