"""Array: every method of ES2023 over arrays without holes.

Callbacks are called from Python loops, never from C; one that cannot see the index and the array does not get them
(building them took half of the time of map). Methods see changes their callbacks make, as in JavaScript: the
length is read at the start, elements when their turn comes. So do methods whose index arguments are objects: a
``valueOf`` that changes the array runs after the length was read.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from rhythm.language.builtins.sorting import check_comparison, sort_items
from rhythm.language.builtins.support import callback, check_length, integer, relative, takes_at_most, unsupported
from rhythm.language.members import get_member, iterate, not_iterable, own_value, spread_into_list
from rhythm.language.operators import DEFAULT_TEXT, describe, same_value_zero, strict_eq, to_number, to_string, too_long
from rhythm.language.values_map import (
    ARRAY_ENTRIES,
    ARRAY_KEYS,
    ARRAY_VALUES,
    HOLE_KEYS,
    HOLE_VALUES,
    JSIterator,
    JSMap,
    JSSet,
)
from rhythm.language.values_types import (
    ARRAY_LENGTH_MAX,
    HOLES,
    STRING_LENGTH_MAX,
    UNDEFINED,
    Builtin,
    EmptySlots,
    UnsupportedError,
    Value,
    is_callable,
    joining_arrays,
    register_methods,
    throw_range_error,
    throw_type_error,
)

COMPARED_AT_ONCE_MAX: Final = 1 << 28  #: Units that C compares in one call, at most some tenths of a second's work.

Array = list[Value]


# Adding and removing ------------------------------------------------------------------------------


def _push(array: Array, *items: Value) -> float:
    array.extend(items)
    if len(array) > ARRAY_LENGTH_MAX:
        check_length(len(array))
    return float(len(array))


def _pop(array: Array, *_: Value) -> Value:
    return array.pop() if array else UNDEFINED


def _shift(array: Array, *_: Value) -> Value:
    return array.pop(0) if array else UNDEFINED


def _unshift(array: Array, *items: Value) -> float:
    check_length(len(array) + len(items))
    array[:0] = items
    return float(len(array))


def _splice_bounds(array: Array, arguments: tuple[Value, ...]) -> tuple[int, int]:
    length = len(array)
    if not arguments:
        return 0, 0
    start = relative(arguments[0], length, 0)
    if len(arguments) == 1:
        return start, length
    return start, start + int(min(max(integer(arguments[1]), 0.0), float(length - start)))


def _splice(array: Array, *arguments: Value) -> Array:
    length = len(array)
    start, end = _splice_bounds(array, arguments)
    if len(array) != length:  # by a valueOf
        _refuse_shorter(array, length)
        del array[length:]
    check_length(length + len(arguments))
    removed = array[start:end]
    array[start:end] = arguments[2:]
    return removed


def _refuse_shorter(array: Array, length: int) -> None:
    if len(array) < length:
        raise UnsupportedError("an index argument made the array shorter, which would leave holes")


def _to_spliced(array: Array, *arguments: Value) -> Array:
    length = len(array)
    start, end = _splice_bounds(array, arguments)
    items = _at_length(array, length)
    result = [*items[:start], *arguments[2:], *items[end:]]
    check_length(len(result))
    return result


def _at_length(array: Array, length: int) -> Array:
    """The array, or if an index argument changed its length, what a loop up to the old length reads."""
    if len(array) == length:
        return array
    return array[:length] + [UNDEFINED] * (length - len(array))


def _fill(array: Array, value: Value = UNDEFINED, start: Value = UNDEFINED, end: Value = UNDEFINED, *_: Value) -> Array:
    length = len(array)
    first, last = relative(start, length, 0), relative(end, length, length)
    for index in range(first, min(last, len(array))):  # V8 does not fill what an argument took away
        array[index] = value
    return array


def _copy_within(
    array: Array, target: Value = UNDEFINED, start: Value = UNDEFINED, end: Value = UNDEFINED, *_: Value
) -> Array:
    length = len(array)
    to = relative(target, length, 0)
    first, last = relative(start, length, 0), relative(end, length, length)
    part = array[first : min(last, first + length - to)] if last > first else []
    if part or last > first:
        _refuse_shorter(array, length)
    array[to : to + len(part)] = part
    return array


def _reverse(array: Array, *_: Value) -> Array:
    array.reverse()
    return array


# Copying ------------------------------------------------------------------------------------------


def _slice(array: Array, start: Value = UNDEFINED, end: Value = UNDEFINED, *_: Value) -> Array:
    length = len(array)
    first, last = relative(start, length, 0), relative(end, length, length)
    if last > len(array) and last > first:
        _refuse_shorter(array, length)
    return array[first:last]


def _concat(array: Array, *items: Value) -> Array:
    result = array[:]
    for item in items:
        if item.__class__ is list:
            check_length(len(result) + len(item))
            result += item
        elif item.__class__ is EmptySlots:
            raise UnsupportedError(HOLES)
        else:
            result.append(item)
    check_length(len(result))
    return result


def _with(array: Array, index: Value = UNDEFINED, value: Value = UNDEFINED, *_: Value) -> Array:
    length = len(array)
    place = integer(index)
    actual = place + length if place < 0 else place
    if not 0 <= actual < length:
        throw_range_error(f"Invalid index : {describe(index)}")
    result = _at_length(array, length)[:]
    result[int(actual)] = value
    return result


def _flatten(target: Array, source: Array, length: int, depth: float) -> None:
    for item in islice(source, length):
        if item.__class__ is list and depth > 0:
            _flatten(target, item, len(item), depth - 1)
        elif item.__class__ is EmptySlots:
            raise UnsupportedError(HOLES)
        else:
            target.append(item)
    check_length(len(target))


def _flat(array: Array, depth: Value = UNDEFINED, *_: Value) -> Array:
    result: Array = []
    length = len(array)
    _flatten(result, array, length, 1.0 if depth is UNDEFINED else integer(depth))
    return result


def _flat_map(array: Array, function: Value = UNDEFINED, *_: Value) -> Array:
    if not is_callable(function):
        throw_type_error("flatMap mapper function is not callable")
    f = callback(function)
    result: Array = []
    for index in range(len(array)):
        if index >= len(array):
            break
        _flatten(result, [f(array[index], float(index), array)], 1, 1.0)
    return result


# Callbacks ----------------------------------------------------------------------------------------


def _for_each(array: Array, function: Value = UNDEFINED, *_: Value) -> Value:
    f = callback(function)
    if takes_at_most(function, 1):
        for item in islice(array, len(array)):
            f(item)
        return UNDEFINED
    for index in range(len(array)):
        if index >= len(array):
            break
        f(array[index], float(index), array)
    return UNDEFINED


def _map(array: Array, function: Value = UNDEFINED, *_: Value) -> Array:
    f = callback(function)
    result: Array = []
    length = len(array)
    if takes_at_most(function, 1):
        result = [f(item) for item in islice(array, length)]
    else:
        for index in range(length):
            if index >= len(array):
                break
            result.append(f(array[index], float(index), array))
    if len(result) < length:
        raise UnsupportedError("the callback of map made the array shorter, which would leave holes")
    return result


def _filter(array: Array, function: Value = UNDEFINED, *_: Value) -> Array:
    f = callback(function)
    if takes_at_most(function, 1):
        items = islice(array, len(array))
        return [item for item in items if (kept := f(item)) is True or (kept is not False and _true(kept))]
    result: Array = []
    for index in range(len(array)):
        if index >= len(array):
            break
        item = array[index]
        if _true(f(item, float(index), array)):
            result.append(item)
    return result


def _true(value: Value) -> bool:
    if value is True or value is False:
        return value is True
    if value:
        return bool(value == value) if value.__class__ is float else True
    return value.__class__ is list or value.__class__ is dict


def _some(array: Array, function: Value = UNDEFINED, *_: Value) -> bool:
    f = callback(function)
    for index in range(len(array)):
        if index >= len(array):
            break
        if _true(f(array[index], float(index), array)):
            return True
    return False


def _every(array: Array, function: Value = UNDEFINED, *_: Value) -> bool:
    f = callback(function)
    for index in range(len(array)):
        if index >= len(array):
            break
        if not _true(f(array[index], float(index), array)):
            return False
    return True


def _search(array: Array, function: Value, backwards: bool) -> tuple[float, Value]:
    f = callback(function)
    length = len(array)
    for index in range(length - 1, -1, -1) if backwards else range(length):
        item = array[index] if index < len(array) else UNDEFINED
        if _true(f(item, float(index), array)):
            return float(index), item
    return -1.0, UNDEFINED


def _find(array: Array, function: Value = UNDEFINED, *_: Value) -> Value:
    return _search(array, function, False)[1]


def _find_index(array: Array, function: Value = UNDEFINED, *_: Value) -> float:
    return _search(array, function, False)[0]


def _find_last(array: Array, function: Value = UNDEFINED, *_: Value) -> Value:
    return _search(array, function, True)[1]


def _find_last_index(array: Array, function: Value = UNDEFINED, *_: Value) -> float:
    return _search(array, function, True)[0]


def _reduce(array: Array, *arguments: Value) -> Value:
    return _fold(array, arguments, range(len(array)))


def _reduce_right(array: Array, *arguments: Value) -> Value:
    return _fold(array, arguments, range(len(array) - 1, -1, -1))


def _fold(array: Array, arguments: tuple[Value, ...], places: range) -> Value:
    f = callback(arguments[0] if arguments else UNDEFINED)
    if len(arguments) > 1:
        value = arguments[1]
    elif places:
        value, places = array[places[0]], places[1:]
    else:
        throw_type_error("Reduce of empty array with no initial value")
    if takes_at_most(arguments[0], 2) and places.step > 0:
        for item in islice(array, places.start, places.stop):
            value = f(value, item)
        return value
    for index in places:
        if index < len(array):
            value = f(value, array[index], float(index), array)
    return value


# Searching ----------------------------------------------------------------------------------------


def _index_of(array: Array, item: Value = UNDEFINED, start: Value = UNDEFINED, *_: Value) -> float:
    if item.__class__ is str and start is UNDEFINED:  # Only a string equals a string; others are not so simple.
        return _index_of_text(array, item)
    length = len(array)
    first = relative(start, length, 0) if length else 0  # of an empty array the argument is not looked at
    for index in range(first, min(length, len(array))):
        if strict_eq(array[index], item):
            return float(index)
    return -1.0


def _index_of_text(array: Array, text: str) -> float:
    """The index of a string, looked for in C, in parts short enough for the watchdog; -1 when it is not there."""
    size = COMPARED_AT_ONCE_MAX // (len(text) + 16) + 1
    for start in range(0, len(array), size):
        try:
            return float(array.index(text, start, start + size))
        except ValueError:
            continue
    return -1.0


def _last_index_of(array: Array, *arguments: Value) -> float:
    item = arguments[0] if arguments else UNDEFINED
    length = len(array)
    place = float(length - 1)
    if len(arguments) > 1 and length:
        given = integer(arguments[1])
        place = min(given, place) if given >= 0 else length + given
    index = min(int(place), len(array) - 1) if place >= 0 else -1
    while index >= 0:
        if strict_eq(array[index], item):
            return float(index)
        index -= 1
    return -1.0


def _includes(array: Array, item: Value = UNDEFINED, start: Value = UNDEFINED, *_: Value) -> bool:
    if item.__class__ is str and start is UNDEFINED:
        return _index_of_text(array, item) >= 0.0
    length = len(array)
    first = relative(start, length, 0) if length else 0
    items = _at_length(array, length)
    return any(same_value_zero(items[index], item) for index in range(first, length))


def _at(array: Array, index: Value = UNDEFINED, *_: Value) -> Value:
    length = len(array)
    place = integer(index)
    actual = place + length if place < 0 else place
    return array[int(actual)] if 0 <= actual < min(length, len(array)) else UNDEFINED


# Sorting ------------------------------------------------------------------------------------------


def _sort(array: Array, compare: Value = UNDEFINED, *_: Value) -> Array:
    check_comparison(compare)
    length = len(array)
    ordered = sort_items(array, compare)
    array[:length] = ordered
    return array


def _to_sorted(array: Array, compare: Value = UNDEFINED, *_: Value) -> Array:
    check_comparison(compare)
    return sort_items(array, compare)


# Text ---------------------------------------------------------------------------------------------


def join(array: Array, separator: Value = UNDEFINED, *_: Value) -> str:
    """``array.join(separator)``; an array inside itself counts as empty."""
    count = len(array)
    glue = "," if separator is UNDEFINED else separator if separator.__class__ is str else to_string(separator)
    active = joining_arrays()
    if id(array) in active:
        return ""
    active.add(id(array))
    try:
        parts = [
            "" if item is None or item is UNDEFINED else item if item.__class__ is str else to_string(item)
            for item in islice(array, count)
        ]
        parts += [""] * (count - len(parts))  # a toString has taken elements away
    finally:
        active.discard(id(array))
    length = sum(map(len, parts)) + len(glue) * max(0, len(parts) - 1)
    if length > STRING_LENGTH_MAX:
        too_long(length)
    return glue.join(parts)


DEFAULT_TEXT[list] = join
_LOCALE = unsupported("`.toLocaleString` depends on a locale; format for people in a task")

register_methods(
    list,
    "Array",
    {
        "at": _at, "concat": _concat, "copyWithin": _copy_within, "every": _every, "fill": _fill, "filter": _filter,
        "find": _find, "findIndex": _find_index, "findLast": _find_last, "findLastIndex": _find_last_index,
        "flat": _flat,
        "flatMap": _flat_map, "forEach": _for_each, "includes": _includes, "indexOf": _index_of, "join": join,
        "lastIndexOf": _last_index_of, "map": _map, "pop": _pop, "push": _push, "reduce": _reduce,
        "reduceRight": _reduce_right, "reverse": _reverse, "shift": _shift, "slice": _slice, "some": _some,
        "sort": _sort,
        "splice": _splice, "toReversed": lambda array, *_: array[::-1], "toSorted": _to_sorted,
        "toSpliced": _to_spliced,
        "toString": lambda array, *_: join(array), "toLocaleString": _LOCALE, "unshift": _unshift, "with": _with,
        "keys": lambda array, *_: JSIterator(ARRAY_KEYS, array),
        "values": lambda array, *_: JSIterator(ARRAY_VALUES, array),
        "entries": lambda array, *_: JSIterator(ARRAY_ENTRIES, array),
    },
)  # fmt: skip


def _holes_join(slots: EmptySlots, separator: Value = UNDEFINED, *_: Value) -> str:
    return join([UNDEFINED] * slots.length, separator)


DEFAULT_TEXT[EmptySlots] = _holes_join


def _holes_fill(
    slots: EmptySlots, value: Value = UNDEFINED, start: Value = UNDEFINED, end: Value = UNDEFINED, *_: Value
) -> Array:
    if relative(start, slots.length, 0) > 0 or relative(end, slots.length, slots.length) < slots.length:
        raise UnsupportedError("Array(n).fill must fill all of it")
    return [value] * slots.length


register_methods(
    EmptySlots,
    "Array",
    {
        "fill": _holes_fill,
        "join": _holes_join,
        "toString": lambda slots, *_: _holes_join(slots),
        "keys": lambda slots, *_: JSIterator(HOLE_KEYS, slots),
        "values": lambda slots, *_: JSIterator(HOLE_VALUES, slots),
    },
)


# Array itself -------------------------------------------------------------------------------------


def _array(*arguments: Value) -> Value:
    if len(arguments) != 1 or arguments[0].__class__ is not float:
        return list(arguments)
    length = arguments[0]
    if not 0 <= length < 2**32 or length != int(length):
        throw_range_error("Invalid array length")
    check_length(int(length))
    return EmptySlots(int(length)) if length else []


def _from(source: Value = UNDEFINED, function: Value = UNDEFINED, *_: Value) -> Array:
    f = None if function is UNDEFINED else callback(function)
    if source is None or source is UNDEFINED:
        not_iterable(source, None)
    kind = source.__class__
    result: Array = []
    if kind in (list, str, JSMap, JSSet, JSIterator, EmptySlots):
        if f is None:
            spread_into_list(result, source, None)
            return result
        for index, item in enumerate(iterate(source, None)):
            result.append(f(item, float(index)))
        return result
    length = to_number(get_member(source, "length", None))
    count = int(min(max(length, 0.0), 2.0**53)) if length == length else 0
    check_length(count)
    for index in range(count):
        item = own_value(source, str(index))
        result.append(item if f is None else f(item, float(index)))
    return result


ARRAY = Builtin(
    "Array",
    _array,
    construct=_array,
    is_instance=lambda value: value.__class__ is list or value.__class__ is EmptySlots,
    members={
        "isArray": Builtin("Array.isArray", lambda value=UNDEFINED, *_: value.__class__ in (list, EmptySlots)),
        "of": Builtin("Array.of", lambda *items: list(items)),
        "from": Builtin("Array.from", _from),
    },
)
