"""Snapshots: a workflow's heap as bytes.

    snapshot  = msgpack [v, ir, next, cancelled, ctx, root, operations, unread, heap]
    ir        = first 16 bytes of the hash of the IR it belongs to
    root      = reference to the workflow's promise
    operation = [number, kind, name, child id, since ms, due ms | null, on_cancel, can_cancel, asked, promise]
    unread    = [[signal name, payload bytes], ...]
    heap      = [entry, ...]       entry = [tag, field, ...]; tags are in the table below and are never reused
    value     = float | bool | null | str | bytes (text that has surrogates: UTF-8 with them passed through)
              | array (an array nobody else refers to) | map (an object likewise)
              | integer (numbers are always floats: from 0 an index into heap, below 0 UNDEFINED_MARK or TDZ_MARK)

Identity and cycles survive, because whatever is referred to twice is in the heap. Slots hold what the IR lists as live
at the await, in that order; a slot or capture that is a cell refers to a CELL entry. The job queue is empty and no
flow function runs when a snapshot is taken, so neither is stored.

Entries are numbered in the order in which a walk from the roots meets them: decoding and encoding again gives the
same bytes. Written versions are never dropped: see tests/language/snapshots/. `snapshot_json` shows one as JSON.

Failure: `decode` treats its input as hostile. Anything that is not a snapshot of this program raises SnapshotError.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from rhythm.errors import SnapshotError
from rhythm.language.codegen import Instance, Program
from rhythm.language.names import ERROR_KINDS
from rhythm.language.promises import (
    AdoptReaction,
    Combinator,
    ElementReaction,
    FinallyFunction,
    Frame,
    HostOperation,
    PassThrough,
    Promise,
    Realm,
    ResolverPair,
    ResolvingFunction,
    ThenReaction,
)
from rhythm.language.values_map import ITERATOR_KINDS, JSIterator, JSMap, JSSet
from rhythm.language.values_types import (
    ERROR_HIDDEN,
    TDZ,
    UNDEFINED,
    Builtin,
    BuiltinMethod,
    EmptySlots,
    JSDate,
    JSError,
    LimitError,
    Namespace,
    Value,
    builtin_named,
    is_callable,
)
from rhythm.model import SNAPSHOT_BYTES_MAX

VERSION: Final = 1  #: Bump it when FORMAT changes in any way, and keep reading the old one.
INLINE_DEPTH_MAX: Final = 40  #: Containers inside containers that are written in place; deeper ones get entries.
BYTES_MAX: Final = SNAPSHOT_BYTES_MAX  #: Largest snapshot that is read.

NUMBER_MAX: Final = 2**31 - 1  #: Largest number of an operation; the database's integers end there.

UNDEFINED_MARK: Final = -1
TDZ_MARK: Final = -2

OBJECT: Final = 0  # properties                             {key: value}
ARRAY: Final = 1  # elements                                [value, ...]
CELL: Final = 2  # value                                    may be the TDZ mark
CLOSURE: Final = 3  # function id, [cell, ...]
FRAME: Final = 4  # function id, await id, [slot, ...], [cell, ...], promise
PROMISE: Final = 5  # state, value, [reaction, ...] | null, handled
THEN: Final = 6  # on_fulfilled, on_rejected, derived promise
ADOPT: Final = 7  # promise that follows
COMBINATOR: Final = 8  # kind, promise, values, remaining, done
ELEMENT: Final = 9  # combinator, index
RESOLVERS: Final = 10  # promise, used
RESOLVING: Final = 11  # resolvers, rejects
FINALLY: Final = 12  # function, rejects
PASS: Final = 13  # value, rejects
MAP: Final = 14  # [key, value, key, value, ...]
SET: Final = 15  # [value, ...]
ITERATOR: Final = 16  # kind, target, position
DATE: Final = 17  # ms
ERROR: Final = 18  # kind, properties, [hidden name, ...] | null
BUILTIN: Final = 19  # name
HOLES: Final = 20  # length

#: tag -> number of fields; with the grammar above the fingerprint of the format.
TAGS: Final = {
    OBJECT: 1, ARRAY: 1, CELL: 1, CLOSURE: 2, FRAME: 5, PROMISE: 4, THEN: 3, ADOPT: 1, COMBINATOR: 5, ELEMENT: 2,
    RESOLVERS: 2, RESOLVING: 2, FINALLY: 2, PASS: 2, MAP: 1, SET: 1, ITERATOR: 3, DATE: 1, ERROR: 3, BUILTIN: 1,
    HOLES: 1,
}  # fmt: skip
_ROOT_FIELDS: Final = 9
_OPERATION_FIELDS: Final = 10
FORMAT: Final = hashlib.sha256(
    json.dumps([VERSION, sorted(TAGS.items()), UNDEFINED_MARK, TDZ_MARK, _ROOT_FIELDS, _OPERATION_FIELDS]).encode()
).hexdigest()[:16]

_VALUE_TAGS: Final = frozenset(
    {OBJECT, ARRAY, CLOSURE, PROMISE, RESOLVING, FINALLY, PASS, MAP, SET, ITERATOR, DATE, ERROR, BUILTIN, HOLES}
)
_REACTION_TAGS: Final = frozenset({FRAME, THEN, ADOPT, ELEMENT})
_ATOMS: Final = frozenset({str, float, bool, type(None)})
_COMBINATORS: Final = frozenset({"all", "allSettled", "any", "race"})

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_Layout = dict[tuple[int, int], tuple[bool, ...]]
_layouts: WeakKeyDictionary[Program, _Layout] = WeakKeyDictionary()


def layout_of(program: Program, function_id: int, await_id: int) -> tuple[bool, ...]:
    """For each live slot of an await whether it holds a cell. Raises IndexError for an await that is not there."""
    layouts = _layouts.setdefault(program, {})
    key = (function_id, await_id)
    found = layouts.get(key)
    if found is None:
        if function_id < 0 or await_id < 0:
            raise IndexError("negative ids")
        function = program.ir["functions"][function_id]
        cells = set(function["cells"])
        found = layouts[key] = tuple(slot in cells for slot in function["awaits"][await_id]["live"])
    return found


# Writing ------------------------------------------------------------------------------------------


def encode(realm: Realm, root: Promise, bytes_max: int = BYTES_MAX) -> bytes:
    """The snapshot of an execution whose job queue is empty; ``root`` is the workflow's promise.

    Raises LimitError when its texts alone have more than ``bytes_max``. It may have more all the same: the caller
    measures what comes out.
    """
    assert not realm.queue, "a snapshot is taken when no job is left"
    try:
        return _encode(_Writer(realm, bytes_max, careful=False).snapshot(root))
    except UnicodeEncodeError:
        return _encode(_Writer(realm, bytes_max, careful=True).snapshot(root))


class _Writer:
    def __init__(self, realm: Realm, bytes_max: int, *, careful: bool) -> None:
        self.realm = realm
        self.instance: Instance = realm.instance
        self.careful = careful
        self.places: dict[int, int] = {}
        self.order: list[Any] = []
        self.cells: dict[int, int] = {}  # cells by id: a cell is a list, but not an array
        self.seen_twice = self.count(realm, bytes_max)

    @staticmethod
    def roots(realm: Realm) -> list[Any]:
        return [realm.ctx, *(operation.promise for operation in realm.operations.values())]

    def count(self, realm: Realm, bytes_max: int) -> set[int]:
        """Ids of arrays and objects that more than one place refers to. Raises LimitError for too much text.

        One text may be written in many places: writing it all before measuring could take more memory than there is.
        """
        seen: set[int] = set()
        twice: set[int] = set()
        rest = self.roots(realm)
        pop, push, extend = rest.pop, rest.append, rest.extend
        cells: set[int] = set()
        units = sum(len(payload) for _, payload in realm.unread)
        while rest:
            item = pop()
            kind = item.__class__
            if kind in _ATOMS:
                if kind is str:
                    units += len(item)
                continue
            if kind is _Held:
                if id(item.cell) not in cells:
                    cells.add(id(item.cell))
                    rest.append(item.cell[0])
                continue
            key = id(item)
            if key in seen:
                twice.add(key)
                continue
            seen.add(key)
            if kind is dict or kind is list:
                if kind is dict:
                    units += sum(map(len, item))
                    item = item.values()
                for value in item:
                    kind = value.__class__
                    if kind is str:
                        units += len(value)
                    elif kind not in _ATOMS:
                        push(value)
                if units > bytes_max:
                    raise LimitError(
                        f"the snapshot is over the limit of {bytes_max:,} bytes; "
                        "keep large data outside and pass references"
                    )
            else:
                children = _CHILDREN.get(kind)
                if children is not None:
                    extend(children(item, self.instance))
        return twice

    def snapshot(self, root: Promise) -> list[Any]:
        realm = self.realm
        ctx = self.value(realm.ctx, 0)
        root_place = self.place(root)
        operations = [
            [
                o.number, o.kind, self.text(o.name), o.child_id, float(o.since_ms), o.due_at_ms, o.on_cancel,
                o.can_cancel,                o.asked, self.place(o.promise),
            ]
            for o in realm.operations.values()
        ]  # fmt: skip
        heap: list[Any] = []
        for item in self.order:
            heap.append(self.entry(item))  # noqa: PERF401  (the order grows while it is walked)
        unread = [[self.text(name), payload] for name, payload in realm.unread]
        digest = bytes.fromhex(self.instance.program.hash[:32])
        return [VERSION, digest, realm.next_number, realm.cancelled, ctx, root_place, operations, unread, heap]

    def text(self, text: str) -> Any:
        if self.careful and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                return text.encode("utf-8", "surrogatepass")
        return text

    def place(self, item: Any) -> int:
        key = id(item)
        found = self.places.get(key)
        if found is None:
            found = self.places[key] = len(self.order)
            self.order.append(item)
        return found

    def cell(self, cell: list[Value]) -> int:
        key = id(cell)
        found = self.cells.get(key)
        if found is None:
            found = self.cells[key] = len(self.order)
            self.order.append(_CellEntry(cell))
        return found

    def value(self, value: Value, depth: int) -> Any:
        kind = value.__class__
        if kind is float or kind is bool or value is None:
            return value
        if kind is str:
            return self.text(value) if self.careful else value
        if value is UNDEFINED:
            return UNDEFINED_MARK
        if kind is dict:
            if depth < INLINE_DEPTH_MAX and id(value) not in self.seen_twice:
                return self.mapping(value, depth + 1)
        elif kind is list:
            if depth < INLINE_DEPTH_MAX and id(value) not in self.seen_twice:
                return self.sequence(value, depth + 1)
        elif value is TDZ:
            return TDZ_MARK
        return self.place(value)

    def mapping(self, value: dict[str, Value], depth: int) -> dict[Any, Any]:
        if self.careful:
            return {self.text(key): self.value(item, depth) for key, item in value.items()}
        return {key: item if item.__class__ in _ATOMS else self.value(item, depth) for key, item in value.items()}

    def sequence(self, value: list[Value], depth: int) -> list[Any]:
        if self.careful:
            return [self.value(item, depth) for item in value]
        return [item if item.__class__ in _ATOMS else self.value(item, depth) for item in value]

    def entry(self, item: Any) -> list[Any]:
        kind = item.__class__
        if kind is dict:
            return [OBJECT, self.mapping(item, 1)]
        if kind is list:
            return [ARRAY, self.sequence(item, 1)]
        if kind is _CellEntry:
            return [CELL, self.value(item.cell[0], 0)]
        if kind is FunctionType:
            function_id = self.instance.function_id(item)
            assert function_id is not None, "every function value comes from the program"
            return [CLOSURE, function_id, [self.cell(cell) for cell in self.instance.cells_of(item)]]
        if kind is Frame:
            return self.frame(item)
        if kind is Promise:
            reactions = item.reactions
            written = None if reactions is None else [self.place(reaction) for reaction in reactions]
            return [PROMISE, item.state, self.value(item.value, 0), written, item.handled]
        write = _ENTRIES.get(kind)
        if write is None:
            raise SnapshotError(f"a {kind.__name__} cannot be in a snapshot")
        return write(self, item)

    def frame(self, frame: Frame) -> list[Any]:
        layout = layout_of(self.instance.program, frame.function_id, frame.await_id)
        slots = [
            self.cell(value) if is_cell else self.value(value, 0)
            for value, is_cell in zip(frame.slots, layout, strict=True)
        ]
        cells = [self.cell(cell) for cell in frame.cells]
        return [FRAME, frame.function_id, frame.await_id, slots, cells, self.place(frame.promise)]


class _CellEntry:
    __slots__ = ("cell",)

    def __init__(self, cell: list[Value]) -> None:
        self.cell = cell


def _frame_children(frame: Frame, instance: Instance) -> list[Any]:
    layout = layout_of(instance.program, frame.function_id, frame.await_id)
    children: list[Any] = [frame.promise]
    for value, is_cell in zip(frame.slots, layout, strict=True):
        children.append(_Held(value) if is_cell else value)
    children.extend([_Held(cell) for cell in frame.cells])
    return children


class _Held:
    """A cell on its way through the count: a cell is a list, but not an array."""

    __slots__ = ("cell",)

    def __init__(self, cell: list[Value]) -> None:
        self.cell = cell


def _collection_children(collection: JSMap | JSSet, _: Instance) -> list[Any]:
    children: list[Any] = []
    for key, value in collection.entries():
        children.append(key)
        children.append(value)
    return children


_CHILDREN: Final[dict[type, Callable[[Any, Instance], list[Any]]]] = {}
_ENTRIES: Final[dict[type, Callable[[_Writer, Any], list[Any]]]] = {
    ThenReaction: lambda w, r: [THEN, w.value(r.on_fulfilled, 0), w.value(r.on_rejected, 0), w.place(r.derived)],
    AdoptReaction: lambda w, r: [ADOPT, w.place(r.promise)],
    Combinator: lambda w, r: [COMBINATOR, r.kind, w.place(r.promise), w.value(r.values, 0), r.remaining, r.done],
    ElementReaction: lambda w, r: [ELEMENT, w.place(r.combinator), r.index],
    ResolverPair: lambda w, r: [RESOLVERS, w.place(r.promise), r.used],
    ResolvingFunction: lambda w, r: [RESOLVING, w.place(r.pair), r.rejects],
    FinallyFunction: lambda w, r: [FINALLY, w.value(r.on_finally, 0), r.rejects],
    PassThrough: lambda w, r: [PASS, w.value(r.value, 0), r.rejects],
    JSMap: lambda w, r: [MAP, [w.value(part, 0) for entry in r.entries() for part in entry]],
    JSSet: lambda w, r: [SET, [w.value(key, 0) for key, _ in r.entries()]],
    JSIterator: lambda w, r: [ITERATOR, r.kind, w.value(r.target, 0), r.position()],
    JSDate: lambda w, r: [DATE, r.ms],
    JSError: lambda w, r: [
        ERROR, r.kind, w.mapping(r.props, 1),
        None if r.hidden == ERROR_HIDDEN else sorted(w.text(name) for name in r.hidden),
    ],
    Builtin: lambda w, r: [BUILTIN, r.name],
    BuiltinMethod: lambda w, r: [BUILTIN, r.name],
    Namespace: lambda w, r: [BUILTIN, r.name],
    EmptySlots: lambda w, r: [HOLES, r.length],
}  # fmt: skip
_CHILDREN.update(
    {
        FunctionType: lambda item, instance: [_Held(cell) for cell in instance.cells_of(item)],
        Frame: _frame_children,
        Promise: lambda item, _: [item.value, *(item.reactions or ())],
        ThenReaction: lambda item, _: [item.on_fulfilled, item.on_rejected, item.derived],
        AdoptReaction: lambda item, _: [item.promise],
        Combinator: lambda item, _: [item.promise, item.values],
        ElementReaction: lambda item, _: [item.combinator],
        ResolverPair: lambda item, _: [item.promise],
        ResolvingFunction: lambda item, _: [item.pair],
        FinallyFunction: lambda item, _: [item.on_finally],
        PassThrough: lambda item, _: [item.value],
        JSMap: _collection_children,
        JSSet: _collection_children,
        JSIterator: lambda item, _: [item.target],
        JSError: lambda item, _: list(item.props.values()),
    }
)


# Reading ------------------------------------------------------------------------------------------


def decode(program: Program, data: bytes, realm: Realm) -> tuple[Instance, Promise]:
    """Rebuilds an execution in a fresh realm; returns its instance and the workflow's promise.

    Raises SnapshotError for anything that is not a snapshot of this program.
    """
    fields = read_fields(data)
    try:
        return _Reader(program, realm, fields).read()
    except (
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        AssertionError,
        OverflowError,
        RecursionError,
    ) as error:
        raise SnapshotError(f"the snapshot is damaged: {type(error).__name__}: {error}") from None


def read_fields(data: bytes) -> list[Any]:
    """The fields of the grammar above, not looked into any further. Raises SnapshotError."""
    if len(data) > BYTES_MAX:
        raise SnapshotError(f"the snapshot has {len(data):,} bytes, over the limit of {BYTES_MAX:,}")
    try:
        fields = _decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError):
        raise SnapshotError("the snapshot is damaged: it cannot be decoded") from None
    if fields.__class__ is not list or not fields:
        raise SnapshotError("the snapshot is damaged: it is not a list")
    if fields[0] != VERSION:
        raise SnapshotError(f"the snapshot has version {fields[0]!r:.20}; this release reads version {VERSION}")
    _check(len(fields) == _ROOT_FIELDS, "wrong number of fields")
    return fields


def _check(holds: object, message: str) -> None:
    if not holds:
        raise SnapshotError(f"the snapshot is damaged: {message}")


def _typed(value: Any, kind: type, what: str) -> Any:
    if value.__class__ is not kind:
        raise SnapshotError(f"the snapshot is damaged: {what} is a {type(value).__name__}")
    return value


class _Reader:
    def __init__(self, program: Program, realm: Realm, fields: list[Any]) -> None:
        self.program = program
        self.realm = realm
        self.fields = fields
        self.heap: list[list[Any]] = _typed(fields[8], list, "the heap")
        self.shells: list[Any] = []
        self.tags: list[int] = []
        self.instance = program.instantiate(realm)

    def read(self) -> tuple[Instance, Promise]:
        _, digest, number, cancelled, ctx, root, operations, unread, heap = self.fields
        _check(digest == bytes.fromhex(self.program.hash[:32]), "it belongs to another definition")
        closures = []
        for index, entry in enumerate(heap):
            tag = entry[0]
            _check(
                entry.__class__ is list and tag.__class__ is int and TAGS.get(tag) == len(entry) - 1,
                "an entry is malformed",
            )
            self.tags.append(tag)
            if tag == CLOSURE:
                closures.append(index)
                self.shells.append(None)
            else:
                self.shells.append(self.shell(tag, entry))
        for index in closures:
            _, function_id, cells = heap[index]
            _typed(function_id, int, "a function id")
            self.shells[index] = self.instance.make(function_id, tuple(self.of(cell, CELL) for cell in cells))
        for index, entry in enumerate(heap):
            fill = _FILLERS.get(entry[0])
            if fill is not None:
                fill(self, self.shells[index], entry)
        for tag, item in zip(self.tags, self.shells, strict=True):
            if tag == ELEMENT:
                record = item.combinator
                _check(record.done or record.kind == "race" or item.index < len(record.values), "an index")
        realm = self.realm
        realm.next_number = _typed(number, int, "the next number")
        _check(0 < number <= NUMBER_MAX, "the next number")
        realm.cancelled = _typed(cancelled, bool, "the cancel flag")
        realm.ctx = self.value(ctx)
        realm.unread = [(self.text(name), _typed(payload, bytes, "a signal's payload")) for name, payload in unread]
        for operation in operations:
            self.operation(operation)
        promise = self.of(root, PROMISE)
        assert isinstance(promise, Promise), "the tag says so"
        return self.instance, promise

    def shell(self, tag: int, entry: list[Any]) -> Any:
        make = _SHELLS.get(tag)
        if make is not None:
            return make(self)
        if tag == ITERATOR:
            return JSIterator.__new__(JSIterator)
        if tag == DATE:
            return JSDate(_typed(entry[1], float, "a date"))
        if tag == ERROR:
            hidden = ERROR_HIDDEN if entry[3] is None else frozenset(self.text(name) for name in entry[3])
            _check(_typed(entry[1], str, "an error's kind") in ERROR_KINDS, "an error's kind")
            return JSError.restore(entry[1], {}, hidden)
        if tag == BUILTIN:
            return builtin_named(_typed(entry[1], str, "a builtin's name"))
        assert tag == HOLES, "all other tags have a shell"
        _check(entry[1].__class__ is int and 0 < entry[1] <= 2**24, "holes")
        return EmptySlots(entry[1])

    def of(self, place: Any, *tags: int) -> Any:
        if place.__class__ is not int or not 0 <= place < len(self.tags) or self.tags[place] not in tags:
            raise SnapshotError("the snapshot is damaged: a reference leads to the wrong kind of entry")
        return self.shells[place]

    def text(self, text: Any) -> str:
        if text.__class__ is bytes:
            return str(text.decode("utf-8", "surrogatepass"))
        return str(_typed(text, str, "a text"))

    def value(self, value: Any) -> Value:
        kind = value.__class__
        if kind in _ATOMS:
            return value
        if kind is int:
            if value >= 0:
                if self.tags[value] not in _VALUE_TAGS:
                    raise SnapshotError("the snapshot is damaged: a value refers to what is none")
                return self.shells[value]
            _check(value == UNDEFINED_MARK, "an unknown mark")
            return UNDEFINED
        if kind is dict:
            return self.mapping(value)
        if kind is list:
            return [item if item.__class__ in _ATOMS else self.value(item) for item in value]
        return self.text(value)

    def mapping(self, value: dict[Any, Any]) -> dict[str, Value]:
        return {
            key if key.__class__ is str else self.text(key): item if item.__class__ in _ATOMS else self.value(item)
            for key, item in value.items()
        }

    def slot(self, value: Any) -> Value:
        return TDZ if value == TDZ_MARK and value.__class__ is int else self.value(value)

    def operation(self, fields: list[Any]) -> None:
        number, kind, name, child_id, since, due, on_cancel, can_cancel, asked, place = fields
        _check(kind in ("task", "child", "timer", "signal"), "an operation's kind")
        _check(0 < _typed(number, int, "an operation's number") < self.realm.next_number, "an operation's number")
        promise = self.of(place, PROMISE)
        operation = HostOperation(number, kind, self.text(name), promise)
        operation.child_id = _typed(child_id, str, "a child's id")
        _check(_UUID.fullmatch(child_id) if kind in ("task", "child") else not child_id, "a child's id")
        operation.since_ms = _typed(since, float, "a time")
        operation.due_at_ms = None if due is None else _typed(due, float, "a time")
        _check(math.isfinite(since) and (due is None or math.isfinite(due)), "a time")
        operation.on_cancel = _typed(on_cancel, str, "a cancel rule")
        operation.can_cancel = _typed(can_cancel, bool, "a cancel rule")
        operation.asked = _typed(asked, bool, "a cancel rule")
        _check(promise.state == 0 and promise.operation is None, "an operation's promise has settled")
        promise.operation = operation
        self.realm.operations[number] = operation


def _fill_cell(reader: _Reader, cell: list[Value], entry: list[Any]) -> None:
    cell[0] = reader.slot(entry[1])


def _fill_frame(reader: _Reader, frame: Frame, entry: list[Any]) -> None:
    _, function_id, await_id, slots, cells, promise = entry
    _typed(function_id, int, "a function id")
    _typed(await_id, int, "an await id")
    layout = layout_of(reader.program, function_id, await_id)
    function = reader.program.ir["functions"][function_id]
    _check(function["kind"] == "async" and len(slots) == len(layout), "a frame does not fit its function")
    _check(len(cells) == len(function["captures"]), "a frame does not fit its function")
    frame.function_id, frame.await_id, frame.realm = function_id, await_id, reader.realm
    frame.slots = tuple(
        reader.of(value, CELL) if is_cell else reader.slot(value) for value, is_cell in zip(slots, layout, strict=True)
    )
    frame.cells = tuple(reader.of(cell, CELL) for cell in cells)
    frame.promise = reader.of(promise, PROMISE)


def _fill_promise(reader: _Reader, promise: Promise, entry: list[Any]) -> None:
    _, state, value, reactions, handled = entry
    _check(state.__class__ is int and 0 <= state <= 2, "a promise's state")
    _check(reactions is None or state == 0, "a settled promise has reactions")
    promise.state, promise.value, promise.handled = state, reader.value(value), _typed(handled, bool, "a flag")
    if reactions is not None:
        promise.reactions = [reader.of(reaction, *_REACTION_TAGS) for reaction in reactions]


def _fill_then(reader: _Reader, reaction: ThenReaction, entry: list[Any]) -> None:
    reaction.on_fulfilled, reaction.on_rejected = reader.value(entry[1]), reader.value(entry[2])
    for handler in (reaction.on_fulfilled, reaction.on_rejected):
        _check(handler is UNDEFINED or is_callable(handler), "a reaction's function")
    reaction.derived = reader.of(entry[3], PROMISE)


def _fill_adopt(reader: _Reader, reaction: AdoptReaction, entry: list[Any]) -> None:
    reaction.promise = reader.of(entry[1], PROMISE)


def _fill_combinator(reader: _Reader, record: Combinator, entry: list[Any]) -> None:
    _, kind, promise, values, remaining, done = entry
    _check(kind in _COMBINATORS, "a combinator's kind")
    record.kind, record.promise = kind, reader.of(promise, PROMISE)
    record.values = _typed(reader.value(values), list, "a combinator's values")
    record.remaining, record.done = _typed(remaining, int, "a count"), _typed(done, bool, "a flag")


def _fill_element(reader: _Reader, reaction: ElementReaction, entry: list[Any]) -> None:
    reaction.combinator = reader.of(entry[1], COMBINATOR)
    reaction.index = _typed(entry[2], int, "an index")
    _check(reaction.index >= 0, "an index")


def _fill_resolvers(reader: _Reader, pair: ResolverPair, entry: list[Any]) -> None:
    pair.promise, pair.used = reader.of(entry[1], PROMISE), _typed(entry[2], bool, "a flag")


def _fill_resolving(reader: _Reader, function: ResolvingFunction, entry: list[Any]) -> None:
    function.pair, function.rejects = reader.of(entry[1], RESOLVERS), _typed(entry[2], bool, "a flag")


def _fill_finally(reader: _Reader, function: FinallyFunction, entry: list[Any]) -> None:
    function.on_finally, function.rejects = reader.value(entry[1]), _typed(entry[2], bool, "a flag")
    _check(is_callable(function.on_finally), "a reaction's function")
    function.realm = reader.realm


def _fill_pass(reader: _Reader, function: PassThrough, entry: list[Any]) -> None:
    function.value, function.rejects = reader.value(entry[1]), _typed(entry[2], bool, "a flag")


def _fill_map(reader: _Reader, collection: JSMap, entry: list[Any]) -> None:
    parts = _typed(entry[1], list, "a map's entries")
    for index in range(0, len(parts), 2):
        collection.put(reader.value(parts[index]), reader.value(parts[index + 1]))


def _fill_set(reader: _Reader, collection: JSSet, entry: list[Any]) -> None:
    for part in _typed(entry[1], list, "a set's values"):
        collection.add(reader.value(part))


def _fill_iterator(reader: _Reader, iterator: JSIterator, entry: list[Any]) -> None:
    _, kind, target, position = entry
    _check(kind in ITERATOR_KINDS and position.__class__ is int and position >= -1, "an iterator")
    value = reader.value(target)
    wanted = {"array": (list,), "string": (str,), "collection": (JSMap, JSSet), "hole": (EmptySlots,)}[
        kind.partition(" ")[0]
    ]
    _check(value.__class__ in wanted, "an iterator's target")
    JSIterator.__init__(iterator, kind, value, position)


def _fill_error(reader: _Reader, error: JSError, entry: list[Any]) -> None:
    error.props.update(reader.mapping(_typed(entry[2], dict, "an error's properties")))


def _fill_object(reader: _Reader, target: dict[str, Value], entry: list[Any]) -> None:
    target.update(reader.mapping(_typed(entry[1], dict, "an object")))


def _fill_array(reader: _Reader, target: list[Value], entry: list[Any]) -> None:
    target.extend([reader.value(item) for item in _typed(entry[1], list, "an array")])


def _blank(kind: type[Any]) -> Callable[[_Reader], Any]:
    return lambda reader: object.__new__(kind)


#: Maps and sets are filled after everything they may hold as keys exists; keys are compared by identity.
_FILLERS: Final[dict[int, Callable[[_Reader, Any, list[Any]], None]]] = {
    OBJECT: _fill_object, ARRAY: _fill_array, CELL: _fill_cell, FRAME: _fill_frame, PROMISE: _fill_promise, THEN:
    _fill_then, ADOPT: _fill_adopt, COMBINATOR: _fill_combinator, ELEMENT: _fill_element, RESOLVERS: _fill_resolvers,
    RESOLVING: _fill_resolving, FINALLY: _fill_finally, PASS: _fill_pass, MAP: _fill_map, SET: _fill_set,
    ITERATOR: _fill_iterator, ERROR: _fill_error,
}  # fmt: skip
_SHELLS: Final[dict[int, Callable[[_Reader], Any]]] = {
    OBJECT: lambda reader: {},
    ARRAY: lambda reader: [],
    CELL: lambda reader: [UNDEFINED],
    FRAME: _blank(Frame),
    PROMISE: lambda reader: Promise(reader.realm),
    THEN: _blank(ThenReaction),
    ADOPT: _blank(AdoptReaction),
    COMBINATOR: _blank(Combinator),
    ELEMENT: _blank(ElementReaction),
    RESOLVERS: _blank(ResolverPair),
    RESOLVING: _blank(ResolvingFunction),
    FINALLY: _blank(FinallyFunction),
    PASS: _blank(PassThrough),
    MAP: lambda reader: JSMap(),
    SET: lambda reader: JSSet(),
}
