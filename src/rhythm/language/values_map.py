"""Map, Set and the iterators: collections that may change while they are iterated.

A collection is a table: two parallel lists of keys and values in insertion order, and an index from
a hashable stand-in of each key to its place. Deleting leaves a hole; when holes are the majority, a new
table takes over and the old one keeps what an iterator needs to find its place in the new one: which
places were holes. Old tables live exactly as long as an iterator stands on them.

An iterator is plain data (kind, target, place), so a snapshot can store it; stored collections have no
holes, therefore `position()` counts live entries only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from rhythm.language.values_types import ARRAY_LENGTH_MAX, DONE, UNDEFINED, LimitError, Marker, Value

HOLES_MIN: Final = 32  #: A table is not rebuilt for fewer holes than this.

_HOLE: Final = Marker("HOLE")
_NAN_KEY: Final = Marker("NaN")
_TRUE_KEY: Final = Marker("true")
_FALSE_KEY: Final = Marker("false")
_PLAIN: Final = frozenset({str, type(None), UNDEFINED.__class__})


def index_key(key: Value) -> object:
    """A hashable stand-in: equal exactly when the keys are SameValueZero-equal."""
    kind = key.__class__
    if kind is str:
        return key
    if kind is float:
        return key if key == key else _NAN_KEY
    if kind is bool:
        return _TRUE_KEY if key else _FALSE_KEY
    if kind in _PLAIN:
        return key
    return (id(key),)


class Table:
    """Entries in insertion order, with holes. ``successor`` is set once this table has been replaced."""

    __slots__ = ("keys", "values", "index", "holes", "first", "successor", "hole_places")

    def __init__(self) -> None:
        self.keys: list[Value] = []
        self.values: list[Value] = []
        self.index: dict[object, int] = {}
        self.holes = 0
        self.first = 0  #: No live entry lies before this place.
        self.successor: Table | None = None
        self.hole_places: list[int] | None = None  #: Sorted; None after clear(): every iterator restarts.


class Collection:
    """What Map and Set share."""

    __slots__ = ("table",)

    def __init__(self) -> None:
        self.table = Table()

    def __bool__(self) -> bool:
        return True

    def size(self) -> int:
        """Number of entries."""
        return len(self.table.index)

    # Methods of flows as they are, called once per element: the usual keys stand in for themselves without a call.

    def has(self, key: Value = UNDEFINED, *_: Value) -> bool:
        """True when there is an entry for ``key``."""
        kind = key.__class__
        return (key if kind is str or (kind is float and key == key) else index_key(key)) in self.table.index

    def get(self, key: Value = UNDEFINED, *_: Value) -> Value:
        """The value of ``key``, or undefined."""
        table = self.table
        kind = key.__class__
        place = table.index.get(key if kind is str or (kind is float and key == key) else index_key(key))
        return UNDEFINED if place is None else table.values[place]

    def put(self, key: Value = UNDEFINED, value: Value = UNDEFINED, *_: Value) -> Collection:
        """Sets the value of ``key``; a new key goes to the end. Returns the collection."""
        table = self.table
        index = table.index
        kind = key.__class__
        stand_in = key if kind is str or (kind is float and key == key) else index_key(key)
        place = index.get(stand_in)
        if place is not None:
            table.values[place] = value
            return self
        if len(index) >= ARRAY_LENGTH_MAX:
            raise LimitError(f"a Map or Set has more than {ARRAY_LENGTH_MAX} entries")
        if kind is float:
            key = key + 0.0  # -0 is stored as 0
        index[stand_in] = len(table.keys)
        table.keys.append(key)
        table.values.append(value)
        return self

    def delete(self, key: Value = UNDEFINED, *_: Value) -> bool:
        """Removes the entry; False when there was none."""
        table = self.table
        place = table.index.pop(index_key(key), None)
        if place is None:
            return False
        keys = table.keys
        keys[place] = _HOLE
        table.values[place] = UNDEFINED
        table.holes += 1
        if place == table.first:
            first = place + 1
            while first < len(keys) and keys[first] is _HOLE:
                first += 1
            table.first = first
        if table.holes > HOLES_MIN and table.holes * 2 > len(keys):
            self._rebuild()
        return True

    def clear(self, *_: Value) -> Value:
        """Removes every entry."""
        old, self.table = self.table, Table()
        old.successor = self.table
        old.keys, old.values, old.index = [], [], {}
        return UNDEFINED

    def _rebuild(self) -> None:
        old, new = self.table, Table()
        keys = old.keys
        live = [place for place in range(len(keys)) if keys[place] is not _HOLE]
        new.keys = [keys[place] for place in live]
        new.values = [old.values[place] for place in live]
        new.index = {index_key(key): place for place, key in enumerate(new.keys)}
        old.hole_places = [place for place in range(len(keys)) if keys[place] is _HOLE]
        old.successor = new
        old.keys, old.values, old.index = [], [], {}
        self.table = new

    def entries(self) -> list[tuple[Value, Value]]:
        """All (key, value) pairs now, in order."""
        table = self.table
        return [(key, value) for key, value in zip(table.keys, table.values, strict=True) if key is not _HOLE]


class JSMap(Collection):
    """A Map."""

    __slots__ = ()


class JSSet(Collection):
    """A Set; every value is its own key."""

    __slots__ = ()

    def add(self, key: Value = UNDEFINED, *_: Value) -> Collection:
        """Adds a member. Returns the set."""
        return self.put(key)


# Kinds of iterator; the names are stored in snapshots and never reused.
ARRAY_VALUES: Final = "array values"  # target: list
ARRAY_KEYS: Final = "array keys"  # target: list
ARRAY_ENTRIES: Final = "array entries"  # target: list
STRING_CHARACTERS: Final = "string characters"  # target: str
COLLECTION_KEYS: Final = "collection keys"  # target: JSMap, JSSet
COLLECTION_VALUES: Final = "collection values"  # target: JSMap
COLLECTION_ENTRIES: Final = "collection entries"  # target: JSMap, JSSet (then value = key)
HOLE_KEYS: Final = "hole keys"  # target: EmptySlots; gives 0, 1, ...
HOLE_VALUES: Final = "hole values"  # target: EmptySlots; gives undefined n times

ITERATOR_KINDS: Final = frozenset(
    {
        ARRAY_VALUES,
        ARRAY_KEYS,
        ARRAY_ENTRIES,
        STRING_CHARACTERS,
        COLLECTION_KEYS,
        COLLECTION_VALUES,
        COLLECTION_ENTRIES,
        HOLE_KEYS,
        HOLE_VALUES,
    }
)
#: X of "[object X Iterator]", by the class of the target; the others are arrays.
ITERATOR_TAGS: Final[dict[type, str]] = {str: "String", JSMap: "Map", JSSet: "Set"}
_COLLECTION_KINDS: Final = frozenset({COLLECTION_KEYS, COLLECTION_VALUES, COLLECTION_ENTRIES})


class JSIterator:
    """An iterator over an array, a string or a collection. ``index`` is the next place; -1 after the end.

    For collections it is a place in ``table``; use ``position()`` to store it.
    """

    __slots__ = ("kind", "target", "index", "table")

    def __init__(self, kind: str, target: Value, index: int = 0) -> None:
        assert kind in ITERATOR_KINDS
        self.kind = kind
        self.target = target
        self.index = index
        self.table: Table | None = target.table if kind in _COLLECTION_KINDS else None

    def position(self) -> int:
        """The index to rebuild this iterator with, once its target is rebuilt from its live entries."""
        if self.table is None or self.index < 0:
            return self.index
        table = self._catch_up()
        return sum(1 for key in table.keys[: self.index] if key is not _HOLE)

    def step(self) -> Value:
        """The next value, or DONE; once DONE, always DONE."""
        index = self.index
        if index < 0:
            return DONE
        kind = self.kind
        if kind in _COLLECTION_KINDS:
            return self._step_collection()
        target = self.target
        if kind is STRING_CHARACTERS or kind == STRING_CHARACTERS:
            return self._step_string()
        length = target.length if kind in (HOLE_KEYS, HOLE_VALUES) else len(target)
        if index >= length:
            self.index = -1
            return DONE
        self.index = index + 1
        if kind == ARRAY_VALUES:
            return target[index]
        if kind == ARRAY_ENTRIES:
            return [float(index), target[index]]
        return float(index) if kind in (ARRAY_KEYS, HOLE_KEYS) else UNDEFINED

    def _step_string(self) -> Value:
        text, index = self.target, self.index
        if index >= len(text):
            self.index = -1
            return DONE
        end = index + 1
        if "\ud800" <= text[index] <= "\udbff" and end < len(text) and "\udc00" <= text[end] <= "\udfff":
            end += 1
        self.index = end
        return text[index:end]

    def _catch_up(self) -> Table:
        table = self.table
        assert table is not None
        while table.successor is not None:
            holes = table.hole_places
            self.index = 0 if holes is None else self.index - bisect_left(holes, self.index)
            table = table.successor
        self.table = table
        if self.index < table.first:
            self.index = table.first
        return table

    def _step_collection(self) -> Value:
        table = self._catch_up()
        keys = table.keys
        index = self.index
        while index < len(keys) and keys[index] is _HOLE:
            index += 1
        if index >= len(keys):
            self.index = -1
            self.table = None
            return DONE
        self.index = index + 1
        key = keys[index]
        if self.kind == COLLECTION_KEYS:
            return key
        value = table.values[index] if self.target.__class__ is JSMap else key
        return value if self.kind == COLLECTION_VALUES else [key, value]

    def drain(self) -> Iterator[Value]:
        """The remaining values as a Python iterator."""
        if self.table is not None and self.index >= 0:
            yield from self._drain_collection()
            return
        step = self.step
        while (value := step()) is not DONE:
            yield value

    def _drain_collection(self) -> Iterator[Value]:
        kind, is_map = self.kind, self.target.__class__ is JSMap
        while self.table is not None:
            table = self._catch_up()
            keys = table.keys
            while table.successor is None and self.table is table:
                index = self.index
                if index >= len(keys):
                    self.index, self.table = -1, None
                    return
                self.index = index + 1
                key = keys[index]
                if key is _HOLE:
                    continue
                if kind == COLLECTION_KEYS:
                    yield key
                    continue
                value = table.values[index] if is_map else key
                yield value if kind == COLLECTION_VALUES else [key, value]
