"""The exchange's arguments and answer: records to parallel arrays and back.

Speed matters here, this runs for every single task: one list comprehension per array, nothing per item that a C loop
can do. Arrays that would hold nothing but nulls are sent as null.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rhythm.errors import InvalidInput
from rhythm.model import (
    LOG_LEVELS,
    Claim,
    Delivery,
    ExchangeRequest,
    ExchangeResult,
    NewChild,
    Parent,
    TaskOutcome,
    WorkflowCommit,
    number_ranges,
)
from rhythm.store.codec import JSON_CODEC, pack, text, unpack

MEMBERS_BITS = 9  #: of a token: the member's position in its claim
SINGLE = (1 << MEMBERS_BITS) - 1  #: position that marks a single claim
COMMIT_COLUMNS = 41  #: arguments of rhythm.exchange that describe commits

_COMPLETED, _FAILED, _CANCELLED, _FAILED_FOR_GOOD, _COMMITTED, _HANDED_BACK = 1, 2, 3, 4, 5, 6
_STATUS_CODES = {"completed": 1, "failed": 2, "cancelled": 3}
_DELIVERY_KINDS = (None, "completed", "failed", "timer", "signal", "cancel")
_MODE_CODES = {"on_rejection": 1, "on_fulfilment": 2, "last": 3}
_quote = json.JSONEncoder(ensure_ascii=True).encode
_KIND_CODES = {None: 0, "task": 1, "workflow": 2}

Names = Callable[[int], str]


def kind_code(kind: str | None) -> int:
    """The code of a kind; None is 0: whichever is known by that name."""
    return _KIND_CODES[kind]


def or_none(values: list[Any]) -> list[Any] | None:
    """The list, or None if it holds nothing but None."""
    return values if any(value is not None for value in values) else None


def json_text(value: Mapping[str, Any] | None) -> str | None:
    """Small JSON for a jsonb column."""
    return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)


def distinct(values: Iterable[Any]) -> tuple[list[int | None], list[Any]]:
    """Each value as its position, from 1, in a list of the distinct ones; None stays None."""
    positions: dict[Any, int] = {}
    indexes = [None if value is None else positions.setdefault(value, len(positions) + 1) for value in values]
    return indexes, list(positions)


# Reports -----------------------------------------------------------------------------------------


class Reports:
    """What an exchange says about claimed members, sorted by claim, batches first."""

    def __init__(self, request: ExchangeRequest) -> None:
        rows: list[tuple[int, uuid.UUID, int, bytes | None, float | None, int | None]] = [
            (o.token, o.id, _action(o), JSON_CODEC + o.payload, o.retry_after_seconds, None)
            for o in request.task_outcomes
        ]
        commits = request.workflow_commits
        rows += [(c.token, c.id, _COMMITTED, None, None, i) for i, c in enumerate(commits)]
        rows += [(token, id_, _HANDED_BACK, None, None, None) for token, id_ in request.hand_backs]
        rows.sort(key=_report_order)
        self.rows = rows
        continuations = request.continuations
        #: of each commit the row that reports it, of each continuation None
        self.commit_rows: list[int | None] = [None] * (len(commits) + len(continuations))
        #: of each continuation the row of its child's outcome, of each commit None
        self.child_rows: list[int | None] = [None] * (len(commits) + len(continuations))
        if commits:
            for position, row in enumerate(rows, 1):
                if row[5] is not None:
                    self.commit_rows[row[5]] = position
        if continuations:
            row_of = {row[1]: position for position, row in enumerate(rows, 1)}
            self.child_rows[len(commits) :] = [row_of.get(c.child_id, 0) for c in continuations]

    def arguments(self) -> list[Any]:
        """The arguments p_claims to p_batch_counts."""
        rows = self.rows
        if not rows:
            return [None] * 8
        claims = [row[0] >> MEMBERS_BITS for row in rows]
        positions = [row[0] & SINGLE for row in rows]
        batches: dict[int, int] = {}
        for claim, position in zip(claims, positions, strict=True):
            if position == SINGLE:
                break
            batches[claim] = batches.get(claim, 0) + 1
        return [
            claims,
            positions,
            [row[1] for row in rows],
            [row[2] for row in rows],
            [row[3] for row in rows],
            [row[4] for row in rows],
            list(batches),
            list(batches.values()),
        ]


def _report_order(row: tuple[Any, ...]) -> tuple[bool, int]:
    token = row[0]
    return (token & SINGLE == SINGLE, token)


def _action(outcome: TaskOutcome) -> int:
    status = outcome.status
    if status == "completed":
        return _COMPLETED
    if status == "cancelled":
        return _CANCELLED
    return _FAILED if outcome.retryable else _FAILED_FOR_GOOD


# Commits -----------------------------------------------------------------------------------------


def commit_arguments(commits: Sequence[WorkflowCommit], reports: Reports) -> tuple[list[Any], list[str | None] | None]:
    """The arguments p_commit_report to p_cancel_ids, and p_child_limit_keys."""
    if not commits:
        return [None] * COMMIT_COLUMNS, None
    ended = [c.outcome for c in commits]
    children, limit_keys = _child_arguments([(i, child) for i, c in enumerate(commits, 1) for child in c.children])
    columns = [
        reports.commit_rows,
        reports.child_rows,
        [c.id for c in commits],
        [c.version for c in commits],
        [c.seen_through for c in commits],
        [None if c.snapshot is None else bytes(c.snapshot) for c in commits],
        [None if o is None else _STATUS_CODES[o.status] for o in ended],
        [None if o is None else pack(o.payload) for o in ended],
        [o is not None and o.keep_snapshot for o in ended],
        [c.standing.line for c in commits],
        [None if c.standing.function is None else _shown(c.standing.function) for c in commits],
        [pack(c.standing.awaiting) for c in commits],
        [c.outstanding for c in commits],
        [c.unread_signals for c in commits],
        *children,
        *_columns(
            [
                (i, t.operation, _seconds(t.delay_ms), _seconds(t.due_at_ms))
                for i, c in enumerate(commits, 1)
                for t in c.timers
            ],
            4,
        ),
        *_columns([(i, operation) for i, c in enumerate(commits, 1) for operation in c.dropped_timers], 2),
        *_group_arguments(commits),
        *_columns([(i, child) for i, c in enumerate(commits, 1) for child in c.cancels], 2),
    ]
    return columns, limit_keys


def _columns(rows: list[tuple[Any, ...]], count: int) -> list[Any]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [None] * count


def _group_arguments(commits: Sequence[WorkflowCommit]) -> list[Any]:
    """Where each commit's groups begin (from 1, and one past the last), and the groups."""
    if not any(c.wake_groups for c in commits):
        return [None] * 4
    first, rows = [1], []
    for commit in commits:
        rows += [
            (_MODE_CODES[g.mode], ranges(g.operations), len(g.operations)) for g in commit.wake_groups if g.operations
        ]
        first.append(len(rows) + 1)
    return [first, *_columns(rows, 3)]


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000.0


def _shown(name: str) -> str:
    return name.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "\ufffd")


def ranges(operations: Sequence[int]) -> str:
    """Operations as the text of a multirange: mostly they are consecutive, and then it is short."""
    return "{" + ",".join(f"[{first},{end})" for first, end in number_ranges(sorted(set(operations)))) + "}"


def _child_arguments(children: list[tuple[int, NewChild]]) -> tuple[list[Any], list[str | None] | None]:
    """The arguments p_child_commit to p_child_timeouts, and p_child_limit_keys."""
    if not children:
        return [None] * 15, None
    names, pairs = distinct((_KIND_CODES[c.kind], text(c.name, "name")) for _, c in children)
    options = [c.options for _, c in children]
    if any(options):
        queue, queues = distinct(None if o.get("queue") is None else text(o["queue"], "queue") for o in options)
        more = [
            or_none(queue),
            queues or None,
            or_none([o.get("priority") for o in options]),
            or_none([o.get("delay_seconds") for o in options]),
            or_none([None if o.get("key") is None else text(o["key"], "key") for o in options]),
            or_none([o.get("retries") for o in options]),
            or_none([json_text(o.get("retry")) for o in options]),
            or_none([milliseconds(o.get("timeout_seconds")) for o in options]),
        ]
        limit_keys = or_none(
            [None if o.get("limit_key") is None else text(o["limit_key"], "limit key") for o in options]
        )
    else:
        more = [None] * 8
        limit_keys = None
    columns: list[Any] = [
        [i for i, _ in children],
        [c.id for _, c in children],
        [JSON_CODEC + c.inputs for _, c in children],
        names,
        [kind for kind, _ in pairs],
        [name for _, name in pairs],
        [c.operation for _, c in children],
        *more,
    ]
    return columns, limit_keys


def log_columns(lines: Iterable[tuple[str, str]]) -> list[Any]:
    """Levels and texts of log lines: any text can be stored."""
    columns = [(LOG_LEVELS.index(level) + 1, pack(_quote(text_).encode("ascii"))) for level, text_ in lines]
    return _columns(columns, 2)


def milliseconds(seconds: float | None) -> int | None:
    """A timeout for the database: at least 1 ms, 0 only for none given as 0."""
    if seconds is None:
        return None
    if not 0 <= seconds < 1e12:
        raise InvalidInput(f"a timeout of {seconds} seconds cannot be stored")
    return max(1, round(seconds * 1000)) if seconds else 0


# The call ----------------------------------------------------------------------------------------

_REPORTED = (
    "bigint[], smallint[], uuid[], smallint[], bytea[], double precision[], bigint[], integer[], "
    "integer[], integer[], uuid[], integer[], bigint[], bytea[], smallint[], bytea[], boolean[], integer[], text[], "
    "bytea[], integer[], integer[], "
    "integer[], uuid[], bytea[], integer[], smallint[], text[], integer[], integer[], text[], "
    "integer[], double precision[], text[], integer[], text[], bigint[], "
    "integer[], integer[], double precision[], double precision[], integer[], integer[], "
    "integer[], smallint[], text[], integer[], integer[], uuid[], "
    "integer[], integer[], integer[], integer[], integer[], integer, boolean, boolean, boolean, integer[], text[]"
)
_TYPES = ["uuid", "integer", *(_REPORTED.split(", "))]


def _call(function: str, types: Sequence[str]) -> str:
    return f"select * from rhythm.{function}({', '.join(f'${i}::{t}' for i, t in enumerate(types, 1))})"  # noqa: S608 - built of constants


EXCHANGE = _call("exchange", _TYPES)
EXCHANGE_LOGGING = _call("exchange", [*_TYPES, "integer[]", "smallint[]", "bytea[]"])


def exchange_call(request: ExchangeRequest) -> tuple[str, list[Any]]:
    """The call of rhythm.exchange and its arguments: those of log lines only where there are any."""
    reports = Reports(request)
    commits = [*request.workflow_commits, *(c.commit for c in request.continuations)]
    arguments = _exchange_arguments(request, reports, commits)
    if not any(c.logs for c in commits):
        return EXCHANGE, arguments
    places = [i for i, c in enumerate(commits, 1) for _ in c.logs]
    return EXCHANGE_LOGGING, [*arguments, places, *log_columns(line for c in commits for line in c.logs)]


def _exchange_arguments(request: ExchangeRequest, reports: Reports, commits: Sequence[WorkflowCommit]) -> list[Any]:
    columns, limit_keys = commit_arguments(commits, reports)
    return [
        request.incarnation,
        request.epoch,
        *reports.arguments(),
        *columns,
        list(request.queues),
        list(request.names),
        list(request.singles),
        [count for count, _ in request.task_limits],
        [limit for _, limit in request.task_limits],
        request.workflow_limit,
        request.alone,
        request.idle,
        request.parents,
        None if request.task_free is None else list(request.task_free),
        limit_keys,
    ]


def exchange_result(row: Mapping[str, Any], request: ExchangeRequest, names: Names, queues: Names) -> ExchangeResult:
    """The answer of rhythm.exchange."""
    claims: list[Claim] = []
    fresh = retokened(row["o_new_ids"], row["o_new_claims"])
    ids = row["t_ids"]
    if ids is not None:
        # what was claimed singly comes last, each with a claim of its own
        batched = sum(id_ not in fresh for id_ in ids) if fresh else len(ids)
        members = tokens(row["t_claim"], batched) + [fresh[id_] for id_ in ids[batched:]]
        sent = {c.commit.id: c.commit for c in request.continuations}
        sent.update((c.id, c) for c in request.workflow_commits)
        claims = task_claims(row, members, ids, names, queues, sent)
    ids = row["w_ids"]
    if ids is not None:
        claims += workflow_claims(row, tokens(row["w_claim"], len(ids)), ids, names, queues)
    return ExchangeResult(
        claims=claims,
        refused=frozenset(row["o_refused"]),
        continued=frozenset(row["o_continued"]),
        retokened=fresh,
        suspects_waiting=row["o_suspects"],
        check_again=row["o_check_again"],
        next_pass_seconds=row["o_next_pass"],
    )


# The sequential step -----------------------------------------------------------------------------

_STEP_TYPES = (
    "uuid", "integer", "bigint", "uuid", "smallint", "bytea", "uuid", "integer", "bigint", "bytea", "integer", "text",
    "bytea", "integer", "integer", "uuid", "bytea", "text", "integer", "text", "integer", "text", "integer", "text",
    "bigint", "integer[]", "integer[]",
)  # fmt: skip
STEP = _call("step", _STEP_TYPES)
STEP_LOGGING = _call("step", [*_STEP_TYPES, "smallint[]", "bytea[]"])


def step_call(request: ExchangeRequest) -> tuple[str, list[Any]] | None:
    """The call of rhythm.step and its arguments, or None if this exchange is more than one sequential step."""
    if len(request.task_outcomes) != 1 or len(request.continuations) != 1 or not request.task_limits:
        return None
    outcome, continued = request.task_outcomes[0], request.continuations[0]
    commit = continued.commit
    if (
        request.workflow_commits
        or request.hand_backs
        or outcome.token & SINGLE != SINGLE
        or outcome.id != continued.child_id
        or commit.outcome is not None
        or commit.snapshot is None
        or len(commit.children) != 1
        or commit.timers
        or commit.dropped_timers
        or commit.wake_groups
        or commit.cancels
        or not request.parents
    ):
        return None
    action, child, standing = _action(outcome), commit.children[0], commit.standing
    options = child.options
    if (
        action == _FAILED
        or child.kind != "task"
        or options.get("delay_seconds") is not None
        or options.get("limit_key") is not None
    ):
        return None
    arguments = [
        request.incarnation,
        request.epoch,
        outcome.token >> MEMBERS_BITS,
        outcome.id,
        action,
        pack(outcome.payload),
        commit.id,
        commit.version,
        commit.seen_through,
        bytes(commit.snapshot),
        standing.line,
        None if standing.function is None else _shown(standing.function),
        pack(standing.awaiting),
        commit.outstanding,
        commit.unread_signals,
        child.id,
        pack(child.inputs),
        text(child.name, "name"),
        child.operation,
        None if options.get("queue") is None else text(options["queue"], "queue"),
        options.get("priority"),
        None if options.get("key") is None else text(options["key"], "key"),
        options.get("retries"),
        json_text(options.get("retry")),
        milliseconds(options.get("timeout_seconds")),
        list(request.queues),
        list(request.names),
    ]
    return (STEP_LOGGING, [*arguments, *log_columns(commit.logs)]) if commit.logs else (STEP, arguments)


def step_result(row: Mapping[str, Any], request: ExchangeRequest, names: Names, queues: Names) -> ExchangeResult:
    """The answer of rhythm.step, when it applied."""
    commit = request.continuations[0].commit
    child = commit.children[0]
    timeout, retry, tags = row["o_timeout_ms"], row["o_retry"], row["o_parent_tags"]
    assert commit.snapshot is not None, "step_call() has looked"
    parent = Parent(
        commit.id,
        names(row["o_parent_name"]),
        row["o_definition"],
        commit.version + 1,
        commit.seen_through + 1,
        bytes(commit.snapshot),
        None if tags is None else json.loads(tags),
    )
    claim = Claim(
        token=row["o_claim"] << MEMBERS_BITS | SINGLE,
        id=child.id,
        kind="task",
        name=child.name,
        inputs=child.inputs,
        attempt=1,
        lost=0,
        queue=queues(row["o_queue"]),
        timeout_seconds=timeout / 1000.0 if timeout else None,
        retries=row["o_retries"],
        retry=None if retry is None else _policy(retry),
        parent_id=commit.id,
        operation=child.operation,
        key=child.options.get("key"),
        created_at_ms=row["o_created"],
        parent=parent if commit.outstanding == 1 else None,
    )
    return ExchangeResult(
        claims=[claim],
        refused=frozenset(),
        continued=frozenset((commit.id,)),
        retokened={},
        suspects_waiting=False,
        check_again=False,
    )


def tokens(claim: int | None, count: int) -> list[int]:
    """The tokens of a new claim's members; none when there is no claim."""
    if claim is None:
        return []
    first = claim << MEMBERS_BITS
    return [first | SINGLE] if count == 1 else list(range(first, first + count))


def retokened(ids: Sequence[uuid.UUID] | None, claims: Sequence[int] | None) -> dict[uuid.UUID, int]:
    """New tokens of the members of split batches."""
    if ids is None or claims is None:
        return {}
    return {id_: claim << MEMBERS_BITS | SINGLE for id_, claim in zip(ids, claims, strict=True)}


@functools.lru_cache(maxsize=256)
def _policy(text_: str) -> Mapping[str, Any]:
    """A retry policy; few different ones come with very many claims."""
    return MappingProxyType(json.loads(text_))


def task_claims(
    row: Mapping[str, Any],
    member_tokens: Sequence[int],
    ids: Sequence[uuid.UUID],
    names: Names,
    queues: Names,
    sent: Mapping[uuid.UUID, WorkflowCommit],
) -> list[Claim]:
    """Claims from the t, x and c arrays of an answer."""
    count = len(ids)
    name_of = {id_: names(id_) for id_ in set(row["t_names"])}
    queue_of = {id_: queues(id_) for id_ in set(row["t_queues"])}
    lost = row["t_lost"] or [0] * count
    if row["t_extra"] is None:
        return [
            Claim(
                token,
                id_,
                "task",
                name_of[name],
                inputs[1:] if inputs[:1] == JSON_CODEC else unpack(inputs),
                attempt,
                losses,
                queue_of[queue],
                timeout / 1000.0 if timeout else None,
                created_at_ms=created,
            )
            for token, id_, name, inputs, attempt, losses, queue, timeout, created in zip(
                member_tokens, ids, row["t_names"], row["t_inputs"], row["t_attempts"], lost, row["t_queues"],
                row["t_timeouts"], row["t_created"], strict=True,
            )
        ]  # fmt: skip
    parents = _parents(row, names, sent) if row.get("c_index") is not None else {}
    extra: dict[int, tuple[Any, ...]] = {
        position: (parent, operation, key, tags, retries, retry, parents.get(i))
        for i, (position, parent, operation, key, tags, retries, retry) in enumerate(
            zip(row["t_extra"], row["x_parents"], row["x_operations"], row["x_keys"], row["x_tags"], row["x_retries"],
                row["x_retry"], strict=True), 1,
        )
    }  # fmt: skip
    nothing = (None, None, None, None, 0, None, None)
    claims = []
    for i in range(count):
        parent_id, operation, key, tags, retries, retry, parent = extra.get(i + 1, nothing)
        timeout = row["t_timeouts"][i]
        claims.append(
            Claim(
                member_tokens[i],
                ids[i],
                "task",
                name_of[row["t_names"][i]],
                unpack(row["t_inputs"][i]),
                row["t_attempts"][i],
                lost[i],
                queue_of[row["t_queues"][i]],
                timeout / 1000.0 if timeout else None,
                retries or 0,
                None if retry is None else _policy(retry),
                parent_id,
                operation,
                key,
                None if tags is None else json.loads(tags),
                row["t_created"][i],
                parent,
            )
        )
    return claims


def _parents(row: Mapping[str, Any], names: Names, sent: Mapping[uuid.UUID, WorkflowCommit]) -> dict[int, Parent]:
    found = {}
    for i, name, definition, version, number, snapshot, tags in zip(
        row["c_index"], row["c_names"], row["c_definitions"], row["c_versions"], row["c_numbers"], row["c_snapshots"],
        row["c_tags"], strict=True,
    ):  # fmt: skip
        id_ = row["x_parents"][i - 1]
        if snapshot is None:
            snapshot = sent[id_].snapshot if id_ in sent else None
        if snapshot is None:
            continue
        found[i] = Parent(
            id_, names(name), definition, version, number, bytes(snapshot), None if tags is None else json.loads(tags)
        )
    return found


def workflow_claims(
    row: Mapping[str, Any], member_tokens: Sequence[int], ids: Sequence[uuid.UUID], names: Names, queues: Names
) -> list[Claim]:
    """Claims from the w and d arrays of an answer."""
    deliveries: list[list[Delivery]] = [[] for _ in ids]
    if row["d_index"] is not None:
        for i, number, kind, operation, name, payload in zip(
            row["d_index"], row["d_numbers"], row["d_kinds"], row["d_operations"], row["d_names"], row["d_payloads"],
            strict=True,
        ):  # fmt: skip
            kind_name = _DELIVERY_KINDS[kind]
            assert kind_name is not None, "codes of deliveries begin at 1"
            deliveries[i - 1].append(
                Delivery(number, kind_name, operation, name, None if payload is None else unpack(payload))
            )
    lost = row["w_lost"] or [0] * len(ids)
    return [
        Claim(
            token=member_tokens[i],
            id=ids[i],
            kind="workflow",
            name=names(row["w_names"][i]),
            inputs=unpack(row["w_inputs"][i]),
            attempt=row["w_attempts"][i],
            lost=lost[i],
            queue=queues(row["w_queues"][i]),
            parent_id=row["w_parents"][i],
            operation=row["w_operations"][i],
            key=row["w_keys"][i],
            tags=None if row["w_tags"][i] is None else json.loads(row["w_tags"][i]),
            created_at_ms=row["w_created"][i],
            definition_id=row["w_definitions"][i],
            version=row["w_versions"][i],
            snapshot=row["w_snapshots"][i],
            deliveries=tuple(deliveries[i]),
        )
        for i in range(len(ids))
    ]
