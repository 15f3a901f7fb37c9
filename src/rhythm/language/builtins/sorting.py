"""Array.prototype.sort: V8's order of comparisons, with every comparison made from Python.

A comparison function of the program may count its calls or contradict itself, and either shows which algorithm asks.
So this is the algorithm V8 uses, timsort with galloping: natural runs, short ones completed by binary insertion,
merged so that the run lengths on the stack stay balanced. Without a comparison function elements are sorted by their
texts, which nobody can watch; C does that, in parts short enough for the watchdog.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import merge
from typing import Final

from rhythm.language.builtins.support import callback
from rhythm.language.operators import to_number, to_string
from rhythm.language.values_types import UNDEFINED, Value, is_callable, throw_type_error

RUN_MIN: Final = 64  #: Shorter arrays are one run.
GALLOP_MIN: Final = 7  #: Wins in a row after which a merge starts to gallop.
TEXTS_AT_ONCE_MAX: Final = 2**18  #: Texts that C sorts in one call, about half a second's work.
COMPARED_AT_ONCE_MAX: Final = 2**28  #: Units of the texts that C sorts in one call, if all were as long as the longest.

Array = list[Value]

_PRIMITIVE: Final = frozenset([str, float, bool, type(None)])


def check_comparison(compare: Value) -> None:
    """Throws when the argument of sort is neither a function nor undefined."""
    if compare is not UNDEFINED and not is_callable(compare):
        throw_type_error("The comparison function must be either a function or undefined")


def sort_items(array: Array, compare: Value) -> Array:
    """A sorted copy; undefined goes to the end without being compared."""
    items = [item for item in array if item is not UNDEFINED]
    missing = len(array) - len(items)
    if compare is not UNDEFINED:
        if len(items) > 1:
            _Sort(items, callback(compare)).run()
    elif all(item.__class__ in _PRIMITIVE for item in items):
        items = _sorted_by_text(items)
    elif len(items) > 1:  # V8 asks for both texts at every comparison, and toString may be the flow's own
        _Sort(items, _compare_texts).run()
    return items + [UNDEFINED] * missing


def _compare_texts(a: Value, b: Value) -> float:
    first, second = to_string(a), to_string(b)
    return -1.0 if first < second else float(first > second)


def _sorted_by_text(items: Array) -> Array:
    texts = [item if item.__class__ is str else to_string(item) for item in items]
    longest = max(map(len, texts), default=0)
    at_once = max(2, min(TEXTS_AT_ONCE_MAX, COMPARED_AT_ONCE_MAX // (longest + 16)))
    if len(texts) <= at_once:
        return [items[place] for place in sorted(range(len(texts)), key=texts.__getitem__)]
    parts = []
    for first in range(0, len(texts), at_once):
        places = range(first, min(first + at_once, len(texts)))
        parts.append([(texts[place], place) for place in sorted(places, key=texts.__getitem__)])
    return [items[place] for _, place in merge(*parts)]


class _Sort:
    """One sort: the items, the comparison, the stack of runs waiting to be merged as [first, length]."""

    __slots__ = ("compare", "gallop_min", "items", "runs")

    def __init__(self, items: Array, compare: Callable[..., Value]) -> None:
        self.items = items
        self.compare = compare
        self.gallop_min = GALLOP_MIN
        self.runs: list[list[int]] = []

    def before(self, a: Value, b: Value) -> bool:
        """Whether the comparison puts a before b."""
        order = self.compare(a, b)
        return bool((order if order.__class__ is float else to_number(order)) < 0.0)

    def run(self) -> None:
        low, remaining = 0, len(self.items)
        shortest = _run_length_min(remaining)
        while remaining:
            length = self.natural_run(low, low + remaining)
            if length < shortest:
                forced = min(shortest, remaining)
                self.insert(low, low + length, low + forced)
                length = forced
            self.runs.append([low, length])
            self.balance()
            low += length
            remaining -= length
        while len(self.runs) > 1:
            place = len(self.runs) - 2
            if place > 0 and self.runs[place - 1][1] < self.runs[place + 1][1]:
                place -= 1
            self.merge_at(place)

    def natural_run(self, low: int, high: int) -> int:
        """Length of the run at low; a descending one is turned round."""
        if low + 1 == high:
            return 1
        items, before = self.items, self.before
        descending = before(items[low + 1], items[low])
        end = low + 2
        while end < high and before(items[end], items[end - 1]) is descending:
            end += 1
        if descending:
            items[low:end] = items[low:end][::-1]
        return end - low

    def insert(self, low: int, start: int, high: int) -> None:
        """Binary insertion of items[start:high] into the sorted items[low:start]."""
        items, before = self.items, self.before
        for index in range(start, high):
            pivot = items[index]
            left, right = low, index
            while left < right:
                middle = (left + right) >> 1
                if before(pivot, items[middle]):
                    right = middle
                else:
                    left = middle + 1
            items[left + 1 : index + 1] = items[left:index]
            items[left] = pivot

    def balance(self) -> None:
        """Merges until every run is longer than the next two together."""
        runs = self.runs
        while len(runs) > 1:
            place = len(runs) - 2
            if not (self.balanced(place + 1) and self.balanced(place)):
                if runs[place - 1][1] < runs[place + 1][1]:
                    place -= 1
            elif runs[place][1] > runs[place + 1][1]:
                return
            self.merge_at(place)

    def balanced(self, place: int) -> bool:
        runs = self.runs
        return place < 2 or runs[place - 2][1] > runs[place - 1][1] + runs[place][1]

    def merge_at(self, place: int) -> None:
        """Merges the runs at place and place + 1."""
        items, runs = self.items, self.runs
        (base_a, length_a), (base_b, length_b) = runs[place], runs[place + 1]
        runs[place][1] = length_a + length_b
        del runs[place + 1]
        ahead = self.gallop_right(items, items[base_b], base_a, length_a, 0)
        base_a += ahead
        length_a -= ahead
        if length_a == 0:
            return
        length_b = self.gallop_left(items, items[base_a + length_a - 1], base_b, length_b, length_b - 1)
        if length_b == 0:
            return
        if length_a <= length_b:
            self.merge_low(base_a, length_a, base_b, length_b)
        else:
            self.merge_high(base_a, length_a, base_b, length_b)

    def gallop_left(self, items: Array, key: Value, base: int, length: int, hint: int) -> int:
        """The place of key in a sorted part, before its equals; the search spreads out from hint."""
        before = self.before
        last, offset = 0, 1
        if before(items[base + hint], key):
            limit = length - hint
            while offset < limit and before(items[base + hint + offset], key):
                last, offset = offset, 2 * offset + 1
            last, offset = last + hint, min(offset, limit) + hint
        else:
            limit = hint + 1
            while offset < limit and not before(items[base + hint - offset], key):
                last, offset = offset, 2 * offset + 1
            last, offset = hint - min(offset, limit), hint - last
        last += 1
        while last < offset:
            middle = (last + offset) >> 1
            if before(items[base + middle], key):
                last = middle + 1
            else:
                offset = middle
        return offset

    def gallop_right(self, items: Array, key: Value, base: int, length: int, hint: int) -> int:
        """The place of key in a sorted part, behind its equals."""
        before = self.before
        last, offset = 0, 1
        if before(key, items[base + hint]):
            limit = hint + 1
            while offset < limit and before(key, items[base + hint - offset]):
                last, offset = offset, 2 * offset + 1
            last, offset = hint - min(offset, limit), hint - last
        else:
            limit = length - hint
            while offset < limit and not before(key, items[base + hint + offset]):
                last, offset = offset, 2 * offset + 1
            last, offset = last + hint, min(offset, limit) + hint
        last += 1
        while last < offset:
            middle = (last + offset) >> 1
            if before(key, items[base + middle]):
                offset = middle
            else:
                last = middle + 1
        return offset

    def merge_low(self, base_a: int, length_a: int, base_b: int, length_b: int) -> None:
        """Merges from the left; a copy of run A frees its place. A contradictory comparison may end it early."""
        items, before = self.items, self.before
        rest = items[base_a : base_a + length_a]
        end_b = base_b + length_b
        dest, a, b = base_a, 0, base_b
        items[dest] = items[b]
        dest, b = dest + 1, b + 1
        while b < end_b and a < length_a - 1:
            wins_a = wins_b = 0
            while True:
                if before(items[b], rest[a]):
                    items[dest] = items[b]
                    dest, b, wins_b, wins_a = dest + 1, b + 1, wins_b + 1, 0
                    if b == end_b or wins_b >= self.gallop_min:
                        break
                else:
                    items[dest] = rest[a]
                    dest, a, wins_a, wins_b = dest + 1, a + 1, wins_a + 1, 0
                    if a == length_a - 1 or wins_a >= self.gallop_min:
                        break
            if b == end_b or a == length_a - 1:
                break
            dest, a, b = self.gallop_low(rest, dest, a, b, length_a, end_b)
        if b == end_b:
            items[dest : dest + length_a - a] = rest[a:]
        elif a == length_a - 1:
            items[dest : dest + end_b - b] = items[b:end_b]
            items[dest + end_b - b] = rest[a]

    def gallop_low(self, rest: Array, dest: int, a: int, b: int, length_a: int, end_b: int) -> tuple[int, int, int]:
        """Whole stretches at a time, while they are long."""
        items = self.items
        gallop_min = self.gallop_min + 1
        wins_a = wins_b = GALLOP_MIN
        while wins_a >= GALLOP_MIN or wins_b >= GALLOP_MIN:
            gallop_min = max(1, gallop_min - 1)
            self.gallop_min = gallop_min
            wins_a = self.gallop_right(rest, items[b], a, length_a - a, 0)
            if wins_a:
                items[dest : dest + wins_a] = rest[a : a + wins_a]
                dest, a = dest + wins_a, a + wins_a
                if a >= length_a - 1:
                    return dest, a, b
            items[dest] = items[b]
            dest, b = dest + 1, b + 1
            if b == end_b:
                return dest, a, b
            wins_b = self.gallop_left(items, rest[a], b, end_b - b, 0)
            if wins_b:
                items[dest : dest + wins_b] = items[b : b + wins_b]
                dest, b = dest + wins_b, b + wins_b
                if b == end_b:
                    return dest, a, b
            items[dest] = rest[a]
            dest, a = dest + 1, a + 1
            if a == length_a - 1:
                return dest, a, b
        self.gallop_min = gallop_min + 1
        return dest, a, b

    def merge_high(self, base_a: int, length_a: int, base_b: int, length_b: int) -> None:
        """Merges from the right; a copy of run B frees its place."""
        items, before = self.items, self.before
        rest = items[base_b : base_b + length_b]
        dest, a, b = base_b + length_b - 1, base_a + length_a - 1, length_b - 1
        items[dest] = items[a]
        dest, a = dest - 1, a - 1
        while a >= base_a and b > 0:
            wins_a = wins_b = 0
            while True:
                if before(rest[b], items[a]):
                    items[dest] = items[a]
                    dest, a, wins_a, wins_b = dest - 1, a - 1, wins_a + 1, 0
                    if a < base_a or wins_a >= self.gallop_min:
                        break
                else:
                    items[dest] = rest[b]
                    dest, b, wins_b, wins_a = dest - 1, b - 1, wins_b + 1, 0
                    if b == 0 or wins_b >= self.gallop_min:
                        break
            if a < base_a or b == 0:
                break
            dest, a, b = self.gallop_high(rest, dest, a, b, base_a)
        if a < base_a:
            items[dest - b : dest + 1] = rest[: b + 1]
        elif b == 0:
            count = a + 1 - base_a
            items[dest - count + 1 : dest + 1] = items[base_a : a + 1]
            items[dest - count] = rest[0]

    def gallop_high(self, rest: Array, dest: int, a: int, b: int, base_a: int) -> tuple[int, int, int]:
        """As gallop_low, from the right."""
        items = self.items
        gallop_min = self.gallop_min + 1
        wins_a = wins_b = GALLOP_MIN
        while wins_a >= GALLOP_MIN or wins_b >= GALLOP_MIN:
            gallop_min = max(1, gallop_min - 1)
            self.gallop_min = gallop_min
            length_a = a + 1 - base_a
            wins_a = length_a - self.gallop_right(items, rest[b], base_a, length_a, length_a - 1)
            if wins_a:
                dest, a = dest - wins_a, a - wins_a
                items[dest + 1 : dest + 1 + wins_a] = items[a + 1 : a + 1 + wins_a]
                if a < base_a:
                    return dest, a, b
            items[dest] = rest[b]
            dest, b = dest - 1, b - 1
            if b == 0:
                return dest, a, b
            wins_b = b + 1 - self.gallop_left(rest, items[a], 0, b + 1, b)
            if wins_b:
                dest, b = dest - wins_b, b - wins_b
                items[dest + 1 : dest + 1 + wins_b] = rest[b + 1 : b + 1 + wins_b]
                if b <= 0:
                    return dest, a, b
            items[dest] = items[a]
            dest, a = dest - 1, a - 1
            if a < base_a:
                return dest, a, b
        self.gallop_min = gallop_min + 1
        return dest, a, b


def _run_length_min(length: int) -> int:
    """The shortest run that is left as it is: such that the array is about a power of two of them."""
    rest = 0
    while length >= RUN_MIN:
        rest |= length & 1
        length >>= 1
    return length + rest
