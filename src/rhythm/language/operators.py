"""Operators and conversions with the full coercion rules of ECMAScript.

Generated code guards the common case in line (two floats, two strings) and calls these for the rest; the
first lines of each function repeat the common case for the callers that do not. Objects coerce through their
own ``toString``/``valueOf`` functions, which are called directly from Python, never through C.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from types import FunctionType
from typing import Any, Final

from rhythm.language.numbers import number_to_string, string_to_number, to_int32, to_uint32
from rhythm.language.numbers_pow import power_of
from rhythm.language.values_map import ITERATOR_TAGS, JSIterator, JSMap, JSSet
from rhythm.language.values_types import (
    HOLES,
    NODE_STRING_LENGTH_MAX,
    OBJECT_TAGS,
    STRING_LENGTH_MAX,
    EmptySlots,
    JSDate,
    JSError,
    LimitError,
    Namespace,
    NativeFunction,
    Undefined,
    UnsupportedError,
    Value,
    is_callable,
    throw_range_error,
    throw_type_error,
)

_fmod: Final = math.fmod
_NAN: Final = math.nan
_INFINITY: Final = math.inf
_PRIMITIVES: Final = frozenset({str, float, bool, type(None), Undefined})

#: Default text of objects, filled by the builtins: class -> text(value).
DEFAULT_TEXT: dict[type, Any] = {}


# Kinds -------------------------------------------------------------------------------------------


def typeof(value: Value) -> str:
    """``typeof value``."""
    kind = value.__class__
    if kind is str:
        return "string"
    if kind is float:
        return "number"
    if kind is bool:
        return "boolean"
    if kind is Undefined:
        return "undefined"
    if kind is FunctionType or isinstance(value, NativeFunction):
        return "function"
    return "object"


def is_object(value: Value) -> bool:
    """True for everything that is not a primitive; functions are objects."""
    return value.__class__ not in _PRIMITIVES


def truthy(value: Value) -> bool:
    """ToBoolean."""
    if value:
        return bool(value == value) if value.__class__ is float else True
    return value.__class__ is list or value.__class__ is dict


def describe(value: Value) -> str:
    """A value as V8 shows it inside error messages; runs no flow code."""
    kind = value.__class__
    if kind is str:
        return str(value)
    if kind is float:
        return number_to_string(value)
    if kind is bool:
        return "true" if value else "false"
    if value is None:
        return "null"
    if kind is Undefined:
        return "undefined"
    if kind is list or kind is JSDate or kind is EmptySlots:
        return f"[object {OBJECT_TAGS.get(kind, 'Array')}]"
    if kind is JSError:
        return error_text(value.props.get("name", value.kind), value.props.get("message", ""))
    if kind is FunctionType:
        return "function"
    if isinstance(value, NativeFunction):
        return "function () { [native code] }"
    if kind is dict and "toString" in value:
        return "[object Object]"
    return f"#<{_constructor_name(kind)}>"


def _constructor_name(kind: type) -> str:
    tag = OBJECT_TAGS.get(kind, "Object")
    return tag if kind in (JSMap, JSSet) or tag == "Promise" else "Object"


def error_text(name: Value, message: Value) -> str:
    """What Error.prototype.toString makes of a name and a message that are strings."""
    name = name if name.__class__ is str else "Error"
    message = message if message.__class__ is str else ""
    if not message:
        return str(name)
    return f"{name}: {message}" if name else str(message)


# Conversions -------------------------------------------------------------------------------------


def to_number(value: Value) -> float:
    """ToNumber."""
    kind = value.__class__
    if kind is float:
        return float(value)
    if kind is str:
        return string_to_number(value)
    if kind is bool:
        return 1.0 if value else 0.0
    if value is None:
        return 0.0
    if kind is Undefined:
        return _NAN
    return to_number(to_primitive(value, "number"))


def to_string(value: Value) -> str:
    """ToString."""
    kind = value.__class__
    if kind is str:
        return str(value)
    if kind is float:
        return number_to_string(value)
    if kind is bool:
        return "true" if value else "false"
    if value is None:
        return "null"
    if kind is Undefined:
        return "undefined"
    return to_string(to_primitive(value, "string"))


def to_primitive(value: Value, hint: str) -> Value:
    """ToPrimitive; hint is "default", "number" or "string". Own valueOf and toString functions are honoured."""
    kind = value.__class__
    if kind in _PRIMITIVES:
        return value
    if kind is dict or kind is JSError:
        own = value if kind is dict else value.props
        if "toString" in own or "valueOf" in own:
            return _own_primitive(value, own, hint)
    elif kind is JSDate and hint == "number":
        return value.ms
    return default_text(value)


def _own_primitive(value: Value, own: dict[str, Value], hint: str) -> Value:
    order = ("toString", "valueOf") if hint == "string" else ("valueOf", "toString")
    for name in order:
        if name in own:
            function = own[name]
            if not is_callable(function):
                continue
            result = function() if function.__class__ is FunctionType else function.call()
            if result.__class__ in _PRIMITIVES:
                return result
        elif name == "toString":
            return default_text(value)
    throw_type_error("Cannot convert object to primitive value")


def default_text(value: Value) -> str:
    """What the inherited toString of an object gives."""
    kind = value.__class__
    if kind is dict:
        return "[object Object]"
    text = DEFAULT_TEXT.get(kind)
    if text is not None:
        return str(text(value))
    if kind is FunctionType or isinstance(value, NativeFunction):
        raise UnsupportedError("the text of a function is not available; functions cannot be turned into strings")
    return f"[object {tag_of(value)}]"


def tag_of(value: Value) -> str:
    """X of "[object X]"."""
    kind = value.__class__
    if kind is Namespace:
        return str(value.name)
    if kind is JSIterator:
        return f"{ITERATOR_TAGS.get(value.target.__class__, 'Array')} Iterator"
    return OBJECT_TAGS.get(kind, "Object")


def to_property_key(value: Value) -> str:
    """ToPropertyKey: always a string here, there are no symbols."""
    return to_string(value)


def join_texts(texts: Collection[str]) -> str:
    """Texts in a row. Their length is known before the memory is taken."""
    length = sum(map(len, texts))
    if length > STRING_LENGTH_MAX:
        too_long(length)
    return "".join(texts)


def too_long(length: int) -> None:
    """Refuses a string of that many units: as Node does above its limit, else by our own limit."""
    if length > NODE_STRING_LENGTH_MAX:
        throw_range_error("Invalid string length")
    if length > STRING_LENGTH_MAX:
        raise LimitError(f"a string of {length} units is longer than the limit of {STRING_LENGTH_MAX}")


# Arithmetic --------------------------------------------------------------------------------------


def add(a: Value, b: Value) -> Value:
    """``a + b``."""
    left, right = a.__class__, b.__class__
    if left is str:
        if right is not str:
            b = number_to_string(b) if right is float else to_string(to_primitive(b, "default"))
    elif left is float and right is float:
        return a + b
    elif right is str:
        a = number_to_string(a) if left is float else to_string(to_primitive(a, "default"))
    else:
        a, b = to_primitive(a, "default"), to_primitive(b, "default")
        if a.__class__ is not str and b.__class__ is not str:
            return to_number(a) + to_number(b)
        a, b = to_string(a), to_string(b)
    result = a + b
    if len(result) > STRING_LENGTH_MAX:
        too_long(len(result))
    return result


def sub(a: Value, b: Value) -> float:
    """``a - b``."""
    return to_number(a) - to_number(b)


def mul(a: Value, b: Value) -> float:
    """``a * b``."""
    return to_number(a) * to_number(b)


def div(a: Value, b: Value) -> float:
    """``a / b``."""
    x, y = to_number(a), to_number(b)
    if y:
        return x / y
    if x != x or x == 0.0:
        return _NAN
    return math.copysign(_INFINITY, x) * math.copysign(1.0, y)


def mod(a: Value, b: Value) -> float:
    """``a % b``: the sign of the dividend, NaN for a zero divisor."""
    x, y = to_number(a), to_number(b)
    if 0.0 < x < _INFINITY and 0.0 < y < _INFINITY:
        return x % y  # Not for -0: Python gives 0 there.
    if y == 0.0 or x != x or y != y or x in (_INFINITY, -_INFINITY):
        return _NAN
    return _fmod(x, y)


def power(a: Value, b: Value) -> float:
    """``a ** b``."""
    return power_of(to_number(a), to_number(b))


def neg(a: Value) -> float:
    """``-a``."""
    return -to_number(a)


def bit_and(a: Value, b: Value) -> float:
    """``a & b``."""
    return float(to_int32(to_number(a)) & to_int32(to_number(b)))


def bit_or(a: Value, b: Value) -> float:
    """``a | b``."""
    return float(to_int32(to_number(a)) | to_int32(to_number(b)))


def bit_xor(a: Value, b: Value) -> float:
    """``a ^ b``."""
    return float(to_int32(to_number(a)) ^ to_int32(to_number(b)))


def bit_not(a: Value) -> float:
    """``~a``."""
    return float(~to_int32(to_number(a)))


def shl(a: Value, b: Value) -> float:
    """``a << b``."""
    left = to_int32(to_number(a))
    return float(to_int32(float(left << (to_uint32(to_number(b)) & 31))))


def shr(a: Value, b: Value) -> float:
    """``a >> b``."""
    left = to_int32(to_number(a))
    return float(left >> (to_uint32(to_number(b)) & 31))


def ushr(a: Value, b: Value) -> float:
    """``a >>> b``."""
    left = to_uint32(to_number(a))
    return float(left >> (to_uint32(to_number(b)) & 31))


# Comparison --------------------------------------------------------------------------------------


def lt(a: Value, b: Value) -> bool:
    """``a < b``."""
    a, b = _comparable(a, b)
    return bool(a < b)


def gt(a: Value, b: Value) -> bool:
    """``a > b``."""
    a, b = _comparable(a, b)
    return bool(a > b)


def le(a: Value, b: Value) -> bool:
    """``a <= b``."""
    a, b = _comparable(a, b)
    return bool(a <= b)


def ge(a: Value, b: Value) -> bool:
    """``a >= b``."""
    a, b = _comparable(a, b)
    return bool(a >= b)


def _comparable(a: Value, b: Value) -> tuple[Any, Any]:
    """Both operands as strings or both as numbers; comparing UTF-16 units is comparing these strings."""
    left, right = a.__class__, b.__class__
    if left is right and (left is float or left is str):
        return a, b
    a, b = to_primitive(a, "number"), to_primitive(b, "number")
    if a.__class__ is str and b.__class__ is str:
        return a, b
    return to_number(a), to_number(b)


def strict_eq(a: Value, b: Value) -> bool:
    """``a === b``."""
    kind = a.__class__
    if kind is not b.__class__:
        if kind is EmptySlots or b.__class__ is EmptySlots:
            _refuse_holes()
        return False
    if kind is float or kind is str:
        return bool(a == b)
    if kind is EmptySlots:
        _refuse_holes()
    return a is b


def _refuse_holes() -> None:
    raise UnsupportedError(HOLES)


def eq(a: Value, b: Value) -> bool:
    """``a == b`` with every coercion."""
    while True:
        left, right = a.__class__, b.__class__
        if left is right:
            return strict_eq(a, b)
        if a is None or left is Undefined:
            return b is None or right is Undefined
        if b is None or right is Undefined:
            return False
        if left is bool:
            a = 1.0 if a else 0.0
        elif right is bool:
            b = 1.0 if b else 0.0
        elif left in _PRIMITIVES:
            if right in _PRIMITIVES:
                return to_number(a) == to_number(b)
            b = to_primitive(b, "default")
        elif right in _PRIMITIVES:
            a = to_primitive(a, "default")
        else:
            return strict_eq(a, b)


def same_value_zero(a: Value, b: Value) -> bool:
    """Equality of includes, Map and Set: strict, but NaN equals itself."""
    kind = a.__class__
    if kind is not b.__class__:
        return False
    if kind is float:
        return bool(a == b) or (a != a and b != b)
    return bool(a == b) if kind is str else a is b


def same_value(a: Value, b: Value) -> bool:
    """Object.is: NaN equals itself, 0 differs from -0."""
    if a.__class__ is float and b.__class__ is float and a == b:
        return math.copysign(1.0, a) == math.copysign(1.0, b)
    return same_value_zero(a, b)
