"""What generated code can reach: the helpers, and nothing else.

`namespace()` is the global namespace of a generated module. Its `__builtins__` is empty; every name in it is listed
here (prefix h_, plus U and FT) or is a builtin value the program names (prefixes g, b and d, see codegen_expressions).

Callables of calls. JavaScript evaluates the callee, then the arguments, and only then finds out that the callee cannot
be called. So the helpers below do not call: they return something Python can call with the arguments, which throws if
it must. Builtin methods take their receiver as the first argument (`method`); `own_method` is for names that no builtin
has, and takes only the arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from types import FunctionType
from typing import Any, Final, NoReturn

from rhythm.language import operators, values
from rhythm.language.promises import Frame
from rhythm.language.values import (
    METHODS,
    TDZ,
    UNDEFINED,
    JSError,
    JSIterator,
    LimitError,
    NativeFunction,
    UnsupportedError,
    Value,
)

ARGUMENTS_MAX: Final = 2**17  #: Arguments that one spread makes; Node's stack holds a little fewer.


def callee(function: Value, text: str | None) -> Callable[..., Value]:
    """What to call for a function value that is not a flow function."""
    if isinstance(function, NativeFunction):
        return function.call
    return lambda *arguments: values.call(function, text, *arguments)


def method(receiver: Value, name: str, text: str | None) -> Callable[..., Value]:
    """What to call, with the receiver first, for `receiver.name(...)`; throws for a receiver without properties."""
    kind = receiver.__class__
    if kind is dict:
        found = receiver.get(name, TDZ)
        if found is not TDZ:
            if found.__class__ is FunctionType:
                return lambda _, *arguments: found(*arguments)
            if isinstance(found, NativeFunction):
                return lambda _, *arguments: found.call(*arguments)
            return lambda _, *arguments: values.call(found, text, *arguments)
    elif receiver is None or receiver is UNDEFINED:
        values.get_member(receiver, name, None)
    if kind is not JSError:
        builtin = METHODS.get(kind, {}).get(name)
        if builtin is not None:
            return builtin
    return lambda receiver, *arguments: values.call_method(receiver, name, text, *arguments)


def own_method(receiver: Value, name: str, text: str | None) -> Callable[..., Value]:
    """What to call, without the receiver, for `receiver.name(...)`."""
    if receiver.__class__ is dict:
        found = receiver.get(name, TDZ)
        if found.__class__ is FunctionType:
            return found
    function = method(receiver, name, text)
    return lambda *arguments: function(receiver, *arguments)


def indexed_method(receiver: Value, key: Value, text: str | None) -> Callable[..., Value]:
    """What to call for `receiver[key](...)`."""
    if receiver.__class__ is list and key.__class__ is float:
        found = values.get_index(receiver, key, None)
        return found if found.__class__ is FunctionType else callee(found, text)
    if receiver is None or receiver is UNDEFINED:
        values.get_index(receiver, key, None)
    name = key if key.__class__ is str else values.to_property_key(key)
    if receiver.__class__ is dict:
        return own_method(receiver, name, text)
    return lambda *arguments: values.call_index(receiver, name, text, *arguments)


def spread(value: Value, text: str | None, others: int = 0) -> list[Value]:
    """All values of an iterable, for `...value` in an array that has so many other elements."""
    result: list[Value] = []
    values.spread_into_list(result, value, text)
    if len(result) + others > values.ARRAY_LENGTH_MAX:
        too_many(result)
    return result


def array(*items: Value) -> list[Value]:
    """An array literal with several spreads."""
    if len(items) > values.ARRAY_LENGTH_MAX:
        raise LimitError(f"an array has more than {values.ARRAY_LENGTH_MAX} elements")
    return list(items)


def spread_arguments(value: Value, text: str | None, others: int = 0) -> list[Value]:
    """All values of an iterable, for `...value` in a call with so many other arguments."""
    if text is not None and not values.is_iterable(value):
        values.not_spreadable(value, text)
    result = spread(value, text)
    if len(result) + others > ARGUMENTS_MAX:
        values.throw_range_error("Maximum call stack size exceeded")
    return result


def spread_object(value: Value) -> dict[str, Value]:
    """Own enumerable properties, for `...value` in an object literal."""
    result: dict[str, Value] = {}
    values.spread_into_object(result, value)
    return result


def unpack(value: Value, count: int, rest: bool, text: str | None) -> list[Value]:
    """The first `count` values of an iterable, padded with undefined, and with `rest` all further ones."""
    iterator = values.for_of_iterator(value, text)
    step = iterator.step
    result = [item if (item := step()) is not values.DONE else UNDEFINED for _ in range(count)]
    if rest:
        result.extend(iterator.drain())
    return result


def remaining(iterator: JSIterator) -> list[Value]:
    """All values an iterator has left."""
    return list(iterator.drain())


def for_in_has(target: Value, key: str) -> bool:
    """Whether a key that for-in is about to visit still exists."""
    kind = target.__class__
    if kind is dict:
        return key in target
    if kind is JSError:
        return key in target.props
    return kind is not list or float(key) < len(target)


def false(_left: Value, _right: Value) -> bool:
    """`===` of two operands of different kinds, which only have to be evaluated."""
    return False


def tdz(name: str) -> NoReturn:
    """Throws the ReferenceError of a variable read before its declaration has run."""
    values.throw_reference_error(f"Cannot access '{name}' before initialization")


def put(cell: list[Value], value: Value) -> Value:
    """Assignment to a captured variable inside an expression."""
    cell[0] = value
    return value


def missing_global(name: str) -> NoReturn:
    """A builtin that this version does not have, in an IR that came from another one."""
    raise UnsupportedError(f"this version of Rhythm has no builtin named {name}")


def too_long(text: str) -> None:
    """Refuses a string that has grown over the limit."""
    operators.too_long(len(text))


def too_many(array: list[Value]) -> NoReturn:
    """An array has outgrown its limit."""
    raise LimitError(f"an array has more than {values.ARRAY_LENGTH_MAX} elements")


def holes() -> NoReturn:
    """The callback of a map has made the array shorter."""
    raise UnsupportedError("the callback of map made the array shorter, which would leave holes")


def each(array: list[Value], length: int) -> Iterator[Value]:
    """What find passes to its callback: undefined for the places the callback itself has taken away."""
    for index in range(length):
        yield array[index] if index < len(array) else UNDEFINED


def same_length(array: list[Value], length: int) -> None:
    """Stops a find whose callback made the array shorter where nothing in its text says so: by a valueOf."""
    if len(array) < length:
        raise UnsupportedError("the callback of find made the array shorter while it compared an element")


def launch(frame: Frame, step: Callable[..., Value], arguments: tuple[Value, ...]) -> Value:
    """The promise of a call of an async function, whose first step has been taken."""
    promise = frame.promise
    try:
        result = step(frame, 0, arguments, False)
    except (values.JSThrow, RecursionError) as error:
        frame.realm.reject_promise(promise, values.caught(error))
        return promise
    if frame.await_id < 0:
        frame.realm.resolve_promise(promise, result)
    else:
        frame.realm.await_value(frame, result)
    return promise


def never() -> NoReturn:
    """The block of an await that cannot be reached: only a forged snapshot resumes there."""
    raise UnsupportedError("the snapshot resumes at a place that the program can never have reached")


_HELPERS: Final[dict[str, Any]] = {
    # values and classes
    "U": UNDEFINED,
    "FT": FunctionType,
    "h_TDZ": TDZ,
    "h_DONE": values.DONE,
    "h_nan": math.nan,
    "h_inf": math.inf,
    "h_float": float,
    "h_str": str,
    "h_bool": bool,
    "h_list": list,
    "h_dict": dict,
    "h_Undefined": UNDEFINED.__class__,
    "h_JSThrow": values.JSThrow,
    "h_CAUGHT": (values.JSThrow, RecursionError),
    "h_MISS": (KeyError, IndexError, TypeError),
    "h_Frame": Frame,
    # limits
    "h_STRING_MAX": values.STRING_LENGTH_MAX,
    "h_ARRAY_MAX": values.ARRAY_LENGTH_MAX,
    "h_ARGUMENTS_MAX": ARGUMENTS_MAX,
    # Python's own functions, called on checked values only
    "h_len": len,
    "h_int": int,
    "h_abs": abs,
    "h_iter": iter,
    "h_islice": islice,
    "h_next": next,
    # operators and conversions
    "h_add": operators.add,
    "h_sub": operators.sub,
    "h_mul": operators.mul,
    "h_div": operators.div,
    "h_mod": operators.mod,
    "h_power": operators.power,
    "h_neg": operators.neg,
    "h_bit_and": operators.bit_and,
    "h_bit_or": operators.bit_or,
    "h_bit_xor": operators.bit_xor,
    "h_bit_not": operators.bit_not,
    "h_shl": operators.shl,
    "h_shr": operators.shr,
    "h_ushr": operators.ushr,
    "h_lt": operators.lt,
    "h_gt": operators.gt,
    "h_le": operators.le,
    "h_ge": operators.ge,
    "h_eq": operators.eq,
    "h_typeof": operators.typeof,
    "h_truthy": operators.truthy,
    "h_to_number": operators.to_number,
    "h_to_string": operators.to_string,
    "h_to_property_key": operators.to_property_key,
    "h_number_to_string": values.number_to_string,
    "h_join_texts": operators.join_texts,
    "h_long": too_long,
    "h_long_array": too_many,
    # properties
    "h_get_member": values.get_member,
    "h_get_index": values.get_index,
    "h_set_member": values.set_member,
    "h_set_index": values.set_index,
    "h_delete_member": values.delete_member,
    "h_delete_index": values.delete_index,
    "h_has_property": values.has_property,
    "h_instance_of": values.instance_of,
    # calls
    "h_callee": callee,
    "h_method": method,
    "h_own_method": own_method,
    "h_indexed_method": indexed_method,
    "h_construct": values.construct,
    # iteration and destructuring
    "h_iterate": values.iterate,
    "h_for_of_iterator": values.for_of_iterator,
    "h_for_in_keys": values.for_in_keys,
    "h_for_in_has": for_in_has,
    "h_array": array,
    "h_spread": spread,
    "h_spread_arguments": spread_arguments,
    "h_spread_object": spread_object,
    "h_object_rest": values.object_rest,
    "h_to_object_check": values.to_object_check,
    "h_unpack": unpack,
    "h_rest": remaining,
    # variables and failures
    "h_put": put,
    "h_false": false,
    "h_tdz": tdz,
    "h_caught": values.caught,
    "h_missing_global": missing_global,
    "h_launch": launch,
    "h_never": never,
    "h_holes": holes,
    "h_each": each,
    "h_same_length": same_length,
}


def namespace(constants: dict[str, Any]) -> dict[str, Any]:
    """A fresh global namespace for a generated module."""
    return {"__builtins__": {}, **_HELPERS, **constants}
