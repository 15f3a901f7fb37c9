"""Promises, parked frames and the realm of one execution.

ECMAScript's promise machinery with one change of representation: everything that waits is *data*. The standard
describes reactions, resolving functions and combinator elements as closures; a closure of Python cannot be written
to a snapshot, so here each of them is a small record with a `run` (reactions) or a `call` (function values):

    Frame              an async flow function parked at an await; resumed by the instance's step function
    ThenReaction       callbacks of then/catch/finally and the promise derived from them
    AdoptReaction      a promise that follows another one (`resolve(promise)`, `return promise`)
    ElementReaction    one element of Promise.all, allSettled, any or race
    ThenableJob        the job that calls a foreign `then`
    ResolvingFunction  the resolve or reject function handed to user code; a callable flow value

Order is the standard's, tick by tick: an await of a native promise or a plain value takes one tick, `return promise`
from an async function three (job, then, fulfil), a thenable one extra job, combinators settle in the job of their
last element. Settling never runs flow code: it only queues jobs, so chains of any length need no stack.

A `Realm` holds everything that belongs to one execution: the job queue, the outstanding host operations, unread
signals, the plain `ctx` object, and the clock, randomness and log handed in by whoever runs it. The queue is empty
whenever a snapshot is taken.

What it must never do: keep a Python closure in a reaction, run flow code outside a job, or touch the outside world
other than through the callables given to the realm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import FrameType, FunctionType, TracebackType
from typing import Any, Final

from rhythm.language.values_types import (
    UNDEFINED,
    JSError,
    JSThrow,
    NativeFunction,
    Value,
    caught,
    is_callable,
)
from rhythm.model import PAYLOAD_BYTES_MAX

PENDING: Final = 0
FULFILLED: Final = 1
REJECTED: Final = 2

#: Promises rejected in one turn without a handler that are remembered one by one; more are only counted.
UNHANDLED_MAX: Final = 1000


class Promise:
    """A promise of the flow language."""

    __slots__ = ("handled", "operation", "reactions", "realm", "state", "value")

    def __init__(self, realm: Realm) -> None:
        self.realm = realm
        self.state: int = PENDING
        self.value: Value = UNDEFINED
        self.reactions: list[Any] | None = None  #: What runs when it settles, in order; None when nothing does.
        self.handled: bool = False  #: Whether anything ever observed it (decides about unhandled rejections).
        self.operation: HostOperation | None = None  #: The outstanding host operation that settles it.

    def add_reaction(self, reaction: Any) -> None:
        """Run `reaction` when this promise settles, or queue it at once when it has."""
        self.handled = True
        if self.state == PENDING:
            if self.reactions is None:
                self.reactions = [reaction]
            else:
                self.reactions.append(reaction)
        else:
            self.realm.queue.append((reaction, self.value, self.state == REJECTED))


class Frame:
    """One call of an async flow function, parked at an await (or running towards one).

    `slots` holds the values of the slots live at `await_id`, in the order the IR lists them; `cells` the cells the
    function has captured. Generated code writes both before every `Realm.await_value`.
    """

    __slots__ = ("await_id", "cells", "function_id", "promise", "realm", "slots")

    def __init__(self, function_id: int, realm: Realm) -> None:
        self.function_id = function_id
        self.realm = realm
        self.await_id: int = -1
        self.promise: Promise = Promise(realm)
        self.slots: tuple[Value, ...] = ()
        self.cells: tuple[list[Value], ...] = ()


class HostOperation:
    """A task, child, timer or signal wait that has not settled yet."""

    __slots__ = (
        "asked",
        "can_cancel",
        "child_id",
        "due_at_ms",
        "kind",
        "name",
        "number",
        "on_cancel",
        "promise",
        "since_ms",
    )

    def __init__(self, number: int, kind: str, name: str, promise: Promise) -> None:
        self.number = number  #: Sequence number within the execution, from 1.
        self.kind = kind  #: "task", "child", "timer" or "signal".
        self.name = name  #: Name of the task, workflow or signal; "" for timers.
        self.promise = promise
        self.child_id: str = ""  #: Id of the started execution; "" for timers and signal waits.
        self.since_ms: float = 0.0  #: When it was called, in milliseconds since the epoch.
        self.due_at_ms: float | None = None  #: When its timer (timeout, deadline) fires; None without one.
        #: "cancel" (ask it to stop), "abandon" (reject at once, let it run), or "deadline" (it has been asked to stop
        #: because its deadline had passed).
        self.on_cancel: str = "cancel"
        self.can_cancel: bool = True  #: False: a cancel request leaves it alone.
        self.asked: bool = False  #: True once the child has been asked to stop.


# --- reactions ------------------------------------------------------------------------------------------------------


class ThenReaction:
    """Callbacks of `then`; `derived` is the promise `then` returned."""

    __slots__ = ("derived", "on_fulfilled", "on_rejected")

    def __init__(self, on_fulfilled: Value, on_rejected: Value, derived: Promise) -> None:
        self.on_fulfilled = on_fulfilled  #: A callable, or UNDEFINED to pass the value through.
        self.on_rejected = on_rejected  #: A callable, or UNDEFINED to pass the reason through.
        self.derived = derived

    def run(self, value: Value, rejected: bool) -> None:
        derived = self.derived
        handler = self.on_rejected if rejected else self.on_fulfilled
        if handler is UNDEFINED:
            if rejected:
                derived.realm.reject_promise(derived, value)
            else:
                derived.realm.resolve_promise(derived, value)
            return
        try:
            result = handler(value) if handler.__class__ is FunctionType else handler.call(value)
        except (JSThrow, RecursionError) as error:
            derived.realm.reject_promise(derived, caught(error))
        else:
            derived.realm.resolve_promise(derived, result)


class AdoptReaction:
    """`promise` follows the one this reaction hangs on."""

    __slots__ = ("promise",)

    def __init__(self, promise: Promise) -> None:
        self.promise = promise

    def run(self, value: Value, rejected: bool) -> None:
        promise = self.promise
        if rejected:
            promise.realm.reject_promise(promise, value)
        else:
            promise.realm.resolve_promise(promise, value)


class Combinator:
    """The record the elements of one Promise.all, allSettled, any or race share."""

    __slots__ = ("done", "kind", "promise", "remaining", "values")

    def __init__(self, kind: str, promise: Promise) -> None:
        self.kind = kind  #: "all", "allSettled", "any" or "race".
        self.promise = promise
        self.values: list[Value] = []  #: Results (errors for "any") by index; unused by "race".
        self.remaining: int = 1  #: Elements outstanding, plus one while the iterable is being read.
        self.done: bool = False  #: True once its promise has been resolved or rejected.

    def element_done(self) -> None:
        """Count one element (or the end of the iterable) and settle the promise when it was the last."""
        self.remaining -= 1
        if self.remaining or self.done:
            return
        self.done = True
        promise = self.promise
        if self.kind == "any":
            promise.realm.reject_promise(promise, _aggregate_error(self.values))
        else:
            promise.realm.resolve_promise(promise, self.values)


class ElementReaction:
    """Element `index` of a combinator."""

    __slots__ = ("combinator", "index")

    def __init__(self, combinator: Combinator, index: int) -> None:
        self.combinator = combinator
        self.index = index

    def run(self, value: Value, rejected: bool) -> None:
        record = self.combinator
        kind = record.kind
        promise = record.promise
        if kind == "allSettled":
            outcome = {"status": "rejected", "reason": value} if rejected else {"status": "fulfilled", "value": value}
            record.values[self.index] = outcome
            record.element_done()
        elif kind == "race" or rejected is (kind == "all"):
            # The element that decides: every one of race, a rejection for all, a fulfilment for any.
            if not record.done:
                record.done = True
                if rejected:
                    promise.realm.reject_promise(promise, value)
                else:
                    promise.realm.resolve_promise(promise, value)
        else:
            record.values[self.index] = value
            record.element_done()


class ThenableJob:
    """Calls `then` of an object that is not a native promise, with fresh resolving functions for `promise`."""

    __slots__ = ("promise", "then", "thenable")

    def __init__(self, promise: Promise, thenable: Value, then: Value) -> None:
        self.promise = promise
        self.thenable = thenable
        self.then = then

    def run(self, value: Value, rejected: bool) -> None:
        resolve, reject = resolving_functions(self.promise)
        try:
            then = self.then
            if then.__class__ is FunctionType:
                then(resolve, reject)
            else:
                then.call(resolve, reject)
        except (JSThrow, RecursionError) as error:
            reject.call(caught(error))


class AdoptJob:
    """The job that makes `promise` follow the native promise `source`; the first of the three ticks of a return."""

    __slots__ = ("promise", "source")

    def __init__(self, promise: Promise, source: Promise) -> None:
        self.promise = promise
        self.source = source

    def run(self, value: Value, rejected: bool) -> None:
        self.source.add_reaction(AdoptReaction(self.promise))


WAITING_LOOKS_MAX: Final = 100  #: Promises looked at to find the async call that waits for one.


def waiting_frame(promise: Promise) -> Frame | None:
    """The async call that waits for a promise, perhaps through combinators and other promises."""
    rest, seen = [promise], 0
    while rest and seen < WAITING_LOOKS_MAX:
        seen += 1
        for reaction in rest.pop(0).reactions or ():
            kind = reaction.__class__
            if kind is Frame:
                return reaction  # type: ignore[no-any-return]  # reactions are Any; its class was just tested
            if kind is ElementReaction:
                if not reaction.combinator.done:
                    rest.append(reaction.combinator.promise)
            elif kind is ThenReaction:
                rest.append(reaction.derived)
            elif kind is AdoptReaction:
                rest.append(reaction.promise)
    return None


def settled_by(python_frame: FrameType) -> Promise | None:
    """The promise that a job is about to settle, seen from a Python frame of this module; None for other frames."""
    name = _SETTLING.get(python_frame.f_code)
    return None if name is None else getattr(python_frame.f_locals["self"], name)


#: Code that runs flow functions or makes errors in a job -> where it keeps the promise that the job settles.
_SETTLING: Final = {
    ThenReaction.run.__code__: "derived",
    ThenableJob.run.__code__: "promise",
    Combinator.element_done.__code__: "promise",
}


# --- function values ------------------------------------------------------------------------------------------------


class ResolverPair:
    """What the two resolving functions of one promise share."""

    __slots__ = ("promise", "used")

    def __init__(self, promise: Promise) -> None:
        self.promise = promise
        self.used: bool = False  #: True once either function has been called; later calls do nothing.


class ResolvingFunction(NativeFunction):
    """The resolve or reject function of a promise: a callable flow value that a snapshot can hold."""

    __slots__ = ("pair", "rejects")

    def __init__(self, pair: ResolverPair, rejects: bool) -> None:
        self.pair = pair
        self.rejects = rejects

    def call(self, value: Value = UNDEFINED, *_: Value) -> Value:
        """Settle the promise, unless one of the pair has been called before."""
        pair = self.pair
        if not pair.used:
            pair.used = True
            promise = pair.promise
            if self.rejects:
                promise.realm.reject_promise(promise, value)
            else:
                promise.realm.resolve_promise(promise, value)
        return UNDEFINED


class FinallyFunction(NativeFunction):
    """The callback `finally` registers: calls the user's function, then passes the value or reason through."""

    __slots__ = ("on_finally", "realm", "rejects")

    def __init__(self, realm: Realm, on_finally: Value, rejects: bool) -> None:
        self.realm = realm
        self.on_finally = on_finally
        self.rejects = rejects

    def call(self, value: Value = UNDEFINED, *_: Value) -> Value:
        """Call the function and return a promise for the value (or reason) given."""
        function = self.on_finally
        result = function() if function.__class__ is FunctionType else function.call()
        passed = PassThrough(value, self.rejects)
        return self.realm.then(self.realm.to_promise(result), passed, UNDEFINED)


class PassThrough(NativeFunction):
    """Returns or throws the value that reached a `finally`."""

    __slots__ = ("rejects", "value")

    def __init__(self, value: Value, rejects: bool) -> None:
        self.value = value
        self.rejects = rejects

    def call(self, *_: Value) -> Value:
        """Return the value, or throw it."""
        if self.rejects:
            raise JSThrow(self.value)
        return self.value


def resolving_functions(promise: Promise) -> tuple[ResolvingFunction, ResolvingFunction]:
    """Return fresh resolve and reject functions for `promise`."""
    pair = ResolverPair(promise)
    return ResolvingFunction(pair, False), ResolvingFunction(pair, True)


# --- the realm ------------------------------------------------------------------------------------------------------


def _no_step(frame: Frame, value: Value, rejected: bool) -> None:
    raise AssertionError("a frame was resumed before an instance was attached to its realm")


def _no_log(level: str, text: str) -> None:
    return None


def _no_stack(trace: TracebackType | None = None) -> str:
    return ""


class Realm:
    """Everything that belongs to one execution, apart from its code.

    `now_ms`, `random` and `new_id` are the outside world. `step` and `stack` are set by the instance of the program;
    `log` receives (level, text) of console calls.
    """

    __slots__ = (
        "cancelled",
        "command_bytes",
        "commands",
        "ctx",
        "execution_id",
        "instance",
        "is_open",
        "log",
        "new_id",
        "next_number",
        "now_ms",
        "operations",
        "payload_bytes_max",
        "queue",
        "random",
        "rejected",
        "rejected_uncounted",
        "stack",
        "step",
        "unread",
    )

    def __init__(
        self,
        *,
        now_ms: Callable[[], float],
        random: Callable[[], float],
        new_id: Callable[[], str] = str,
        log: Callable[[str, str], None] = _no_log,
    ) -> None:
        self.now_ms = now_ms
        self.random = random
        self.new_id = new_id
        self.log = log
        self.stack: Callable[..., str] = _no_stack  # of the running functions, or of a traceback
        self.step: Callable[[Frame, Value, bool], None] = _no_step
        self.instance: Any = None  #: The program's instance; set when it is attached.
        self.is_open = True  #: Host operations may be begun: not while top-level declarations run.
        self.queue: deque[tuple[Any, Value, bool]] = deque()
        self.operations: dict[int, HostOperation] = {}  #: Outstanding ones by number, in call order.
        self.next_number: int = 1
        self.unread: list[tuple[str, bytes]] = []  #: Signals nobody has waited for yet, oldest first: name, payload.
        #: Effects of this activation, in order, by operation and class; never part of a snapshot.
        self.commands: dict[tuple[int, type], Any] = {}
        self.command_bytes: int = 0  #: Of the inputs in the commands.
        self.execution_id: str = ""
        self.payload_bytes_max: int = PAYLOAD_BYTES_MAX  #: Largest inputs of a task or child, bytes of JSON.
        self.cancelled: bool = False
        self.ctx: Value = UNDEFINED  #: The `ctx` object, so that `ctx.cancelled` can be kept current.
        self.rejected: list[Promise] = []  #: Rejected in this turn while nothing observed them.
        self.rejected_uncounted: int = 0  #: How many more there were beyond UNHANDLED_MAX.

    # -- jobs --

    def enqueue(self, job: tuple[Any, Value, bool]) -> None:
        """Queue one job: (reaction, value, whether it is a rejection)."""
        self.queue.append(job)

    def drain(self) -> None:
        """Run jobs until none is left. The realm must be this thread's current one."""
        queue = self.queue
        step = self.step
        take = queue.popleft
        while queue:
            reaction, value, rejected = take()
            if reaction.__class__ is Frame:
                step(reaction, value, rejected)
            else:
                reaction.run(value, rejected)

    def await_value(self, frame: Frame, value: Value) -> None:
        """Park `frame` until `value` settles: the `await` operator."""
        if value.__class__ is Promise:
            promise = value
        elif value.__class__ is dict or value.__class__ is JSError:
            promise = Promise(self)
            self.resolve_promise(promise, value)
        else:
            self.queue.append((frame, value, False))
            return
        promise.handled = True
        if promise.state == PENDING:
            if promise.reactions is None:
                promise.reactions = [frame]
            else:
                promise.reactions.append(frame)
        else:
            self.queue.append((frame, promise.value, promise.state == REJECTED))

    # -- promises --

    def resolve_promise(self, promise: Promise, value: Value) -> None:
        """Resolve `promise` with `value`: follow it when it is a promise or a thenable, else fulfil."""
        kind = value.__class__
        if kind is Promise:
            if value is promise:
                self.reject_promise(promise, JSError("TypeError", "Chaining cycle detected for promise #<Promise>"))
            else:
                self.queue.append((AdoptJob(promise, value), None, False))
            return
        if kind is dict or kind is JSError:
            then = value.get("then") if kind is dict else value.props.get("then")
            if then is not None and is_callable(then):
                self.queue.append((ThenableJob(promise, value, then), None, False))
                return
        promise.state = FULFILLED
        promise.value = value
        reactions = promise.reactions
        if reactions is not None:
            promise.reactions = None
            queue = self.queue
            for reaction in reactions:
                queue.append((reaction, value, False))

    def reject_promise(self, promise: Promise, reason: Value) -> None:
        """Reject `promise` with `reason`."""
        promise.state = REJECTED
        promise.value = reason
        if not promise.handled:
            if len(self.rejected) < UNHANDLED_MAX:
                self.rejected.append(promise)
            else:
                self.rejected_uncounted += 1
        reactions = promise.reactions
        if reactions is not None:
            promise.reactions = None
            queue = self.queue
            for reaction in reactions:
                queue.append((reaction, reason, True))

    def to_promise(self, value: Value) -> Promise:
        """Return `value` itself when it is a promise, else a new one resolved with it (Promise.resolve)."""
        if value.__class__ is Promise:
            return value
        promise = Promise(self)
        self.resolve_promise(promise, value)
        return promise

    def then(self, promise: Promise, on_fulfilled: Value, on_rejected: Value) -> Promise:
        """Register callbacks (non-callables count as absent) and return the derived promise."""
        derived = Promise(self)
        promise.add_reaction(
            ThenReaction(
                on_fulfilled if is_callable(on_fulfilled) else UNDEFINED,
                on_rejected if is_callable(on_rejected) else UNDEFINED,
                derived,
            )
        )
        return derived

    def finally_(self, promise: Promise, on_finally: Value) -> Promise:
        """Register a `finally` callback and return the derived promise."""
        if not is_callable(on_finally):
            return self.then(promise, on_finally, on_finally)
        return self.then(promise, FinallyFunction(self, on_finally, False), FinallyFunction(self, on_finally, True))

    def take_unhandled(self) -> tuple[list[Value], int]:
        """Return the reasons of this turn's rejections that still have no handler, and how many were not kept."""
        if not self.rejected:
            return [], 0
        reasons = [promise.value for promise in self.rejected if not promise.handled]
        uncounted = self.rejected_uncounted
        self.rejected.clear()
        self.rejected_uncounted = 0
        return reasons, uncounted


def _aggregate_error(errors: list[Value]) -> Value:
    error = JSError("AggregateError", "All promises were rejected")
    error.props["errors"] = errors
    return error
