"""A snapshot as one JSON value that people can read: every entry of its heap, with the names of the source.

    {"version", "workflow", "definition", "bytes", "cancelled", "next_operation", "ctx", "result": ref,
     "operations": [{"number", "kind", "name", "execution_id", "since", "due", "on_cancel", "cancellable",
                     "asked_to_stop", "promise": ref}, ...],
     "unread_signals": [{"name", "payload"}, ...],
     "heap": [{"id": n, "kind", ...}, ...]}

A ref is {"$ref": n}, the "id" of an entry: what is shared, and cycles, are seen as such. Values that JSON has no word
for are {"$undefined": true}, {"$uninitialised": true} and {"$number": "NaN"}; an object with a key that begins with "$"
is {"$object": {...}}. Text keeps its lone surrogates. The kinds of entries are those of the table in `snapshot`, their
fields follow its grammar; functions and frames say where they stand in the source, frames also what they await.

Reads a snapshot that was checked by decoding it first. Failure: SnapshotError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from rhythm.language import ir as flow_ir
from rhythm.language import snapshot as snapshots
from rhythm.language.calendar import iso_text
from rhythm.language.codegen import Program
from rhythm.language.numbers import number_to_string
from rhythm.language.promises import Realm
from rhythm.language.units import join_surrogates

_STATES: Final = ("pending", "fulfilled", "rejected")


def to_json_value(program: Program, data: bytes) -> dict[str, Any]:
    """The JSON-shaped value of a snapshot of this program. Raises SnapshotError."""
    snapshots.decode(program, data, Realm(now_ms=lambda: 0.0, random=lambda: 0.0))
    return _Shower(program).snapshot(data)


class _Shower:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.functions: list[dict[str, Any]] = program.ir["functions"]

    def snapshot(self, data: bytes) -> dict[str, Any]:
        version, _, number, cancelled, ctx, root, operations, unread, heap = snapshots.read_fields(data)
        return {
            "version": version,
            "workflow": self.program.name,
            "definition": self.program.hash,
            "bytes": len(data),
            "cancelled": cancelled,
            "next_operation": number,
            "ctx": self.value(ctx),
            "result": _reference(root),
            "operations": [self.operation(operation) for operation in operations],
            "unread_signals": [{"name": _text(name), "payload": _payload(payload)} for name, payload in unread],
            "heap": [self.entry(place, entry) for place, entry in enumerate(heap)],
        }

    def operation(self, fields: list[Any]) -> dict[str, Any]:
        number, kind, name, child_id, since, due, on_cancel, can_cancel, asked, promise = fields
        return {
            "number": number,
            "kind": kind,
            "name": _text(name) or None,
            "execution_id": child_id or None,
            "since": iso_text(since),
            "due": None if due is None else iso_text(due),
            "on_cancel": on_cancel,
            "cancellable": can_cancel,
            "asked_to_stop": asked,
            "promise": _reference(promise),
        }

    def entry(self, place: int, entry: list[Any]) -> dict[str, Any]:
        tag, *fields = entry
        kind, show = _KINDS[tag]
        return {"id": place, "kind": kind, **show(self, *fields)}

    def value(self, value: Any) -> Any:
        kind = value.__class__
        if kind is bool or value is None:
            return value
        if kind is float:
            return _number(value)
        if kind is int:
            if value >= 0:
                return _reference(value)
            return {"$undefined": True} if value == snapshots.UNDEFINED_MARK else {"$uninitialised": True}
        if kind is list:
            return [self.value(item) for item in value]
        return self.properties(value) if kind is dict else _text(value)

    def properties(self, value: dict[Any, Any]) -> dict[str, Any]:
        shown = {_text(key): self.value(item) for key, item in value.items()}
        return {"$object": shown} if any(key.startswith("$") for key in shown) else shown

    # --- entries ---

    def frame(
        self, function_id: int, await_id: int, slots: list[Any], cells: list[int], promise: int
    ) -> dict[str, Any]:
        function = self.functions[function_id]
        waits = function["awaits"][await_id]
        names = _unique([function["slots"][slot] or f"temporary {slot}" for slot in waits["live"]])
        return {
            **self.named(function_id),
            "at": self.place(waits["pos"]),
            "awaits": join_surrogates(waits["text"]),
            "variables": dict(zip(names, map(self.value, slots), strict=True)),
            "captured": self.captured(function_id, cells),
            "promise": _reference(promise),
        }

    def closure(self, function_id: int, cells: list[int]) -> dict[str, Any]:
        at = self.place(self.functions[function_id]["pos"])
        return {**self.named(function_id), "at": at, "captured": self.captured(function_id, cells)}

    def place(self, position: list[int]) -> str:
        line, column = position
        return f"{self.program.name}.flow:{line}:{column}"

    def named(self, function_id: int) -> dict[str, Any]:
        return {"function": join_surrogates(self.functions[function_id]["name"]), "function_id": function_id}

    def captured(self, function_id: int, cells: list[int]) -> dict[str, Any]:
        names = [flow_ir.capture_name(self.program.ir, function_id, index) for index in range(len(cells))]
        return dict(zip(_unique(names), map(_reference, cells), strict=True))

    def promise(self, state: int, value: Any, reactions: list[int] | None, handled: bool) -> dict[str, Any]:
        settled = {} if state == 0 else {"value": self.value(value)}
        waiting = {} if reactions is None else {"reactions": _references(reactions)}
        return {"state": _STATES[state], **settled, **waiting, "handled": handled}


def _reference(place: int) -> dict[str, int]:
    return {"$ref": place}


def _references(places: list[int]) -> list[dict[str, int]]:
    return [_reference(place) for place in places]


def _unique(names: list[str]) -> list[str]:
    """The names, those that come again with a number: an inner variable may hide an outer one of its name."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        shown = join_surrogates(name)
        found.append(shown if seen[name] == 1 else f"{shown} ({seen[name]})")
    return found


def _text(text: str | bytes) -> str:
    return join_surrogates(text.decode("utf-8", "surrogatepass") if isinstance(text, bytes) else text)


def _number(number: float) -> Any:
    if number - number != 0:
        return {"$number": number_to_string(number)}
    if number.is_integer() and abs(number) < 1e21 and str(number) != "-0.0":
        return int(number)
    return number


def _payload(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return payload.decode("ascii", "backslashreplace")


#: tag -> kind, and what its fields are shown as.
_KINDS: Final[dict[int, tuple[str, Callable[..., dict[str, Any]]]]] = {
    snapshots.OBJECT: ("object", lambda s, value: {"value": s.properties(value)}),
    snapshots.ARRAY: ("array", lambda s, value: {"value": s.value(value)}),
    snapshots.CELL: ("variable", lambda s, value: {"value": s.value(value)}),
    snapshots.CLOSURE: ("function", _Shower.closure),
    snapshots.FRAME: ("frame", _Shower.frame),
    snapshots.PROMISE: ("promise", _Shower.promise),
    snapshots.THEN: (
        "then",
        lambda s, done, failed, derived: {
            "on_fulfilled": s.value(done), "on_rejected": s.value(failed), "derived": _reference(derived),
        },
    ),
    snapshots.ADOPT: ("follow", lambda s, promise: {"promise": _reference(promise)}),
    snapshots.COMBINATOR: (
        "combinator",
        lambda s, kind, promise, values, remaining, done: {
            "method": f"Promise.{kind}", "promise": _reference(promise), "values": s.value(values),
            "remaining": remaining, "done": done,
        },
    ),
    snapshots.ELEMENT: ("element", lambda s, record, index: {"combinator": _reference(record), "index": index}),
    snapshots.RESOLVERS: ("resolvers", lambda s, promise, used: {"promise": _reference(promise), "used": used}),
    snapshots.RESOLVING: (
        "resolving function", lambda s, pair, rejects: {"resolvers": _reference(pair), "rejects": rejects},
    ),
    snapshots.FINALLY: ("finally", lambda s, function, rejects: {"function": s.value(function), "rejects": rejects}),
    snapshots.PASS: ("pass", lambda s, value, rejects: {"value": s.value(value), "rejects": rejects}),
    snapshots.MAP: (
        "Map",
        lambda s, parts: {
            "entries": [[s.value(key), s.value(value)] for key, value in zip(parts[::2], parts[1::2], strict=True)]
        },
    ),
    snapshots.SET: ("Set", lambda s, values: {"values": s.value(values)}),
    snapshots.ITERATOR: (
        "iterator",
        lambda s, kind, target, position: {"over": kind, "target": s.value(target), "position": position},
    ),
    snapshots.DATE: ("Date", lambda s, ms: {"value": iso_text(ms) if ms == ms else "Invalid Date"}),
    snapshots.ERROR: (
        "Error",
        lambda s, kind, properties, hidden: {
            "class": kind, "properties": s.properties(properties),
            **({} if hidden is None else {"hidden": [_text(name) for name in hidden]}),
        },
    ),
    snapshots.BUILTIN: ("builtin", lambda s, name: {"name": name}),
    snapshots.HOLES: ("holes", lambda s, length: {"length": length}),
}  # fmt: skip
assert _KINDS.keys() == snapshots.TAGS.keys(), "every kind of entry can be shown"
