"""The engine: one activation of a workflow. Pure: program, snapshot, deliveries in; commands, snapshot or outcome out.

    activate(program, start | snapshot | live, deliveries, environment)  ->  Activation

A delivery settles one host operation and drains the job queue: one turn. Several deliveries are consecutive turns of
one activation, without a snapshot in between. When nothing is left to run, either the workflow's promise has settled
(then there is an outcome), or something is outstanding (then there is a snapshot), or the workflow waits for nothing
at all (then it fails with DeadlockError).

Signals are matched here, after every turn: the oldest message goes to the oldest wait of its name that anything can
still observe. A wait or timer that only settled combinators know is released: it takes no message, and leaves the
database with the next snapshot.

Uncatchable endings (limits, unsupported constructs, deadlock, the activation budget) become a failed outcome that keeps
the last snapshot. Nothing here reads a clock or a random number but through the environment, and nothing here waits.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final

import msgspec

from rhythm import payloads
from rhythm.errors import CompileError, InvalidInput
from rhythm.language import ir as flow_ir
from rhythm.language import snapshot as snapshots
from rhythm.language.boundary import error_from_payload, error_payload, from_json, from_plain, to_json
from rhythm.language.builtins.formats import inspect
from rhythm.language.builtins.host import (
    CancelChild,
    DropTimer,
    StartChild,
    StartTimer,
    cancel_all,
    finish_operation,
    pass_deadline,
    timeout_error,
)
from rhythm.language.calls import Callees, Calls, find_calls
from rhythm.language.codegen import Instance, Program, load
from rhythm.language.diagnostics import Diagnostic, Report, sort_diagnostics
from rhythm.language.lower import lower
from rhythm.language.parser import parse_into
from rhythm.language.promises import (
    PENDING,
    REJECTED,
    AdoptReaction,
    ElementReaction,
    Frame,
    HostOperation,
    Promise,
    Realm,
    ThenReaction,
    waiting_frame,
)
from rhythm.language.resolver import Resolution, resolve
from rhythm.language.shapes import Shape, find_shape
from rhythm.language.units import join_surrogates, to_units
from rhythm.language.values import (
    UNDEFINED,
    DeadlockError,
    FatalError,
    JSError,
    JSMap,
    JSSet,
    JSThrow,
    LimitError,
    Value,
    caught,
    set_current_realm,
    throw_type_error,
)
from rhythm.model import (
    PAYLOAD_BYTES_MAX,
    Delivery,
    NewChild,
    NewTimer,
    Standing,
    WakeGroup,
    WorkflowOutcome,
    number_ranges,
)

IR_BYTES_MAX: Final = 8 << 20  #: of a compiled program; a worker reads it while its other workflows wait
SURELY_SMALL: Final = 8 << 10  #: characters of a source that compiles to less, whatever is in it
PROGRAMS_CACHED: Final = 256  #: compiled definitions kept per process
DELIVERIES_AT_LEAST: Final = 1_000  #: taken by one activation however long they take, of those there are
SLICE_MS: Final = 250.0  #: for which it takes more, so that a wide fan-out is not decoded once for each thousand
LOG_LINES_MAX: Final = 1_000  #: of one activation; its first ones are kept, and it is said how many more there were
LOG_CHARACTERS_MAX: Final = 256 * 1024  #: of the lines of one activation
LOG_LENGTH_MAX: Final = 8 * 1024  #: characters of one line; the rest is cut
FATAL_MESSAGE_MAX: Final = 1 << 14  #: characters of the message of an uncatchable error
STANDING_ITEMS_MAX: Final = 200  #: operations that a suspended workflow lists as awaited


# Definitions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Definition:
    """A compiled workflow."""

    name: str
    filename: str  #: where the source was read
    source: str
    source_hash: str  #: hex SHA-256 of the source
    ir: dict[str, Any]
    ir_bytes: bytes
    hash: str  #: content hash of the IR: what executions are pinned to
    warnings: tuple[Diagnostic, ...]


def check_source(source: str, filename: str, callees: Callees | None = None) -> list[Diagnostic]:
    """Every diagnostic of a workflow's source in the order of the source.

    With ``callees`` the calls of tasks and children are compared with what they call, where the source can be read.
    """
    file, resolution, diagnostics = _check(source, filename)
    if len(source) > SURELY_SMALL and not any(diagnostic.severity == "error" for diagnostic in diagnostics):
        diagnostics += _size_problems(*_lowered(file, resolution, source, "workflow"), filename)
    if callees is None or any(diagnostic.code.startswith("F1") for diagnostic in diagnostics):
        return diagnostics
    return sort_diagnostics(diagnostics + find_calls(file, source, filename).compare(callees))


def read_calls(source: str, filename: str) -> Calls:
    """The calls of tasks and children in a workflow's source, to be compared with what they call."""
    return find_calls(_check(source, filename)[0], source, filename)


def read_shape(source: str, filename: str, tasks: Mapping[str, Any], outputs: Mapping[str, Any]) -> Shape:
    """What the source shows of a workflow's inputs and output, given schemas of tasks' inputs and outputs by name."""
    return find_shape(_check(source, filename)[0], tasks, outputs)


def compile_workflow(source: str, filename: str, name: str) -> Definition:
    """Compiles a workflow. Raises CompileError with all diagnostics when it has errors."""
    file, resolution, diagnostics = _check(source, filename)
    if any(diagnostic.severity == "error" for diagnostic in diagnostics):
        raise CompileError(diagnostics)
    program, data = _lowered(file, resolution, source, name)
    problems = _size_problems(program, data, filename)
    if problems:
        raise CompileError(diagnostics + problems)
    return Definition(
        name=name,
        filename=filename,
        source=source,
        source_hash=hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest(),
        ir=program,
        ir_bytes=data,
        hash=hashlib.sha256(data).hexdigest(),
        warnings=tuple(diagnostics),
    )


def _lowered(file: Any, resolution: Resolution, source: str, name: str) -> tuple[dict[str, Any], bytes]:
    program = lower(file, resolution, source, name)
    return program, flow_ir.to_bytes(program)


def _size_problems(program: dict[str, Any], data: bytes, filename: str) -> list[Diagnostic]:
    """What is too large only when it has been compiled: very many functions, or variables times awaits."""
    what = ""
    if len(data) > IR_BYTES_MAX:
        what = f"the compiled program takes {len(data) >> 20} MiB, over the limit of {IR_BYTES_MAX >> 20} MiB"
    elif len(program["functions"]) > flow_ir.FUNCTIONS_MAX:
        what = f"a flow file has at most {flow_ir.FUNCTIONS_MAX:,} functions"
    return [Diagnostic("error", "F111", what, "split it into child workflows", 0, 0, 1, 1, filename)] if what else []


def _check(source: str, filename: str) -> tuple[Any, Resolution, list[Diagnostic]]:
    report = Report(source, filename)
    file = parse_into(report)
    resolution = resolve(file, report)
    report.drop_echoes()
    return file, resolution, sort_diagnostics(report.diagnostics)


_programs: OrderedDict[str, Program] = OrderedDict()
_programs_lock = threading.Lock()


def load_program(ir_bytes: bytes, content_hash: str) -> Program:
    """The program of a stored definition, compiled once per process. Raises language.ir.IRError for a damaged one."""
    with _programs_lock:
        program = _programs.get(content_hash)
        if program is not None:
            _programs.move_to_end(content_hash)
            return program
    if hashlib.sha256(ir_bytes).hexdigest() != content_hash:
        raise flow_ir.IRError("the stored definition does not match its hash")
    program = load(flow_ir.from_bytes(ir_bytes), content_hash, validated=True)
    with _programs_lock:
        _programs[content_hash] = program
        while len(_programs) > PROGRAMS_CACHED:
            _programs.popitem(last=False)
    return program


# Activations --------------------------------------------------------------------------------------


class StartInfo(msgspec.Struct, frozen=True, gc=False):
    """What a new execution begins with."""

    execution_id: str
    name: str
    version: str  #: hash of the definition
    started_at_ms: float
    inputs: bytes  #: JSON
    parent_id: str | None = None
    tags: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """The outside world, as far as a workflow can see it."""

    now_ms: Callable[[], float]
    random: Callable[[], float]
    new_id: Callable[[], str]  #: ids of started children


@dataclass(frozen=True, slots=True)
class Limits:
    """What one execution may use (see docs/language.md)."""

    #: Larger snapshots fail the execution. Default 16 MiB; more than 64 MiB is never written.
    snapshot_bytes_max: int = 16 << 20
    snapshot_bytes_warn: int = 1 << 20  #: Larger ones are logged. Default 1 MiB.
    #: An activation is ended when the process has grown by more while it ran. Default 512 MiB.
    memory_bytes_max: int = 512 << 20
    payload_bytes_max: int = PAYLOAD_BYTES_MAX  #: Largest inputs of a task or child, and output. Default 1 MiB.


class Live(msgspec.Struct):
    """A decoded heap, for the next activation of the same version on this process."""

    realm: Realm
    instance: Instance
    root: Promise
    size: int  #: bytes of its snapshot before compression; 0 when none was written


class Activation(msgspec.Struct):
    """What an activation asks for. Either ``snapshot`` or ``outcome`` is set."""

    snapshot: bytes | None = None
    outcome: WorkflowOutcome | None = None
    seen_through: int = 0  #: highest delivery number taken in
    children: list[NewChild] = []
    timers: list[NewTimer] = []
    dropped_timers: list[int] = []
    cancels: list[uuid.UUID] = []
    wake_groups: list[WakeGroup] = []
    outstanding: int = 0  #: operations it waits for
    unread_signals: int = 0
    standing: Standing = Standing()
    #: (level, text) of console calls and warnings; levels are those of model.LOG_LEVELS, texts may hold lone surrogates
    logs: list[tuple[str, str]] = []
    live: Live | None = None  #: for the cache, once the commit is confirmed; None with an outcome


def activate(
    program: Program,
    *,
    environment: Environment,
    start: StartInfo | None = None,
    snapshot: bytes | None = None,
    live: Live | None = None,
    deliveries: Sequence[Delivery] = (),
    limits: Limits | None = None,
    keep_bytes: bool = True,
) -> Activation:
    """Runs a workflow from its start, a snapshot or a live heap, through the deliveries, to its next suspension or end.

    Beyond the first DELIVERIES_AT_LEAST it takes deliveries for SLICE_MS only; ``seen_through`` tells how many.
    Exactly one of ``start``, ``snapshot`` and ``live`` is given. ``keep_bytes=False`` leaves out the snapshot's bytes.
    Raises SnapshotError when the snapshot cannot be read; every failure of the workflow itself is an outcome.
    """
    run = _Run(program, environment, limits or Limits())
    try:
        if start is not None:
            run.open(start)
        elif live is not None:
            run.adopt(live)
        else:
            assert snapshot is not None, "an activation starts somewhere"
            run.restore(snapshot)
        return run.finish(start, deliveries, keep_bytes)
    finally:
        set_current_realm(None)


class _Run:
    """One activation under way."""

    realm: Realm
    instance: Instance
    root: Promise

    def __init__(self, program: Program, environment: Environment, limits: Limits) -> None:
        self.program = program
        self.environment = environment
        self.limits = limits
        self.snapshot_bytes_max = min(limits.snapshot_bytes_max, snapshots.BYTES_MAX)
        self.result = Activation()
        self.log_left = LOG_CHARACTERS_MAX
        self.logs_left_out = 0

    def log(self, level: str, text: str) -> None:
        text = join_surrogates(text)
        if len(text) > LOG_LENGTH_MAX:
            text = f"{text[:LOG_LENGTH_MAX]}… ({len(text) - LOG_LENGTH_MAX:,} more characters)"
        if self.logs_left_out or len(self.result.logs) >= LOG_LINES_MAX or len(text) > self.log_left:
            self.logs_left_out += 1
        else:
            self.log_left -= len(text)
            self.result.logs.append((level, text))

    def finished_logs(self) -> list[tuple[str, str]]:
        logs = self.result.logs
        if self.logs_left_out:
            logs.append(("warn", f"{self.logs_left_out:,} further lines of this step were left out of the log"))
        return logs

    def open(self, start: StartInfo) -> None:
        self.realm = self.new_realm()
        self.realm.execution_id = start.execution_id
        self.instance = self.program.instantiate(self.realm)
        self.realm.payload_bytes_max = self.limits.payload_bytes_max
        set_current_realm(self.realm)

    def new_realm(self) -> Realm:
        world = self.environment
        return Realm(now_ms=world.now_ms, random=world.random, new_id=world.new_id, log=self.log)

    def adopt(self, live: Live) -> None:
        self.realm, self.instance, self.root = live.realm, live.instance, live.root
        world = self.environment
        self.realm.now_ms, self.realm.random, self.realm.new_id = world.now_ms, world.random, world.new_id
        self.realm.log = self.log
        self.realm.payload_bytes_max = self.limits.payload_bytes_max
        set_current_realm(self.realm)

    def restore(self, data: bytes) -> None:
        self.realm = self.new_realm()
        self.instance, self.root = snapshots.decode(self.program, data, self.realm)
        self.realm.payload_bytes_max = self.limits.payload_bytes_max
        set_current_realm(self.realm)

    # --- turns ---

    def finish(self, start: StartInfo | None, deliveries: Sequence[Delivery], keep_bytes: bool) -> Activation:
        try:
            if start is not None:
                self.begin(start)
            until = self.environment.now_ms() + SLICE_MS
            for count, delivery in enumerate(deliveries):
                if self.root.state != PENDING:
                    break
                if count >= DELIVERIES_AT_LEAST and self.environment.now_ms() > until:
                    break  # the rest is left unread
                self.deliver(delivery)
                self.result.seen_through = delivery.number
                self.settle_signals()
            if deliveries and self.root.state != PENDING:
                self.result.seen_through = deliveries[-1].number
            return self.conclude(keep_bytes)
        except FatalError as error:
            return self.fatal(error, deliveries)
        except MemoryError as error:
            refused = LimitError("the workflow asked for more memory than this machine gives")
            return self.fatal(refused.with_traceback(error.__traceback__), deliveries)

    def begin(self, start: StartInfo) -> None:
        ctx: dict[str, Value] = {
            "executionId": start.execution_id,
            "name": start.name,
            "version": start.version,
            "startedAt": float(int(start.started_at_ms)),  # whole, as Date.now() is
            "parentId": start.parent_id,
            "tags": None if start.tags is None else from_plain(start.tags, "tags"),
            "cancelled": False,
        }
        self.realm.ctx = ctx
        try:
            inputs = from_json(start.inputs, "inputs")
            self.realm.is_open = False
            workflow = self.instance.run_module()
            self.realm.is_open = True
            self.root = workflow(ctx, inputs)
        except InvalidInput as error:
            self.root = Promise(self.realm)
            self.realm.reject_promise(self.root, JSError("TypeError", str(error)))
        except (JSThrow, RecursionError) as error:
            self.root = Promise(self.realm)
            self.realm.reject_promise(self.root, caught(error))
        self.realm.is_open = True
        self.root.handled = True
        self.turn()
        self.settle_signals()

    def turn(self) -> None:
        self.realm.drain()
        reasons, more = self.realm.take_unhandled()
        for reason in reasons:
            if not (self.root.state == REJECTED and reason is self.root.value):
                self.log("warn", f"Unhandled rejection: {inspect(reason)}")
        if more:
            self.log("warn", f"{more:,} further unhandled rejections")

    def deliver(self, delivery: Delivery) -> None:
        realm, kind = self.realm, delivery.kind
        if kind == "signal":
            assert delivery.name is not None, "signals have names"
            realm.unread.append((to_units(delivery.name), delivery.payload or b"null"))
            return
        if kind == "cancel":
            cancel_all(realm)
            self.turn()
            return
        operation = realm.operations.get(delivery.operation or 0)
        if operation is None:
            return  # its promise was settled otherwise: cancelled, abandoned or released
        if kind == "timer" and operation.kind in ("task", "child"):
            pass_deadline(realm, operation)
        elif kind == "timer":
            finish_operation(realm, operation, timer_fired=True)
            if operation.kind == "signal":
                realm.reject_promise(operation.promise, timeout_error(operation))
            else:
                realm.resolve_promise(operation.promise, UNDEFINED)
        else:
            finish_operation(realm, operation)
            self.settle(operation, kind, delivery.payload or b"null")
        self.turn()

    def settle(self, operation: HostOperation, kind: str, payload: bytes) -> None:
        realm = self.realm
        try:
            if kind == "completed":
                what = f"output of {operation.kind} {operation.name}"
                realm.resolve_promise(operation.promise, from_json(payload, what))
                return
            data = payloads.decode(payload)
            if operation.on_cancel == "deadline" and isinstance(data, dict) and data.get("type") == "cancelled":
                attempts = data.get("attempts")
                props = {"attempts": float(attempts)} if isinstance(attempts, int) else {}
                realm.reject_promise(operation.promise, timeout_error(operation, **props))
                return
            reason = error_from_payload(data if isinstance(data, dict) else {"thrown": data})
            if reason.__class__ is JSError:
                reason.props["task" if operation.kind == "task" else "workflow"] = operation.name
                reason.props["executionId"] = operation.child_id
                stack = [str(reason.props.get("stack", "")), *self.instance.waiting(operation.promise)]
                reason.props["stack"] = "\n".join(stack)
            realm.reject_promise(operation.promise, reason)
        except (InvalidInput, ValueError) as error:
            realm.reject_promise(operation.promise, JSError("TypeError", str(error)))

    def settle_signals(self) -> None:
        """Gives unread messages to waits, each in a turn of its own."""
        realm = self.realm
        while realm.unread and self.root.state == PENDING:
            names = {name for name, _ in realm.unread}
            waits = [o for o in realm.operations.values() if o.kind == "signal" and o.name in names]
            chosen = waits[0] if waits and self.is_watched(waits[0].promise) else None
            if chosen is None and waits:
                held = self.held_promises()
                chosen = next((wait for wait in waits if self.is_watched(wait.promise, held)), None)
            if chosen is None:
                return
            index = next(i for i, (name, _) in enumerate(realm.unread) if name == chosen.name)
            _, payload = realm.unread.pop(index)
            finish_operation(realm, chosen)
            try:
                realm.resolve_promise(chosen.promise, from_json(payload, f"payload of signal {chosen.name}"))
            except InvalidInput as error:
                realm.reject_promise(chosen.promise, JSError("TypeError", str(error)))
            self.turn()

    # --- released waits ---

    def is_watched(self, promise: Promise, held: Set[int] = frozenset()) -> bool:
        """Whether settling a promise would make anything happen: run code, or settle a promise that is in ``held``.

        What settles another promise (an unfinished combinator, a promise that follows) counts as far as that one does.
        """
        rest, seen = [promise], set()
        while rest:
            item = rest.pop()
            if item is self.root or id(item) in held:
                return True
            if id(item) in seen:
                continue
            seen.add(id(item))
            for reaction in item.reactions or ():
                kind = reaction.__class__
                if kind is AdoptReaction:
                    rest.append(reaction.promise)
                elif kind is not ElementReaction:
                    return True
                elif not reaction.combinator.done:
                    rest.append(reaction.combinator.promise)
        return False

    def held_promises(self) -> set[int]:
        """Ids of the promises that code can still get hold of: in slots, cells and data of what may yet run."""
        found: set[int] = set()
        seen: set[int] = set()
        rest: list[Any] = [self.realm.ctx]
        for operation in self.realm.operations.values():
            rest.extend(operation.promise.reactions or ())
        while rest:
            item = rest.pop()
            kind = item.__class__
            if kind in (str, float, bool) or item is None or id(item) in seen:
                continue
            seen.add(id(item))
            if kind is Promise:
                found.add(id(item))
                rest.append(item.value)
                rest.extend(item.reactions or ())
            elif kind is ElementReaction:
                combinator = item.combinator
                if not combinator.done and id(combinator) not in seen:
                    seen.add(id(combinator))
                    rest.extend(combinator.promise.reactions or ())
                    rest.append(combinator.values)
            elif kind is AdoptReaction:
                rest.extend(item.promise.reactions or ())
            elif kind is ThenReaction:
                rest.append(item.on_fulfilled)
                rest.append(item.on_rejected)
                rest.extend(item.derived.reactions or ())
            elif kind is dict:
                rest.extend(item.values())
            elif kind is list:
                rest.extend(item)
            elif kind is Frame:
                rest.extend(item.slots)
                rest.extend(item.cells)
                rest.extend(item.promise.reactions or ())
            elif kind is FunctionType:
                rest.extend(self.instance.cells_of(item))
            elif kind is JSMap or kind is JSSet:
                rest.extend(part for entry in item.entries() for part in entry)
            elif kind is JSError:
                rest.extend(item.props.values())
            else:
                rest.extend(
                    getattr(item, name) for name in getattr(kind, "__slots__", ()) if name not in ("realm", "call")
                )
        return found

    def release(self) -> None:
        """Drops timers and signal waits that nothing can observe any more."""
        operations = [o for o in self.realm.operations.values() if o.kind in ("timer", "signal")]
        unwatched = [o for o in operations if not self.is_watched(o.promise)]
        if not unwatched:
            return
        held = self.held_promises()
        for operation in unwatched:
            if not self.is_watched(operation.promise, held):
                finish_operation(self.realm, operation)

    # --- the end of the activation ---

    def conclude(self, keep_bytes: bool) -> Activation:
        result, realm, root = self.result, self.realm, self.root
        if root.state == PENDING:
            self.release()
            if not realm.operations:
                raise DeadlockError("the workflow waits for something that can never happen")
        self.take_commands()
        result.unread_signals = len(realm.unread)
        if root.state != PENDING:
            result.outcome = self.outcome()
            result.dropped_timers = []
            result.logs = self.finished_logs()
            return result
        if keep_bytes:
            result.snapshot = self.encode()
        result.logs = self.finished_logs()
        result.outstanding = len(realm.operations)
        result.standing = self.standing()
        result.wake_groups = self.wake_groups()
        result.live = Live(realm, self.instance, root, 0 if result.snapshot is None else len(result.snapshot))
        return result

    def encode(self) -> bytes:
        data = snapshots.encode(self.realm, self.root, self.snapshot_bytes_max)
        limits = self.limits
        if len(data) > self.snapshot_bytes_max:
            raise LimitError(
                f"the snapshot has {len(data):,} bytes, over the limit of {self.snapshot_bytes_max:,}; "
                "keep large data outside and pass references"
            )
        if len(data) > limits.snapshot_bytes_warn:
            self.log("warn", f"the snapshot has {len(data):,} bytes; keep large data outside and pass references")
        return data

    def take_commands(self) -> None:
        result = self.result
        for command in self.realm.commands.values():
            if isinstance(command, StartChild):
                result.children.append(
                    NewChild(
                        command.operation,
                        uuid.UUID(command.id),
                        command.kind,
                        command.name,
                        command.inputs,
                        command.options,
                    )
                )
            elif isinstance(command, StartTimer):
                result.timers.append(NewTimer(command.operation, command.delay_ms, command.due_at_ms))
            elif isinstance(command, DropTimer):
                result.dropped_timers.append(command.operation)
            else:
                assert isinstance(command, CancelChild), "there are four kinds of command"
                result.cancels.append(uuid.UUID(command.id))
        self.realm.commands.clear()
        self.realm.command_bytes = 0

    def outcome(self) -> WorkflowOutcome:
        root = self.root
        if root.state == REJECTED:
            return self.failed(root.value)
        what = f"output of workflow {self.program.name}"
        try:
            data = to_json(root.value, what)
            if len(data) > self.limits.payload_bytes_max:
                throw_type_error(
                    f"{what} takes {len(data):,} bytes, over the limit of {self.limits.payload_bytes_max:,} "
                    "(payload_bytes_max); store it elsewhere and return where it is"
                )
            return WorkflowOutcome("completed", data)
        except (JSThrow, RecursionError) as error:
            return self.failed(caught(error))

    def failed(self, reason: Value) -> WorkflowOutcome:
        payload = error_payload(reason)
        cancelled = self.realm.cancelled and payload.get("name") == "CancelledError"
        if cancelled:
            payload["type"] = "cancelled"
        data = payloads.encode(payload, "error", bytes_max=64 << 20)
        return WorkflowOutcome("cancelled" if cancelled else "failed", data)

    def fatal(self, error: FatalError, deliveries: Sequence[Delivery]) -> Activation:
        """An uncatchable ending. Nothing this activation asked for happens; its last snapshot stays."""
        error.places = error.places or self.instance.stack(error.__traceback__)
        activation = fatal_activation(self.program.name, error, deliveries)
        activation.logs = self.finished_logs()
        activation.unread_signals = len(self.realm.unread)
        return activation

    # --- where it stands ---

    def standing(self) -> Standing:
        awaiting: list[dict[str, Any]] = []
        first: tuple[str, int] | None = None
        more: list[int] = []
        left_out: set[str] = set()
        for operation in self.realm.operations.values():
            if len(awaiting) == STANDING_ITEMS_MAX:
                left_out.add(operation.kind)
                if self.stops(operation):
                    more.append(operation.number)
                continue
            entry: dict[str, Any] = {
                "operation": operation.number,
                "kind": operation.kind,
                "name": operation.name,
                "since": operation.since_ms,
            }
            frame = waiting_frame(operation.promise)
            if frame is not None:
                function, line, column = frame_position(self.program, frame)
                entry["line"], entry["column"] = line, column
                first = first or (function, line)
            if operation.due_at_ms is not None:
                entry["due"] = operation.due_at_ms
            if self.stops(operation):
                entry["stops"] = True
            awaiting.append(entry)
        if left_out:  # the database asks whether a signal is among them
            awaiting.append({"kind": "more", "stops": number_ranges(more), "kinds": sorted(left_out)})
        data = payloads.to_text(awaiting).encode("ascii")
        return Standing(first[1] if first else None, (first[0] or None) if first else None, data)

    def stops(self, operation: HostOperation) -> bool:
        """Whether a forced cancel asks what this has started to stop: it may be asked, and somebody waits for it."""
        return (
            operation.kind in ("task", "child")
            and operation.can_cancel
            and operation.on_cancel != "abandon"
            and bool(operation.promise.reactions)
            and self.is_watched(operation.promise)
        )

    def wake_groups(self) -> list[WakeGroup]:
        """Outstanding tasks and children whose only observer is an element of an unfinished combinator."""
        groups: dict[int, tuple[str, list[int]]] = {}
        for operation in self.realm.operations.values():
            reactions = operation.promise.reactions
            if operation.kind not in ("task", "child") or reactions is None or len(reactions) != 1:
                continue
            reaction = reactions[0]
            if reaction.__class__ is not ElementReaction or reaction.combinator.done:
                continue
            mode = _WAKE_MODES.get(reaction.combinator.kind)
            if mode is not None:
                groups.setdefault(id(reaction.combinator), (mode, []))[1].append(operation.number)
        return [WakeGroup(mode, numbers) for mode, numbers in groups.values() if len(numbers) > 1]


def fatal_activation(name: str, error: FatalError, deliveries: Sequence[Delivery]) -> Activation:
    """The activation of a workflow that ended by an uncatchable error."""
    kind = "LimitError" if isinstance(error, LimitError) else type(error).__name__
    message = error.message[:FATAL_MESSAGE_MAX]
    payload: dict[str, Any] = {"name": kind, "message": message, "type": "failed"}
    if error.places:
        payload["stack"] = f"{kind}: {message}\n{error.places}"
    data = payloads.encode(payload, "error", bytes_max=64 << 20)
    seen = deliveries[-1].number if deliveries else 0
    return Activation(outcome=WorkflowOutcome("failed", data, keep_snapshot=True), seen_through=seen)


_WAKE_MODES: Final = {"all": "on_rejection", "any": "on_fulfilment", "allSettled": "last"}


def frame_position(program: Program, frame: Frame) -> tuple[str, int, int]:
    """(function, line, column) of the await a frame is parked at."""
    function = program.ir["functions"][frame.function_id]
    line, column = function["awaits"][frame.await_id]["pos"]
    return function["name"], line, column


def plain_text(text: str) -> str:
    """A text of the language as people read it: pairs of surrogates joined, lone ones replaced."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
