"""Properties, calls, construction, iteration: what the dots, brackets and parentheses of a program do.

A property is looked up by the class of its owner: own properties of objects and errors, elements and length of arrays
and strings, static members of builtins, then the builtin methods of that class (METHODS). What JavaScript would find
on a prototype and flows do not have is an UnsupportedError, never undefined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from types import FunctionType
from typing import Any, Final, NoReturn

from rhythm.language.numbers import number_to_string
from rhythm.language.operators import describe, to_number, to_property_key
from rhythm.language.values_map import (
    ARRAY_VALUES,
    COLLECTION_ENTRIES,
    COLLECTION_VALUES,
    HOLE_VALUES,
    STRING_CHARACTERS,
    JSIterator,
    JSMap,
    JSSet,
)
from rhythm.language.values_types import (
    ARRAY_LENGTH_MAX,
    HOLES,
    METHODS,
    MISSING,
    OBJECT_PROTOTYPE_METHODS,
    OBJECT_PROTOTYPE_NAMES,
    UNDEFINED,
    Builtin,
    EmptySlots,
    JSError,
    LimitError,
    Namespace,
    NativeFunction,
    Undefined,
    UnsupportedError,
    Value,
    method_value,
    static_value,
    throw_range_error,
    throw_type_error,
)

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_INDEX_MAX: Final = 2**32 - 2  #: the largest array index
#: What JavaScript's functions have, and some of its constructors; flows refuse it.
FUNCTION_NAMES: Final = frozenset(
    {"name", "length", "call", "apply", "bind", "prototype", "arguments", "caller", "toString",
     "captureStackTrace", "prepareStackTrace", "stackTraceLimit"}
)  # fmt: skip
_DIGITS: Final = frozenset("0123456789")


def index_of(name: str) -> int | None:
    """The array index a property name spells, or None."""
    if _INDEX.fullmatch(name) is None:
        return None
    index = int(name)
    return index if index <= _INDEX_MAX else None


def ordered_keys(owner: dict[str, Value]) -> list[str]:
    """Keys as JavaScript enumerates them: array indices ascending, then the others in insertion order."""
    keys = list(owner)
    for key in keys:
        if key and key[0] in _DIGITS:
            break
    else:
        return keys
    indices = sorted(index for key in keys if (index := index_of(key)) is not None)
    if not indices:
        return keys
    return [*map(str, indices), *(key for key in keys if index_of(key) is None)]


def own_keys(value: Value) -> list[str]:
    """Enumerable own keys of any value, in order."""
    kind = value.__class__
    if kind is dict:
        return ordered_keys(value)
    if kind is list or kind is str:
        return [str(index) for index in range(len(value))]
    if kind is JSError:
        return ordered_keys(value.enumerable())
    return []


def own_value(value: Value, key: str) -> Value:
    """The value of a key that own_keys gave."""
    kind = value.__class__
    if kind is dict:
        return value.get(key, UNDEFINED)
    if kind is JSError:
        return value.props.get(key, UNDEFINED)
    index = index_of(key) if kind is list or kind is str else None
    return value[index] if index is not None and index < len(value) else UNDEFINED


# Reading ------------------------------------------------------------------------------------------


def get_member(owner: Value, name: str, text: str | None) -> Value:
    """``owner.name``."""
    kind = owner.__class__
    if kind is dict:
        if name in owner:
            return owner[name]
        return _inherited(dict, name) if name in OBJECT_PROTOTYPE_NAMES else UNDEFINED
    if kind is list or kind is str:
        if name == "length":
            return float(len(owner))
        if name in METHODS[kind]:
            return method_value(kind, name)
        return _element(owner, name)
    if kind is JSError:
        return _error_member(owner, name)
    if owner is None or kind is Undefined:
        throw_type_error(f"Cannot read properties of {describe(owner)} (reading '{name}')")
    if _is_function(owner):
        return _function_member(owner, name)
    if kind is Namespace:
        found = owner.members.get(name, UNDEFINED)
        if found is UNDEFINED and owner.name == "console":
            raise UnsupportedError(f"`console.{name}` is not available in flows; use console.log")
        return _inherited(dict, name) if found is UNDEFINED and name in OBJECT_PROTOTYPE_NAMES else found
    if name == "size" and (kind is JSMap or kind is JSSet):
        return float(owner.size())
    if kind is EmptySlots:
        return float(owner.length) if name == "length" else _refuse_holes()
    if name in METHODS.get(kind, {}):
        return method_value(kind, name)
    return _inherited(kind, name) if name in OBJECT_PROTOTYPE_NAMES else UNDEFINED


def _element(owner: Value, name: str) -> Value:
    index = index_of(name)
    if index is not None:
        return owner[index] if index < len(owner) else UNDEFINED
    return _inherited(owner.__class__, name) if name in OBJECT_PROTOTYPE_NAMES else UNDEFINED


def _inherited(kind: type, name: str) -> Value:
    if name in OBJECT_PROTOTYPE_METHODS and name in METHODS.get(kind, {}):
        return method_value(kind, name)
    raise UnsupportedError(f"`.{name}` is not available in flows")


def _error_member(error: JSError, name: str) -> Value:
    if name in error.props:
        return error.props[name]
    if name == "name":
        return error.kind
    if name == "message":
        return ""
    if name in METHODS[JSError]:
        return method_value(JSError, name)
    return _inherited(JSError, name) if name in OBJECT_PROTOTYPE_NAMES else UNDEFINED


def _function_member(function: Value, name: str) -> Value:
    if function.__class__ is Builtin:
        found = function.members.get(name)
        if found is not None:
            return static_value(found)
    if name in FUNCTION_NAMES or name in OBJECT_PROTOTYPE_NAMES:
        raise UnsupportedError(f"`.{name}` of a function is not available in flows")
    return UNDEFINED


def _refuse_holes() -> NoReturn:
    raise UnsupportedError(HOLES)


def get_index(owner: Value, key: Value, text: str | None) -> Value:
    """``owner[key]``."""
    kind = owner.__class__
    if key.__class__ is float:
        if kind is list or kind is str:
            if 0.0 <= key < len(owner):
                index = int(key)
                if index == key:
                    return owner[index]
            return UNDEFINED
        name = number_to_string(key)
    elif key.__class__ is str:
        name = key
    else:
        if owner is None or kind is Undefined:
            throw_type_error(f"Cannot read properties of {describe(owner)}{_shown_key('reading', key)}")
        name = to_property_key(key)
    return get_member(owner, name, text)


def _shown_key(doing: str, key: Value) -> str:
    if key.__class__ is dict and "toString" not in key:
        return f" ({doing} '#<Object>')"
    return "" if _is_reference(key) else f" ({doing} '{describe(key)}')"


# Writing ------------------------------------------------------------------------------------------


def set_member(owner: Value, name: str, value: Value, text: str | None) -> Value:
    """``owner.name = value``; gives the value."""
    kind = owner.__class__
    if kind is dict:
        if name == "__proto__" and name not in owner:
            raise UnsupportedError("`__proto__` is not available in flows")
        owner[name] = value
        return value
    if kind is list:
        if name == "length":
            _set_length(owner, value)
        else:
            index = index_of(name)
            if index is None:
                raise UnsupportedError(f"an array cannot have the named property `{name}`; use an object")
            _set_element(owner, index, value)
        return value
    if kind is JSError:
        if name == "__proto__":
            raise UnsupportedError("`__proto__` is not available in flows")
        if name in owner.hidden and name not in owner.props:
            owner.hidden = owner.hidden - {name}
        owner.props[name] = value
        return value
    if owner is None or kind is Undefined:
        throw_type_error(f"Cannot set properties of {describe(owner)} (setting '{name}')")
    if kind is str:
        index = index_of(name)
        if name == "length" or (index is not None and index < len(owner)):
            throw_type_error(f"Cannot assign to read only property '{name}' of string '{owner}'")
        throw_type_error(f"Cannot create property '{name}' on string '{owner}'")
    if kind is float or kind is bool:
        what = "number" if kind is float else "boolean"
        throw_type_error(f"Cannot create property '{name}' on {what} '{describe(owner)}'")
    raise UnsupportedError(
        f"properties can be set on objects, arrays and errors only, not `{name}` on {describe_kind(owner)}"
    )


def describe_kind(value: Value) -> str:
    """What a value is, for our own messages."""
    kind = value.__class__
    if _is_function(value):
        return "a function"
    names = {JSMap: "a Map", JSSet: "a Set", EmptySlots: "an array with holes", Namespace: "a builtin object"}
    return names.get(kind, f"a {kind.__name__.removeprefix('JS')}")


def _set_element(array: list[Value], index: int, value: Value) -> None:
    length = len(array)
    if index < length:
        array[index] = value
    elif index == length:
        if length >= ARRAY_LENGTH_MAX:
            raise LimitError(f"an array has more than {ARRAY_LENGTH_MAX} elements")
        array.append(value)
    else:
        raise UnsupportedError(
            f"writing element {index} of an array of {length} would leave holes; use push, or an object"
        )


def _set_length(array: list[Value], value: Value) -> None:
    length = to_number(value)
    if not 0 <= length < 2**32 or length != int(length):
        throw_range_error("Invalid array length")
    if length > len(array):
        raise UnsupportedError("making an array longer would leave holes; use push or fill")
    del array[int(length) :]


def set_index(owner: Value, key: Value, value: Value, text: str | None) -> Value:
    """``owner[key] = value``; gives the value."""
    if key.__class__ is float:
        if owner.__class__ is list:
            if 0.0 <= key < len(owner) and int(key) == key:
                owner[int(key)] = value
                return value
            if key == len(owner):
                _set_element(owner, len(owner), value)
                return value
        name = number_to_string(key)
    elif key.__class__ is str:
        name = key
    else:
        if owner is None or owner is UNDEFINED:
            throw_type_error(f"Cannot set properties of {describe(owner)}{_shown_key('setting', key)}")
        name = to_property_key(key)
    return set_member(owner, name, value, text)


def delete_member(owner: Value, name: str, text: str | None = None) -> bool:
    """``delete owner.name``."""
    kind = owner.__class__
    if kind is dict:
        owner.pop(name, None)
        return True
    if owner is None or kind is Undefined:
        throw_type_error("Cannot convert undefined or null to object")
    if kind is JSError:
        if name in owner.props:
            del owner.props[name]
        return True
    if kind is list or kind is str:
        index = index_of(name)
        if name == "length" or (kind is str and index is not None and index < len(owner)):
            throw_type_error(f"Cannot delete property '{name}' of {describe_target(owner)}")
        if kind is list and index is not None and index < len(owner):
            raise UnsupportedError("deleting an element would leave a hole; use splice, or set it to undefined")
    elif kind is Namespace or _is_function(owner):
        raise UnsupportedError(f"`{name}` cannot be deleted from {describe_kind(owner)}")
    return True


def describe_target(owner: Value) -> str:
    """The receiver as V8 shows it in property errors."""
    return "[object String]" if owner.__class__ is str else describe(owner)


def delete_index(owner: Value, key: Value, text: str | None = None) -> bool:
    """``delete owner[key]``."""
    if owner is None or owner is UNDEFINED:
        throw_type_error("Cannot convert undefined or null to object")
    return delete_member(owner, key if key.__class__ is str else to_property_key(key), text)


def has_property(key: Value, owner: Value) -> bool:
    """``key in owner``."""
    kind = owner.__class__
    if kind in (str, float, bool, Undefined) or owner is None:
        shown = describe(key) if key.__class__ is not str else key
        throw_type_error(f"Cannot use 'in' operator to search for '{shown}' in {describe(owner)}")
    name = key if key.__class__ is str else to_property_key(key)
    if kind is dict:
        return name in owner or name in OBJECT_PROTOTYPE_NAMES
    if kind is list:
        index = index_of(name)
        if index is not None:
            return index < len(owner)
        return name == "length" or name in METHODS[list] or name in OBJECT_PROTOTYPE_NAMES
    if kind is JSError:
        return (
            name in owner.props
            or name in ("name", "message")
            or name in METHODS[JSError]
            or name in OBJECT_PROTOTYPE_NAMES
        )
    if kind is Namespace:
        return name in owner.members or name in OBJECT_PROTOTYPE_NAMES
    if _is_function(owner):
        raise UnsupportedError("`in` of a function is not available in flows")
    if kind is EmptySlots:
        _refuse_holes()
    return (
        name in METHODS.get(kind, {}) or name in OBJECT_PROTOTYPE_NAMES or (name == "size" and kind in (JSMap, JSSet))
    )


# Calling ------------------------------------------------------------------------------------------


def call(function: Value, text: str | None, *arguments: Value) -> Value:
    """``function(...)``."""
    if function.__class__ is FunctionType:
        return function(*arguments)
    if isinstance(function, NativeFunction):
        return function.call(*arguments)
    throw_type_error(f"{text or '(intermediate value)'} is not a function")


def _is_function(value: Value) -> bool:
    return value.__class__ is FunctionType or isinstance(value, NativeFunction)


def _is_reference(value: Value) -> bool:
    return value.__class__ not in (str, float, bool, Undefined) and value is not None


def call_method(owner: Value, name: str, text: str | None, *arguments: Value) -> Value:
    """``owner.name(...)``."""
    kind = owner.__class__
    if kind is dict:
        found = owner.get(name, MISSING)
        if found is not MISSING:
            if found.__class__ is FunctionType:
                return found(*arguments)
            return call(found, text, *arguments)
    elif kind is JSError and name in owner.props:
        return call(owner.props[name], text, *arguments)
    methods = METHODS.get(kind)
    if methods is not None:
        method = methods.get(name)
        if method is not None:
            return method(owner, *arguments)
    if kind is Builtin and name in owner.members:
        return call(owner.members[name], text, *arguments)
    return call(get_member(owner, name, text), text, *arguments)


def call_index(owner: Value, key: Value, text: str | None, *arguments: Value) -> Value:
    """``owner[key](...)``."""
    if key.__class__ is float and owner.__class__ is list:
        return call(get_index(owner, key, None), text, *arguments)
    if owner is None or owner is UNDEFINED:
        get_index(owner, key, text)
    return call_method(owner, key if key.__class__ is str else to_property_key(key), text, *arguments)


def construct(constructor: Value, text: str | None, *arguments: Value) -> Value:
    """``new constructor(...)``."""
    if constructor.__class__ is Builtin and constructor.construct is not None:
        return constructor.construct(*arguments)
    if constructor.__class__ is FunctionType:
        raise UnsupportedError(
            "`new` is only for Error kinds, Map, Set, Date and Promise; call a function that returns an object"
        )
    throw_type_error(f"{text or '(intermediate value)'} is not a constructor")


def instance_of(value: Value, constructor: Value) -> bool:
    """``value instanceof constructor``."""
    if constructor.__class__ is Builtin:
        test: Callable[[Any], bool] | None = constructor.is_instance
        if test is not None:
            return test(value)
        throw_type_error("Function has non-object prototype 'undefined' in instanceof check")
    if _is_function(constructor):
        raise UnsupportedError("`instanceof` works with builtin constructors only; keep a field that says what it is")
    if constructor.__class__ in (str, float, bool, Undefined) or constructor is None:
        throw_type_error("Right-hand side of 'instanceof' is not an object")
    throw_type_error("Right-hand side of 'instanceof' is not callable")


# Iterating ----------------------------------------------------------------------------------------


def for_of_iterator(value: Value, text: str | None) -> JSIterator:
    """A serialisable iterator over the values of an iterable."""
    kind = value.__class__
    if kind is list:
        return JSIterator(ARRAY_VALUES, value)
    if kind is JSIterator:
        return value  # type: ignore[no-any-return]  # a flow value is Any; its class was just tested
    if kind is str:
        return JSIterator(STRING_CHARACTERS, value)
    if kind is JSMap:
        return JSIterator(COLLECTION_ENTRIES, value)
    if kind is JSSet:
        return JSIterator(COLLECTION_VALUES, value)
    if kind is EmptySlots:
        return JSIterator(HOLE_VALUES, value)
    not_iterable(value, text)


def not_iterable(value: Value, text: str | None) -> NoReturn:
    """Throws the TypeError of a value that cannot be iterated."""
    if text is not None:
        throw_type_error(f"{text} is not iterable")
    throw_type_error(f"{kind_and_value(value)} is not iterable (cannot read property Symbol(Symbol.iterator))")


def is_iterable(value: Value) -> bool:
    return value.__class__ in _ITERABLE


def not_spreadable(value: Value, text: str) -> NoReturn:
    """Throws the TypeError of the last argument of a call, a spread that cannot be iterated."""
    if value is None or value is UNDEFINED:
        throw_type_error(f"{text} is not iterable (cannot read property {describe(value)})")
    throw_type_error("Spread syntax requires ...iterable[Symbol.iterator] to be a function")


_ITERABLE: Final = frozenset([list, str, JSMap, JSSet, JSIterator, EmptySlots])


def kind_and_value(value: Value) -> str:
    """A value as V8 shows it where it does not know its source text."""
    kind = value.__class__
    if kind is Undefined:
        return "undefined"
    if value is None:
        return "object null"
    if kind is float or kind is bool:
        return f"{'number' if kind is float else 'boolean'} {describe(value)}"
    if kind is str:
        return f'string "{value}"'
    return "function" if _is_function(value) else "object"


def iterate(value: Value, text: str | None) -> Iterator[Value]:
    """The values of an iterable; an array is read live."""
    if value.__class__ is list or (value.__class__ is str and value.isascii()):
        return iter(value)
    return for_of_iterator(value, text).drain()


def for_in_keys(value: Value) -> list[str]:
    """The keys that for-in visits."""
    return own_keys(value)


def spread_into_list(target: list[Value], value: Value, text: str | None) -> None:
    """``[...value]`` and ``f(...value)``: appends all its values."""
    if value.__class__ is list:
        target.extend(value)
    else:
        target.extend(islice(iterate(value, text), ARRAY_LENGTH_MAX + 1))
    if len(target) > ARRAY_LENGTH_MAX:
        raise LimitError(f"an array has more than {ARRAY_LENGTH_MAX} elements")


def spread_into_object(target: dict[str, Value], value: Value) -> None:
    """``{...value}``: copies its enumerable own properties."""
    if value.__class__ is dict:
        target.update(value)
        return
    for key in own_keys(value):
        target[key] = own_value(value, key)


def object_rest(value: Value, excluded: list[str]) -> dict[str, Value]:
    """``{a, ...rest}``: a new object without the excluded keys."""
    return {key: own_value(value, key) for key in own_keys(value) if key not in excluded}


def to_object_check(value: Value, text: str | None, key: str | None) -> None:
    """Throws when a value that is taken apart by an object pattern is null or undefined."""
    if value is None or value.__class__ is Undefined:
        shown = text or ("object null" if value is None else "undefined")
        what = f"property '{key}' of '{shown}'" if key is not None else f"'{shown}'"
        throw_type_error(f"Cannot destructure {what} as it is {describe(value)}.")
