"""Small records and names that several layers share; nothing that has a better home.

Ids are UUIDs of version 7, minted by whoever makes the request, so that a start or a signal whose
answer was lost can be repeated unchanged. They order nothing.
"""

from __future__ import annotations

import os
import random
import struct
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

PAYLOAD_BYTES_MAX = 1024 * 1024  #: default limit of one payload, bytes of JSON
SNAPSHOT_BYTES_MAX = 64 << 20  #: largest snapshot that is read, bytes before compression
PRIORITY_MIN, PRIORITY_MAX = -100, 100
KEY_WINDOW_SECONDS = 30 * 86_400.0  #: default of how long an idempotency key is kept at least
NAME_LENGTH_MAX = 200  #: characters of a task's, workflow's, queue's or signal's name

STATUSES = ("pending", "running", "suspended", "completed", "failed", "cancelled")
FINISHED = frozenset({"completed", "failed", "cancelled"})
KINDS = ("task", "workflow")
LOG_LEVELS = ("debug", "info", "warn", "error")  #: of the lines of workflows; `console.log` is "info"

_lock = threading.Lock()
_last_stamp = 0
_random = random.Random(os.urandom(32))


def _begin_anew() -> None:
    """In a forked child: its ids must not be its parent's, and nobody holds the lock."""
    global _lock, _random
    _lock = threading.Lock()
    _random = random.Random(os.urandom(32))


os.register_at_fork(after_in_child=_begin_anew)
_set_int = vars(uuid.UUID)["int"].__set__  # slots
_set_is_safe = vars(uuid.UUID)["is_safe"].__set__


def new_id() -> uuid.UUID:
    """A fresh UUID of version 7 (RFC 9562): 48 bits of milliseconds, 12 bits that keep order, 62 random bits.

    Ids made by one process are strictly increasing, which keeps database pages warm. The random bits come from a
    generator of our own, seeded by the operating system and anew in a forked child: asking the system each time gives
    the interpreter lock away (a tenth of a workflow's Python, 2026-11).
    """
    global _last_stamp
    stamp = time.time_ns() * 4096 // 1_000_000  # 4096 steps in each millisecond
    with _lock:
        if stamp <= _last_stamp:
            stamp = _last_stamp + 1
        _last_stamp = stamp
        random_bits = _random.getrandbits(62)
    id_ = object.__new__(uuid.UUID)  # its own constructor checks what cannot be wrong here: 0.6 against 0.3 µs
    _set_int(id_, (stamp >> 12 << 80) | (0x7 << 76) | ((stamp & 0xFFF) << 64) | (0x2 << 62) | random_bits)
    _set_is_safe(id_, uuid.SafeUUID.unknown)
    return id_


def new_ids(count: int) -> list[uuid.UUID]:
    """So many at once, in order: 0.7 instead of 1.5 µs each (2026-11)."""
    global _last_stamp
    now = time.time_ns() * 4096 // 1_000_000
    with _lock:
        first = max(now, _last_stamp + 1)
        _last_stamp = first + max(count, 1) - 1
        random_bits = struct.unpack(f"={count}Q", _random.randbytes(8 * count))
    made = []
    make, unknown, mask, fixed = object.__new__, uuid.SafeUUID.unknown, (1 << 62) - 1, (0x7 << 76) | (0x2 << 62)
    for stamp, bits in enumerate(random_bits, first):
        id_ = make(uuid.UUID)
        _set_int(id_, (stamp >> 12 << 80) | ((stamp & 0xFFF) << 64) | fixed | (bits & mask))
        _set_is_safe(id_, unknown)
        made.append(id_)
    return made


@dataclass(frozen=True, slots=True)
class ExecutionInfo:
    """What is known of one execution at one moment."""

    id: uuid.UUID
    kind: str  #: "task" or "workflow"
    name: str
    status: str  #: one of STATUSES
    reason: str | None  #: why it is pending ("ready", "later", "retry", "unknown task", …), else None
    queue: str
    priority: int
    key: str | None
    tags: dict[str, Any] | None
    inputs: bytes  #: JSON
    output: bytes | None  #: JSON when completed
    error: bytes | None  #: JSON when failed or cancelled
    attempts: int
    lost: int
    parent_id: uuid.UUID | None
    root_id: uuid.UUID
    definition_hash: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    available_at: datetime | None  #: for a pending execution that waits for its time
    operation: int | None = None  #: which operation of its parent it is
    last_failure: bytes | None = None  #: JSON: the error of the last attempt that was followed by another
    last_failure_at: datetime | None = None
    limit_key: str | None = None  #: what it counts for in the limits of keys of its queue
    progress: bytes | None = None  #: JSON: how far it is, as a task has said last
    progress_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the log of an execution."""

    number: int  #: from 1, in the order in which the workflow wrote them
    level: str  #: one of LOG_LEVELS
    at: datetime  #: when the step that wrote it was committed, by the database's clock
    text: str  #: as Node's console writes it; may hold control characters and lone surrogates


# --- store records -------------------------------------------------------------------------------
#
# What goes in and out of the store. Payloads are plain JSON bytes here; the codec byte in front of them
# exists only in the database. The records that are made for every single task are msgspec Structs,
# not dataclasses: a frozen dataclass of 20 fields takes 2.4 µs to make, a Struct 0.3 (2026-11).

CLAIM_COUNT_MAX = 500  #: executions in one claim
START_COUNT_MAX = 1000  #: executions in one ``start`` call


class NewSignal(msgspec.Struct, frozen=True, gc=False):
    """A signal that comes with a start."""

    name: str
    payload: bytes  #: JSON
    send_id: uuid.UUID


class NewExecution(msgspec.Struct, frozen=True, gc=False):
    """One execution to start. What is None comes from the registration of its name, else from the defaults."""

    id: uuid.UUID
    name: str
    inputs: bytes = b"{}"
    kind: str | None = None  #: "task", "workflow", or None: whichever is known by that name.
    queue: str | None = None  #: Default "default".
    priority: int | None = None  #: Default 0.
    delay_seconds: float | None = None  #: Counted from the commit, by the database's clock. Default none.
    available_at: datetime | None = None  #: Or the earliest moment itself.
    key: str | None = None
    key_policy: str = "return"  #: "return", "reject", "replace", "after_failure".
    retries: int | None = None  #: Default 0.
    retry: Mapping[str, Any] | None = None  #: ``Retry.as_dict()``.
    timeout_seconds: float | None = None  #: Of one attempt. Default: what the registration says, else none.
    tags: Mapping[str, Any] | None = None
    definition_hash: str | None = None  #: Workflows: pin this definition. Default: the current one.
    limit_key: str | None = None  #: What it counts for in the limits of keys of its queue. Default none.
    signal: NewSignal | None = None  #: For whoever stands for this start; a key's policy is then "return".


@dataclass(frozen=True, slots=True)
class StartResult:
    """What became of one start."""

    id: uuid.UUID  #: Of the execution now standing for it: its own, or the one that holds the key.
    #: "started", "existing" (same id or key), "replaced" (started in place of a pending one), "refused".
    status: str
    code: str | None = None  #: refused: "key_conflict" (key in use with other inputs) or "key_taken" (policy "reject")


@dataclass(frozen=True, slots=True)
class NewDefinition:
    """A compiled workflow to publish."""

    name: str
    hash: str  #: of the IR
    ir: bytes
    source: str
    source_hash: str


@dataclass(frozen=True, slots=True)
class DefinitionInfo:
    """A published definition."""

    id: int
    name: str
    hash: str
    ir: bytes
    source: str
    source_hash: str
    published_at: datetime
    current: bool  #: whether new executions of this name use it


@dataclass(frozen=True, slots=True)
class TaskRegistration:
    """What a worker says about one task it can run."""

    name: str
    queue: str = "default"
    retries: int = 0
    retry: Mapping[str, Any] | None = None  #: ``Retry.as_dict()``; None: the default policy.
    timeout_seconds: float | None = None
    priority: int = 0
    input_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class WorkerRegistration:
    """One incarnation of a worker, as it introduces itself."""

    incarnation: uuid.UUID
    host: str
    pid: int
    heartbeat_timeout_seconds: float = 30.0
    queues: Sequence[str] = ("default",)  #: the queues it claims from
    tasks: Sequence[TaskRegistration] = ()
    workflows: bool = True  #: whether it runs workflows (then all of them, in every version)
    version: str = ""  #: release of Rhythm


@dataclass(frozen=True, slots=True)
class RegisterResult:
    """The small integers that stand for queues and task names in claims."""

    queues: Mapping[str, int]
    names: Mapping[str, int]
    returned: int = 0  #: executions that were parked as unknown and are claimable again
    conflicts: Sequence[str] = ()  #: tasks that another live worker registered differently
    plain_only: bool = False  #: a live worker of an earlier release reads snapshots in their plain form only


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """Something on its way into a workflow. Deliveries settle in the order of their numbers."""

    number: int
    kind: str  #: "completed", "failed", "timer", "signal" or "cancel"
    operation: int | None = None  #: of outcomes and timers
    name: str | None = None  #: of signals
    payload: bytes | None = None  #: JSON: output, error, or the signal's payload


class Parent(msgspec.Struct, frozen=True, gc=False):
    """Continuation in place: a suspended parent that waits for nothing but this one task.

    Not claimed. Whoever holds the task may send a ``Continuation`` with the task's outcome in the same
    exchange; it counts only if the parent still stands at this version and nothing else has been delivered.
    """

    id: uuid.UUID
    name: str
    definition_id: int
    version: int
    next_number: int  #: the number the task's outcome gets as a delivery
    snapshot: bytes  #: as it is stored (see store.codec)
    tags: Mapping[str, Any] | None = None


class Claim(msgspec.Struct, frozen=True, gc=False):
    """The right to run one execution, until its outcome is reported under the token."""

    token: int  #: changes when the batch it belongs to is split (``ExchangeResult.retokened``)
    id: uuid.UUID
    kind: str  #: "task" or "workflow"
    name: str
    inputs: bytes
    attempt: int  #: counts claims, from 1
    lost: int = 0  #: claims that ended without a report; above 0 it was claimed alone
    queue: str = "default"
    timeout_seconds: float | None = None
    retries: int = 0
    retry: Mapping[str, Any] | None = None
    parent_id: uuid.UUID | None = None
    operation: int | None = None  #: which operation of the parent it is
    key: str | None = None
    tags: Mapping[str, Any] | None = None
    created_at_ms: float = 0.0  #: database time
    parent: Parent | None = None  #: tasks: continuation in place is possible
    definition_id: int | None = None  #: workflows, as all below
    version: int = 0  #: 0: it has not run yet (then ``snapshot`` is None and ``inputs`` matter)
    snapshot: bytes | None = None  #: as it is stored (see store.codec)
    deliveries: tuple[Delivery, ...] = ()


class TaskOutcome(msgspec.Struct, frozen=True, gc=False):
    """How one attempt at a task ended."""

    token: int
    id: uuid.UUID
    status: str  #: "completed", "failed" or "cancelled"
    payload: bytes  #: JSON: output or error
    retryable: bool = True  #: failed only: whether another attempt may help
    retry_after_seconds: float | None = None  #: failed only: instead of the policy's backoff


class NewChild(msgspec.Struct, frozen=True, gc=False):
    """A task or workflow that an activation starts."""

    operation: int
    id: uuid.UUID
    kind: str
    name: str
    inputs: bytes
    #: Only what the call set (the keys of ``language.builtins.host.StartChild.options``). Stored are key, queue,
    #: priority, retries, retry, timeout_seconds, delay_seconds and limit_key; the others are the engine's business.
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)


class NewTimer(msgspec.Struct, frozen=True, gc=False):
    """A timer that an activation arms. One of the two times is set."""

    operation: int
    delay_ms: float | None = None  #: counted from the commit
    due_at_ms: float | None = None  #: milliseconds since the epoch, by the database's clock


def number_ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers of operations as ranges, each with its first number and the one after its last."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        first = found.pop()[0] if found and found[-1][1] == number else number
        found.append((first, number + 1))
    return found


class WakeGroup(msgspec.Struct, frozen=True, gc=False):
    """Outstanding operations that are watched by one combinator only."""

    mode: str  #: "on_rejection", "on_fulfilment" or "last"
    operations: Sequence[int]  #: those still outstanding at the snapshot


class Standing(msgspec.Struct, frozen=True, gc=False):
    """Where a suspended workflow stands, for people."""

    line: int | None = None
    function: str | None = None
    #: JSON list of {"operation", "kind", "name", "line", "column", "since", "due"}; "stops" marks tasks and children
    #: that a forced cancel asks to stop. If there are too many, a last entry of kind "more" has the "kinds" of the
    #: others, and as "stops" the ranges of those marked so.
    awaiting: bytes = b"[]"


class WorkflowOutcome(msgspec.Struct, frozen=True, gc=False):
    """How a workflow ended."""

    status: str  #: "completed", "failed" or "cancelled"
    payload: bytes
    keep_snapshot: bool = False  #: an uncatchable ending: the last snapshot and what it has not read stay


class WorkflowCommit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One activation's result. Either a snapshot or an outcome is set."""

    token: int
    id: uuid.UUID
    version: int  #: the claim's (or parent's) version; the commit makes the next one
    seen_through: int  #: highest delivery number it has taken in; 0: none
    snapshot: bytes | None = None  #: as it is to be stored (see store.codec)
    outcome: WorkflowOutcome | None = None
    standing: Standing = Standing()
    outstanding: int = 0  #: operations the snapshot waits for, of any kind; 1 allows continuation in place
    unread_signals: int = 0  #: signals the snapshot holds unread, or that were unread at the end
    wake_groups: Sequence[WakeGroup] = ()
    children: Sequence[NewChild] = ()
    timers: Sequence[NewTimer] = ()
    dropped_timers: Sequence[int] = ()  #: operations
    cancels: Sequence[uuid.UUID] = ()  #: children to cancel
    logs: Sequence[tuple[str, str]] = ()  #: (level, text) of the lines it has written


class Continuation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The next step of a parent, sent with the outcome of the task it waited for (``Claim.parent``).

    ``commit.id``, ``commit.version`` are the parent's; its ``seen_through`` is ``Parent.next_number``; its
    token is ignored. The task's own outcome must be in the same exchange and final ("completed", "cancelled", or
    "failed" with ``retryable`` false); it counts whether or not the continuation does.
    """

    child_id: uuid.UUID
    commit: WorkflowCommit


class ExchangeRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything a worker has to say, and what it would take."""

    incarnation: uuid.UUID
    epoch: int = 0  #: how often it has asked what it holds; exchanges of an earlier epoch are given up
    task_outcomes: Sequence[TaskOutcome] = ()
    workflow_commits: Sequence[WorkflowCommit] = ()
    continuations: Sequence[Continuation] = ()
    hand_backs: Sequence[tuple[int, uuid.UUID]] = ()  #: (token, id): not run, uncharged
    queues: Sequence[int] = ()  #: ids from RegisterResult, in the order to look at them
    names: Sequence[int] = ()  #: ids of the tasks it would take
    singles: Sequence[int] = ()  #: of ``names``, those claimed singly
    #: of ``names`` in their order, group by group: how many names, and how many tasks of them to claim at most (all
    #: together ≤ CLAIM_COUNT_MAX)
    task_limits: Sequence[tuple[int, int]] = ()
    #: of each of these groups, how many would begin at once: no more are claimed from queues with limits. None: all.
    task_free: Sequence[int] | None = None
    workflow_limit: int = 0  #: workflows to claim at most (≤ CLAIM_COUNT_MAX)
    alone: bool = False  #: it holds nothing and has no other exchange under way: may get a lone suspect
    idle: bool = False  #: it will sleep if nothing is claimed: register it for notification
    parents: bool = False  #: tasks bring along the parents that may be continued in place (``Claim.parent``)


class ExchangeResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What became of what was said, and what was claimed."""

    claims: list[Claim]
    refused: frozenset[uuid.UUID]  #: fenced, or finished before: drop what you have of them
    continued: frozenset[uuid.UUID]  #: parents whose continuation counted; the others were only woken
    retokened: dict[uuid.UUID, int]  #: unfinished members of a batch that was split: their new tokens
    suspects_waiting: bool  #: an execution lost before waits for a worker that is ``alone``
    #: It was just registered as idle, or its own reports made something claimable that was not claimed: exchange once
    #: more before sleeping.
    check_again: bool
    #: Until the rate of a queue lets something pass that this worker could run; None: nothing waits for that.
    next_pass_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class HeartbeatResult:
    """The answer to a heartbeat."""

    cancels: frozenset[uuid.UUID]  #: executions it holds that are to be cancelled


@dataclass(frozen=True, slots=True)
class MaintainResult:
    """What maintenance did."""

    next_due_seconds: float | None  #: until the next delayed execution or timer; None: none is waiting
    moved: int  #: executions made claimable and timers fired
    reclaimed: int  #: executions taken from dead incarnations
    more: bool  #: call again at once: a limit was reached


@dataclass(frozen=True, slots=True)
class HeldResult:
    """What an incarnation holds according to the database."""

    tokens: dict[uuid.UUID, int]  #: of the claims it knows and still holds; it holds none of the others any more
    claims: list[Claim]  #: what it holds beside those; an id may be one that it knew under an earlier claim


@dataclass(frozen=True, slots=True)
class OutcomeInfo:
    """How an execution ended."""

    id: uuid.UUID
    status: str
    payload: bytes
    attempts: int
    lost: int
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A workflow's last snapshot and what stands beside it."""

    id: uuid.UUID
    version: int
    definition_id: int
    snapshot: bytes
    standing: Standing
    suspended_since: datetime


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The limits of a queue; None: no such limit. All None: no limits at all."""

    concurrency: int | None = None  #: Begun and not finished, over all workers.
    rate: tuple[int, float] | None = None  #: Starts of attempts in any so many seconds.
    key_concurrency: int | None = None  #: The same of each limit key.
    key_rate: tuple[int, float] | None = None


@dataclass(frozen=True, slots=True)
class GateInfo:
    """Why an execution waits at the gate of its queue."""

    queue: str
    limit_key: str | None
    paused: bool
    concurrency: int | None
    holding: int  #: places of the queue that are taken
    key_concurrency: int | None
    key_holding: int  #: places that its limit key takes
    rate: int | None
    rate_seconds: float | None
    next_at: datetime | None  #: when the queue's rate lets the next one pass; None: it does not keep it now
    key_rate: int | None
    key_rate_seconds: float | None
    key_next_at: datetime | None


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue's figures."""

    queue: str
    pending: int
    running: int
    suspended: int
    oldest_pending_seconds: float | None
    paused: bool
    finished_per_minute: int  #: within the last minute
    gated: int = 0  #: of those pending, how many wait for a place or for the rate
    holding: int = 0  #: have begun and not finished, in a queue with limits
    concurrency: int | None = None  #: at most so many begun and not finished; None, as below: no such limit
    rate: int | None = None  #: at most so many starts of attempts in any ``rate_seconds``
    rate_seconds: float | None = None
    key_concurrency: int | None = None  #: the same of each limit key
    key_rate: int | None = None
    key_rate_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A live worker incarnation."""

    incarnation: uuid.UUID
    host: str
    pid: int
    version: str
    queues: list[str]
    tasks: list[str]
    workflows: bool
    running: int
    started_at: datetime
    seen_seconds_ago: float
    heartbeat_timeout_seconds: float
    conflicts: list[str]  #: tasks that another live worker has registered differently
