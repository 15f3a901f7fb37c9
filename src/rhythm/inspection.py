"""Looking inside a suspended workflow: the functions parked in its snapshot, and their variables, for people.

Reads what the engine wrote and changes nothing; what JSON cannot hold is shown as text in brackets. Pure, as the
engine is.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final

from rhythm.engine import frame_position, plain_text
from rhythm.language import ir as flow_ir
from rhythm.language import snapshot as snapshots
from rhythm.language.builtins.formats import inspect as inspect_value
from rhythm.language.calendar import iso_text
from rhythm.language.codegen import Program
from rhythm.language.promises import Frame, Promise, Realm, waiting_frame
from rhythm.language.values import TDZ, JSDate, JSMap, JSSet, Value, describe, own_keys, own_value

VIEW_DEPTH_MAX: Final = 8  #: levels of data that are shown
VIEW_ITEMS_MAX: Final = 200  #: functions, and entries of one object or array, that are shown


@dataclass(frozen=True, slots=True)
class FrameView:
    """One async function of a suspended workflow, for people."""

    function: str  #: "" when it has no name
    line: int
    column: int
    awaiting: list[dict[str, Any]]  #: operations it waits for directly: {"operation", "kind", "name", "since"}
    variables: dict[str, Any]  #: JSON-shaped; what JSON cannot hold is shown as text in brackets


def inspect(program: Program, snapshot: bytes) -> list[FrameView]:
    """The parked functions of a snapshot, innermost first. Raises SnapshotError."""
    realm = Realm(now_ms=lambda: 0.0, random=lambda: 0.0)
    snapshots.decode(program, snapshot, realm)
    awaiting: dict[int, list[dict[str, Any]]] = {}
    frames: list[Frame] = []
    rest: list[Promise] = []
    for operation in realm.operations.values():
        frame = waiting_frame(operation.promise)
        entry = {
            "operation": operation.number,
            "kind": operation.kind,
            "name": operation.name,
            "since": operation.since_ms,
        }
        if frame is not None:
            awaiting.setdefault(id(frame), []).append(entry)
            if frame not in frames:
                frames.append(frame)
                rest.append(frame.promise)
    while rest and len(frames) < VIEW_ITEMS_MAX:
        frame = waiting_frame(rest.pop(0))
        if frame is not None and frame not in frames:
            frames.append(frame)
            rest.append(frame.promise)
    return [_view(program, frame, awaiting.get(id(frame), [])) for frame in frames]


def _view(program: Program, frame: Frame, awaiting: list[dict[str, Any]]) -> FrameView:
    function = program.ir["functions"][frame.function_id]
    name, line, column = frame_position(program, frame)
    cells = set(function["cells"])
    variables: dict[str, Any] = {}
    for index, cell in enumerate(frame.cells):
        captured = flow_ir.capture_name(program.ir, frame.function_id, index)
        if captured and cell[0].__class__ is not FunctionType:
            variables[captured] = to_view(cell[0])
    for slot, value in zip(function["awaits"][frame.await_id]["live"], frame.slots, strict=True):
        source_name = function["slots"][slot]
        if source_name:
            variables[source_name] = to_view(value[0] if slot in cells else value)
    return FrameView(name, line, column, awaiting, variables)


def to_view(value: Value, depth: int = 0) -> Any:
    """A value as JSON-shaped data for people."""
    kind = value.__class__
    if kind is str:
        return plain_text(value)
    if kind is bool or value is None:
        return value
    if kind is float:
        return (
            int(value)
            if value.is_integer() and abs(value) < 1e21
            else value
            if value - value == 0
            else f"[{describe(value)}]"
        )
    if value is TDZ:
        return "[not yet initialised]"
    if kind is JSDate:
        return f"[Date {describe_date(value)}]"
    if kind is FunctionType:
        return "[function]"
    if kind is Promise:
        return f"[promise {('pending', 'fulfilled', 'rejected')[value.state]}]"
    if depth >= VIEW_DEPTH_MAX:
        return "[…]"
    if kind is list:
        shown = [to_view(item, depth + 1) for item in value[:VIEW_ITEMS_MAX]]
        return [*shown, f"[… {len(value) - VIEW_ITEMS_MAX} more]"] if len(value) > VIEW_ITEMS_MAX else shown
    if kind is dict:
        return {plain_text(key): to_view(own_value(value, key), depth + 1) for key in own_keys(value)[:VIEW_ITEMS_MAX]}
    if kind is JSMap or kind is JSSet:
        return f"[{plain_text(inspect_value(value))}]"
    return f"[{describe(value)}]"


def describe_date(date: JSDate) -> str:
    """A date as ISO text, or "Invalid Date"."""
    return iso_text(date.ms) if date.ms == date.ms else "Invalid Date"
