"""Object: its static functions, and the methods every object inherits."""

from __future__ import annotations

from rhythm.language.builtins.support import unsupported
from rhythm.language.members import (
    FUNCTION_NAMES,
    index_of,
    iterate,
    own_keys,
    own_value,
    set_member,
    spread_into_object,
)
from rhythm.language.operators import describe, is_object, same_value, tag_of, to_property_key
from rhythm.language.values_types import (
    HOLES,
    UNDEFINED,
    Builtin,
    EmptySlots,
    JSError,
    Namespace,
    UnsupportedError,
    Value,
    is_callable,
    register_methods,
    throw_type_error,
)


def has_own(value: Value, key: Value) -> bool:
    """Whether a value has an own property."""
    name = key if key.__class__ is str else to_property_key(key)
    kind = value.__class__
    if kind is dict:
        return name in value
    if kind is JSError:
        return name in value.props
    if kind is list or kind is str:
        index = index_of(name)
        return name == "length" or (index is not None and index < len(value))
    if kind is Namespace:
        return name in value.members
    if is_callable(value):
        if name in FUNCTION_NAMES:
            raise UnsupportedError(f"`.{name}` of a function is not available in flows")
        return name in getattr(value, "members", {})
    if kind is EmptySlots:
        raise UnsupportedError(HOLES)
    return False


def _object_text(value: Value, *_: Value) -> str:
    if value is UNDEFINED:
        return "[object Undefined]"
    if value is None:
        return "[object Null]"
    return f"[object {tag_of(value)}]"


def _enumerable(value: Value, key: Value = UNDEFINED, *_: Value) -> bool:
    name = key if key.__class__ is str else to_property_key(key)
    return name in own_keys(value)


def _has_own_property(value: Value, key: Value = UNDEFINED, *_: Value) -> bool:
    return has_own(value, key)


register_methods(
    dict,
    "Object",
    {
        "hasOwnProperty": _has_own_property,
        "propertyIsEnumerable": _enumerable,
        "isPrototypeOf": lambda value, other=UNDEFINED, *_: False,
        "toString": _object_text,
        "valueOf": lambda value, *_: value,
        "toLocaleString": unsupported("`.toLocaleString` depends on a locale; format for people in a task"),
    },
)
register_methods(Namespace, "Object", {})


def _checked(value: Value) -> Value:
    if value is None or value is UNDEFINED:
        throw_type_error("Cannot convert undefined or null to object")
    return value


def _keys(value: Value = UNDEFINED, *_: Value) -> Value:
    return own_keys(_checked(value))


def _values(value: Value = UNDEFINED, *_: Value) -> Value:
    return [own_value(value, key) for key in own_keys(_checked(value))]


def _entries(value: Value = UNDEFINED, *_: Value) -> Value:
    return [[key, own_value(value, key)] for key in own_keys(_checked(value))]


def _assign(target: Value = UNDEFINED, *sources: Value) -> Value:
    _checked(target)
    if not is_object(target):
        raise UnsupportedError("Object.assign needs an object as its target")
    for source in sources:
        if source is None or source is UNDEFINED:
            continue
        if target.__class__ is dict and not ("__proto__" in own_keys(source) and "__proto__" not in target):
            spread_into_object(target, source)
        else:
            for key in own_keys(source):
                set_member(target, key, own_value(source, key), None)
    return target


def _from_entries(entries: Value = UNDEFINED, *_: Value) -> Value:
    result: dict[str, Value] = {}
    if entries is None or entries is UNDEFINED:
        throw_type_error("undefined is not iterable")  # what V8 says of null, too
    for entry in iterate(entries, None):
        if not is_object(entry):
            throw_type_error(f"Iterator value {describe(entry)} is not an entry object")
        if entry.__class__ is list:
            key = entry[0] if entry else UNDEFINED
            value = entry[1] if len(entry) > 1 else UNDEFINED
        else:
            key, value = own_value(entry, "0"), own_value(entry, "1")
        result[key if key.__class__ is str else to_property_key(key)] = value
    return result


def _object(value: Value = UNDEFINED, *_: Value) -> Value:
    if value is UNDEFINED or value is None:
        return {}
    if is_object(value):
        return value
    raise UnsupportedError("Object(value) of a primitive is not available in flows")


def _has_own_static(value: Value = UNDEFINED, key: Value = UNDEFINED, *_: Value) -> bool:
    return has_own(_checked(value), key)


_LATER = "is not available in flows; use plain objects"
OBJECT = Builtin(
    "Object",
    _object,
    construct=_object,
    is_instance=is_object,
    members={
        "keys": Builtin("Object.keys", _keys),
        "values": Builtin("Object.values", _values),
        "entries": Builtin("Object.entries", _entries),
        "assign": Builtin("Object.assign", _assign),
        "fromEntries": Builtin("Object.fromEntries", _from_entries),
        "is": Builtin("Object.is", lambda a=UNDEFINED, b=UNDEFINED, *_: same_value(a, b)),
        "hasOwn": Builtin("Object.hasOwn", _has_own_static),
        **{
            name: Builtin(f"Object.{name}", unsupported(f"Object.{name} {_LATER}"))
            for name in (
                "freeze", "isFrozen", "seal", "isSealed", "preventExtensions", "isExtensible", "create",
                "defineProperty",
                "defineProperties", "getPrototypeOf", "setPrototypeOf", "getOwnPropertyDescriptor",
                "getOwnPropertyDescriptors", "getOwnPropertyNames", "getOwnPropertySymbols",
            )
        },
    },
)  # fmt: skip
