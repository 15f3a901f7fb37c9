"""task, child, sleep, signal, cancel: what a workflow asks of the outside world.

Each call checks its arguments, copies its inputs to JSON at once (a later change of the object does not reach the
task), takes the next sequence number and leaves a command in the realm; nothing leaves the process before the
activation ends. The promise is settled by the engine when the outcome arrives, in a turn of its own.

    task(name, inputs?, options?)    child(name, inputs?, options?)    -> promise of the output
    sleep(duration | Date)                                             -> promise of undefined
    signal(name, {timeout}?)                                           -> promise of the payload
    cancel(promise)                                                    -> whether anything is being cancelled

A wrong argument is a TypeError thrown by the call, never a rejected promise: it is a bug at that line. Options are
checked completely; an unknown one is refused by name.

`cancel_operation` and `cancel_all` are also what a cancel request from outside uses. Rejected at once is only what
has had no effect yet; a task or child that may have been claimed is asked to stop, and settles with what happened.
A deadline does the same to its task or child when its timer fires (`pass_deadline`), only that what then ends as
cancelled has timed out. It is the workflow's timer, and ends with the workflow.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from rhythm.durations import parse_milliseconds
from rhythm.errors import InvalidDuration
from rhythm.language.boundary import to_json
from rhythm.language.options import (
    CHILD_OPTIONS,
    ERROR_NAMES_MAX,
    RETRY_OPTIONS,
    SIGNAL_OPTIONS,
    TASK_OPTIONS,
    Option,
    Options,
)
from rhythm.language.promises import HostOperation, Promise, Realm
from rhythm.language.units import join_surrogates
from rhythm.language.values_types import (
    UNDEFINED,
    Builtin,
    JSDate,
    JSError,
    LimitError,
    UnsupportedError,
    Value,
    current_realm,
    throw_type_error,
)
from rhythm.model import NAME_LENGTH_MAX

OPERATIONS_MAX: Final = 100_000  #: Outstanding host operations of one execution.
COMMAND_BYTES_MAX: Final = 64 << 20  #: Inputs of what one activation starts; they are stored in one transaction.
DELAY_MS_MAX: Final = 10 * 366 * 86_400_000.0  #: Ten years, as everywhere in Rhythm.


class StartChild(msgspec.Struct, frozen=True, gc=False):
    """Start a task or a child workflow."""

    operation: int
    id: str  #: Minted here, so that a repeated commit starts nothing twice.
    kind: str  #: "task" or "workflow".
    name: str
    inputs: bytes  #: JSON.
    #: Only what the call has set: key, retries, retry, timeout_seconds, queue, priority, limit_key,
    #: delay_seconds, on_cancel, cancellable. `retry` holds initial and max (seconds), factor, jitter, retry_on,
    #: no_retry_on.
    options: dict[str, Any] = msgspec.field(default_factory=dict)


class StartTimer(msgspec.Struct, frozen=True, gc=False):
    """Arm a timer for a sleep, or for the timeout of a signal wait. One of the two times is set."""

    operation: int
    delay_ms: float | None = None  #: Counted from the commit.
    due_at_ms: float | None = None  #: An absolute time, milliseconds since the epoch.


class DropTimer(msgspec.Struct, frozen=True, gc=False):
    """Delete the timer of an operation."""

    operation: int


class CancelChild(msgspec.Struct, frozen=True, gc=False):
    """Cancel a started task or child: remove it when nobody has claimed it, else ask it to stop."""

    operation: int
    id: str


Command = StartChild | StartTimer | DropTimer | CancelChild


# Calls -------------------------------------------------------------------------------------------


def _task(name: Value = UNDEFINED, inputs: Value = UNDEFINED, options: Value = UNDEFINED, *_: Value) -> Value:
    return _start_child("task", "task", name, inputs, _options(options, "task", TASK_OPTIONS))


def _child(name: Value = UNDEFINED, inputs: Value = UNDEFINED, options: Value = UNDEFINED, *_: Value) -> Value:
    return _start_child("child", "workflow", name, inputs, _options(options, "child", CHILD_OPTIONS))


def _start_child(kind: str, started: str, name: Value, inputs: Value, options: dict[str, Any]) -> Promise:
    name = _name(name, "task" if kind == "task" else "workflow")
    payload = b"{}" if inputs is UNDEFINED else to_json(inputs, f"inputs of {kind} {name}")
    realm: Realm = current_realm()
    if len(payload) > realm.payload_bytes_max:
        throw_type_error(
            f"inputs of {kind} {name} take {len(payload):,} bytes, over the limit of {realm.payload_bytes_max:,} "
            "(payload_bytes_max); store them elsewhere and pass where they are"
        )
    if "deadline_seconds" in options and not options.get("cancellable", True):
        throw_type_error(f"{kind} {name} cannot have a deadline: with cancellable: false nobody may ask it to stop")
    realm.command_bytes += len(payload)
    if realm.command_bytes > COMMAND_BYTES_MAX:
        raise LimitError(
            f"the inputs of what this activation starts take more than {COMMAND_BYTES_MAX:,} bytes; "
            "wait for some of it before starting more, or pass where the data is"
        )
    operation = _operation(realm, kind, name)
    operation.child_id = options.pop("id", None) or realm.new_id()
    operation.on_cancel = options.get("on_cancel", "cancel")
    operation.can_cancel = options.get("cancellable", True)
    deadline = options.pop("deadline_seconds", None)
    _ask(realm, StartChild(operation.number, operation.child_id, started, join_surrogates(name), payload, options))
    if deadline is not None:
        operation.due_at_ms = operation.since_ms + deadline * 1000.0
        _ask(realm, StartTimer(operation.number, delay_ms=deadline * 1000.0))
    return operation.promise


def _sleep(duration: Value = UNDEFINED, *_: Value) -> Value:
    realm: Realm = current_realm()
    if duration.__class__ is JSDate:
        due = duration.ms
        if not abs(due) <= 8.64e15:
            throw_type_error("sleep was given an invalid Date")
        operation = _operation(realm, "timer", "")
        command = StartTimer(operation.number, due_at_ms=due)
    else:
        delay = _milliseconds(duration, "sleep")
        operation = _operation(realm, "timer", "")
        due = operation.since_ms + delay
        command = StartTimer(operation.number, delay_ms=delay)
    operation.due_at_ms = due
    _ask(realm, command)
    return operation.promise


def _signal(name: Value = UNDEFINED, options: Value = UNDEFINED, *_: Value) -> Value:
    name = _name(name, "signal")
    timeout = _options(options, "signal", SIGNAL_OPTIONS).get("timeout_seconds")
    realm: Realm = current_realm()
    operation = _operation(realm, "signal", name)
    if timeout is not None:
        operation.due_at_ms = operation.since_ms + timeout * 1000.0
        _ask(realm, StartTimer(operation.number, delay_ms=timeout * 1000.0))
    return operation.promise


def _cancel(promise: Value = UNDEFINED, *_: Value) -> Value:
    if promise.__class__ is not Promise:
        throw_type_error("cancel needs the promise that task, child, sleep or signal returned")
    operation = promise.operation
    return operation is not None and cancel_operation(promise.realm, operation)


def _operation(realm: Realm, kind: str, name: str) -> HostOperation:
    if not realm.is_open:
        raise UnsupportedError(
            "nothing can be started, slept or waited for before the workflow runs; do it inside the workflow"
        )
    if len(realm.operations) >= OPERATIONS_MAX:
        raise LimitError(f"more than {OPERATIONS_MAX:,} host operations are outstanding")
    number = realm.next_number
    realm.next_number = number + 1
    promise = Promise(realm)
    operation = HostOperation(number, kind, name, promise)
    operation.since_ms = realm.now_ms()
    promise.operation = operation
    realm.operations[number] = operation
    return operation


# Cancelling --------------------------------------------------------------------------------------


def cancel_operation(realm: Realm, operation: HostOperation) -> bool:
    """Cancel one outstanding operation. False when it says that it must not be."""
    if not operation.can_cancel:
        return False
    if operation.kind in ("timer", "signal"):
        finish_operation(realm, operation)
        realm.reject_promise(operation.promise, cancelled_error(operation))
        return True
    never_started = realm.commands.pop((operation.number, StartChild), None) is not None
    if never_started or operation.on_cancel == "abandon":
        finish_operation(realm, operation)
        props = {"attempts": 0.0} if never_started else {}
        realm.reject_promise(operation.promise, cancelled_error(operation, **props))
    elif not operation.asked:
        operation.asked = True
        _ask(realm, CancelChild(operation.number, operation.child_id))
    return True


def pass_deadline(realm: Realm, operation: HostOperation) -> None:
    """The deadline of a task or child has passed: it is asked to stop, and settles with what really happens."""
    if operation.on_cancel == "abandon":
        finish_operation(realm, operation, timer_fired=True)
        realm.reject_promise(operation.promise, timeout_error(operation))
        return
    operation.due_at_ms = None
    if not operation.asked:
        operation.asked = True
        operation.on_cancel = "deadline"
        _ask(realm, CancelChild(operation.number, operation.child_id))


def cancel_all(realm: Realm) -> None:
    """Carry out a cancel request for the whole execution: `ctx.cancelled`, then every outstanding operation."""
    realm.cancelled = True
    if realm.ctx.__class__ is dict:
        realm.ctx["cancelled"] = True
    for operation in list(realm.operations.values()):
        cancel_operation(realm, operation)


def finish_operation(realm: Realm, operation: HostOperation, *, timer_fired: bool = False) -> None:
    """Take an operation out of the outstanding ones; drops its timer unless that is what has just fired."""
    del realm.operations[operation.number]
    operation.promise.operation = None
    if operation.due_at_ms is not None and not timer_fired:
        if realm.commands.pop((operation.number, StartTimer), None) is None:
            _ask(realm, DropTimer(operation.number))


def cancelled_error(operation: HostOperation, **props: Value) -> JSError:
    """The CancelledError an operation is rejected with."""
    error = JSError("Error", f"{describe(operation)} was cancelled")
    return _named(error, "CancelledError", operation, type="cancelled", **props)


def timeout_error(operation: HostOperation, **props: Value) -> JSError:
    """The TimeoutError of a signal wait, or of a task or child that was past its deadline."""
    what = "timed out" if operation.kind == "signal" else "did not end within its deadline"
    error = JSError("Error", f"{describe(operation)} {what}")
    return _named(error, "TimeoutError", operation, type="timeout", **props)


def describe(operation: HostOperation) -> str:
    """The operation for people: `task chargeCard`, `sleep`, `signal approval`."""
    return "sleep" if operation.kind == "timer" else f"{operation.kind} {operation.name}"


def _named(error: JSError, name: str, operation: HostOperation, **props: Value) -> JSError:
    stack = error.props["stack"].replace("Error", name, 1)
    if "\n" not in stack:  # nothing runs that has asked for it: it says who waits
        stack = "\n".join([stack, *operation.promise.realm.instance.waiting(operation.promise)])
    error.props["stack"] = stack
    error.props["name"] = name
    error.hidden = error.hidden | {"name"}
    if operation.kind in ("task", "child"):
        error.props["task" if operation.kind == "task" else "workflow"] = operation.name
        error.props["executionId"] = operation.child_id
        error.props["retryable"] = False
    error.props.update(props)
    return error


def _ask(realm: Realm, command: Command) -> None:
    realm.commands[command.operation, command.__class__] = command


# Arguments ---------------------------------------------------------------------------------------


def _name(value: Value, what: str) -> str:
    """The name, in UTF-16 units as the program has it."""
    if value.__class__ is not str:
        throw_type_error(f"the name of a {what} must be a string")
    if not 1 <= len(value) <= NAME_LENGTH_MAX:
        throw_type_error(f"the name of a {what} must have 1 to {NAME_LENGTH_MAX} characters")
    if not join_surrogates(value).isprintable():
        throw_type_error(f"the name of a {what} must not have control characters or half an emoji in it")
    return value


def _milliseconds(value: Value, what: str) -> float:
    if value.__class__ is float:
        if math.isnan(value) or value > DELAY_MS_MAX:
            throw_type_error(f"{what}: {'NaN' if math.isnan(value) else value} is not a duration of at most ten years")
        return value if value > 0 else 0.0
    if value.__class__ is str:
        try:
            return parse_milliseconds(value)
        except InvalidDuration as error:
            throw_type_error(f"{what}: {error}")
    throw_type_error(f"{what} needs a duration: milliseconds, or a string like '30s', '5m', '2h', '3d'")


def _seconds(value: Value, what: str) -> float:
    return _milliseconds(value, what) / 1000.0


def _delay(value: Value, what: str) -> float:
    if value.__class__ is JSDate:
        return _milliseconds(value.ms - current_realm().now_ms(), what) / 1000.0
    return _seconds(value, what)


def _number(value: Value, what: str, option: Option) -> float | int:
    whole = option.kind == "whole"
    if value.__class__ is not float or not option.low <= value <= option.high or (whole and value != int(value)):
        throw_type_error(f"{what} must be {option.wanted}")
    return int(value) if whole else float(value)


def _boolean(value: Value, what: str, option: Option) -> bool:
    if value.__class__ is not bool:
        throw_type_error(f"{what} must be {option.wanted}")
    return bool(value)


def _choice(value: Value, what: str, option: Option) -> str:
    if value.__class__ is not str or value not in option.choices:
        throw_type_error(f"{what} must be {option.wanted}")
    return str(value)


def _uuid(value: Value, what: str, option: Option) -> str:
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError):
        throw_type_error(f"{what} must be {option.wanted}")


def _names(value: Value, what: str, option: Option) -> list[str]:
    if value.__class__ is not list or len(value) > ERROR_NAMES_MAX:
        throw_type_error(f"{what} must be {option.wanted}")
    return [join_surrogates(_name(item, f"{what} entry")) for item in value]


#: Kind of an option -> what makes a value of the command of it. Undefined counts as not given.
_READ: Final[dict[str, Callable[[Value, str, Option], Any]]] = {
    "duration": lambda value, what, option: _seconds(value, what),
    "moment": lambda value, what, option: _delay(value, what),
    "text": lambda value, what, option: join_surrogates(_name(value, what)),
    "number": _number,
    "whole": _number,
    "boolean": _boolean,
    "choice": _choice,
    "uuid": _uuid,
    "names": _names,
    "retry": lambda value, what, option: _options(value, what, RETRY_OPTIONS),
}


def _options(value: Value, what: str, known: Options) -> dict[str, Any]:
    if value is UNDEFINED:
        return {}
    if value.__class__ is not dict:
        throw_type_error(f"the options of {what} must be an object")
    options: dict[str, Any] = {}
    for name, given in value.items():
        option = known.get(name)
        if option is None:
            throw_type_error(f"{what} has no option {name!r}; it has {', '.join(known)}")
        if given is not UNDEFINED:
            options[option.command] = _READ[option.kind](given, f"option {name} of {what}", option)
    return options


TASK: Final = Builtin("task", _task)
CHILD: Final = Builtin("child", _child)
SLEEP: Final = Builtin("sleep", _sleep)
SIGNAL: Final = Builtin("signal", _signal)
CANCEL: Final = Builtin("cancel", _cancel)

#: The workflow globals of this file, by name.
HOST_GLOBALS: Final[dict[str, Builtin]] = {
    "task": TASK,
    "child": CHILD,
    "sleep": SLEEP,
    "signal": SIGNAL,
    "cancel": CANCEL,
}
