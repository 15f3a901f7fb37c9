"""A reference model of executions: what each must be after every step of a schedule, said once more in plain Python.

It knows nothing of batches, tokens or SQL, and of queues only which have limits. It is told what was asked of the store
and what came back, predicts what that had to be, and `differences` compares it with the database.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rhythm.model import ExchangeRequest, ExchangeResult, QueueLimits, WakeGroup, WorkflowCommit
from tests.store.bench import Bench

LOST_MAX = 3
HEARTBEAT_SECONDS = 30
ELECTION_SECONDS = 2
OUTCOMES = ("completed", "failed")
Delivered = tuple[str, int | None]


@dataclass
class Execution:
    """One execution as it must be."""

    kind: str
    retries: int = 0
    parent: uuid.UUID | None = None
    operation: int | None = None
    status: str = "pending"
    attempts: int = 0
    lost: int = 0
    available_at: datetime | None = None
    holder: uuid.UUID | None = None
    cancel_asked: bool = False
    queue: str = "default"
    limit_key: str | None = None
    holds: bool = False  #: has begun, and was not let go since: what it would hold in a queue with limits
    # of workflows
    version: int = 0
    numbered: int = 0  #: deliveries so far
    unread: list[Delivered] = field(default_factory=list)
    timers: dict[int, datetime] = field(default_factory=dict)
    group: WakeGroup | None = None
    remaining: int = 0

    @property
    def finished(self) -> bool:
        return self.status in ("completed", "failed", "cancelled")


class Model:
    """All executions, and which incarnations live."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.executions: dict[uuid.UUID, Execution] = {}
        self.seen_at: dict[uuid.UUID, datetime] = {}
        self.elected_at = datetime.min.replace(tzinfo=now.tzinfo)
        self.limits: dict[str, QueueLimits] = {}
        self.passes: list[tuple[datetime, str, str | None]] = []  #: since limits were last changed

    # --- what clients do ---

    def start(self, ids: Iterable[uuid.UUID], queue: str = "default") -> None:
        self.executions.update((id_, Execution("workflow", queue=queue)) for id_ in ids)

    def limit(self, queue: str, limits: QueueLimits | None) -> None:
        """Limits were set, or removed. What has begun before counts."""
        if limits is not None and queue not in self.limits:
            for one in self.executions.values():
                if one.queue == queue and one.status == "pending":
                    one.holds = one.version > 0 and not one.lost
        self.passes = [one for one in self.passes if one[1] != queue]
        self.limits = {name: given for name, given in self.limits.items() if name != queue}
        if limits is not None:
            self.limits[queue] = limits

    def _pass(self, one: Execution) -> None:
        """Something begins: the limits of its queue allow that."""
        limits = self.limits.get(one.queue)
        if limits is None or one.holds:
            one.holds = True
            return
        one.holds = True
        self.passes.append((self.now, one.queue, one.limit_key))
        holding = [other for other in self.executions.values() if other.queue == one.queue and other.holds]
        of_key = [other for other in holding if other.limit_key == one.limit_key]
        passes = [(at, key) for at, queue, key in self.passes if queue == one.queue]
        assert len(holding) <= (limits.concurrency or 10**9), "no more than the limit"
        if one.limit_key is not None:
            assert len(of_key) <= (limits.key_concurrency or 10**9), "no more of the key than its limit"
        if limits.rate is not None:
            since = self.now - timedelta(seconds=limits.rate[1])
            assert sum(at > since for at, _ in passes) <= limits.rate[0], "no more within the period"
        if limits.key_rate is not None and one.limit_key is not None:
            since = self.now - timedelta(seconds=limits.key_rate[1])
            assert sum(at > since for at, key in passes if key == one.limit_key) <= limits.key_rate[0]

    def signal(self, id_: uuid.UUID) -> None:
        self._deliver(id_, "signal", None)

    def cancel(self, id_: uuid.UUID) -> None:
        one = self.executions[id_]
        if one.finished:
            return
        if one.status == "pending" and one.version == 0:
            self._end(id_, "cancelled")
        elif not one.cancel_asked:
            one.cancel_asked = True
            if one.kind == "workflow":
                self._deliver(id_, "cancel", None)

    # --- what happens by itself ---

    def register(self, incarnation: uuid.UUID) -> None:
        self.seen_at[incarnation] = self.now

    def heartbeat(self, incarnation: uuid.UUID) -> None:
        self.seen_at[incarnation] = self.now

    def maintain(self) -> None:
        recently = self.now - timedelta(seconds=ELECTION_SECONDS) < self.elected_at <= self.now
        if not recently or any(self._is_dead(seen_at) for seen_at in self.seen_at.values()):
            self.elected_at = self.now
            for incarnation, seen_at in list(self.seen_at.items()):
                if self._is_dead(seen_at):
                    del self.seen_at[incarnation]
            for id_, one in list(self.executions.items()):
                if one.status == "running" and one.holder not in self.seen_at:
                    self._lose(id_)
        for id_, one in self.executions.items():
            for operation, due_at in sorted(one.timers.items(), key=lambda item: (item[1], item[0])):
                if due_at <= self.now:
                    del one.timers[operation]
                    self._deliver(id_, "timer", operation)

    def _is_dead(self, seen_at: datetime) -> bool:
        return seen_at + timedelta(seconds=HEARTBEAT_SECONDS) <= self.now

    def _lose(self, id_: uuid.UUID) -> None:
        one = self.executions[id_]
        one.lost += 1
        if self._ends_when_taken_back(one):
            self._end(id_, "cancelled")
        elif one.lost >= LOST_MAX:
            self._end(id_, "failed")
        else:
            self._make_pending(one)
            one.holds = False

    # --- exchanges ---

    def exchange(self, request: ExchangeRequest, result: ExchangeResult) -> None:
        """Takes in an exchange that was answered; what the answer says must be what had to come."""
        who = request.incarnation
        refused: set[uuid.UUID] = set()
        continued: set[uuid.UUID] = set()
        final: dict[uuid.UUID, str] = {}
        accepted = {o.id for o in request.task_outcomes if self._holds(who, o.id)}
        commits = [c for c in request.workflow_commits if self._holds(who, c.id)]
        backs = [id_ for _, id_ in request.hand_backs if self._holds(who, id_)]
        for outcome in request.task_outcomes:
            if outcome.id not in accepted:
                refused.add(outcome.id)
            elif outcome.status != "failed" or not outcome.retryable:
                final[outcome.id] = outcome.status
        refused |= {c.id for c in request.workflow_commits} - {c.id for c in commits}
        refused |= {id_ for _, id_ in request.hand_backs} - set(backs)
        in_place = {c.child_id: c.commit for c in request.continuations if self._continues(c.child_id, c.commit, final)}
        for commit in in_place.values():
            continued.add(commit.id)
            self.executions[commit.id].numbered += 1
        for outcome in request.task_outcomes:
            if outcome.id in accepted:
                self._settle(outcome.id, outcome.status, outcome.retryable, told=outcome.id not in in_place)
        for id_ in backs:
            self._hand_back(id_)
        for commit in [*commits, *in_place.values()]:
            self._commit(commit)
        for commit in [*commits, *in_place.values()]:
            self._cancel_children(commit)
            self._wake_unread(self.executions[commit.id])
        for claim in result.claims:
            one = self.executions[claim.id]
            self._wake_early(one)
            assert one.status == "pending", (claim.id, one)
            assert one.available_at is None or one.available_at <= self.now, (claim.id, one)
            assert not one.lost or (request.alone and len(result.claims) == 1), "what was lost is claimed alone"
            one.status, one.holder, one.attempts = "running", who, one.attempts + 1
            self._pass(one)
            assert (one.attempts, one.lost) == (claim.attempt, claim.lost), (claim.id, one)
            assert Counter(one.unread) == Counter((d.kind, d.operation) for d in claim.deliveries), (claim.id, one)
            assert [d.number for d in claim.deliveries] == list(
                range(one.numbered - len(one.unread) + 1, one.numbered + 1)
            )

        assert refused == result.refused
        assert continued == result.continued

    def repeated(self, request: ExchangeRequest, result: ExchangeResult) -> None:
        """The same reports once more: all of them are refused, and nothing happens."""
        said = {o.id for o in request.task_outcomes} | {c.id for c in request.workflow_commits}
        assert said | {id_ for _, id_ in request.hand_backs} == result.refused
        assert frozenset() == result.continued
        assert [] == result.claims

    def _holds(self, incarnation: uuid.UUID, id_: uuid.UUID) -> bool:
        one = self.executions[id_]
        return one.status == "running" and one.holder == incarnation

    def _continues(self, child: uuid.UUID, commit: WorkflowCommit, final: dict[uuid.UUID, str]) -> bool:
        parent = self.executions[commit.id]
        return (
            child in final
            and parent.status == "suspended"
            and parent.version == commit.version
            and not parent.unread
            and parent.numbered + 1 == commit.seen_through
        )

    def _settle(self, id_: uuid.UUID, status: str, retryable: bool, *, told: bool) -> None:
        one = self.executions[id_]
        again = status == "failed" and retryable and one.attempts - one.lost <= one.retries
        if again and not one.cancel_asked:
            self._make_pending(one, self.now + timedelta(seconds=1))
            one.holds = False
        else:
            self._end(id_, status, told=told)

    def _hand_back(self, id_: uuid.UUID) -> None:
        one = self.executions[id_]
        one.attempts -= 1
        if self._ends_when_taken_back(one):
            self._end(id_, "cancelled")
        else:
            self._make_pending(one)
            one.holds = False

    def _commit(self, commit: WorkflowCommit) -> None:
        one = self.executions[commit.id]
        one.unread = one.unread[len(one.unread) - (one.numbered - commit.seen_through) :]
        if commit.outcome is not None:
            self._end(commit.id, commit.outcome.status)
            return
        one.version += 1
        one.status, one.holder, one.attempts, one.lost = "suspended", None, 0, 0
        one.group = commit.wake_groups[0] if commit.wake_groups else None
        one.remaining = len(one.group.operations) if one.group else 0
        for timer in commit.timers:
            assert timer.delay_ms is not None
            one.timers[timer.operation] = self.now + timedelta(milliseconds=timer.delay_ms)
        for child in commit.children:
            delay = child.options.get("delay_seconds")
            self.executions[child.id] = Execution(
                child.kind, retries=2, parent=commit.id, operation=child.operation,
                available_at=None if delay is None else self.now + timedelta(seconds=delay),
                queue=child.options.get("queue", "default"), limit_key=child.options.get("limit_key"),
            )  # fmt: skip

    def _cancel_children(self, commit: WorkflowCommit) -> None:
        for id_ in commit.cancels:
            if self.executions[id_].parent == commit.id:
                self.cancel(id_)

    # --- moves ---

    def _ends_when_taken_back(self, one: Execution) -> bool:
        return one.cancel_asked and one.version == 0

    def _make_pending(self, one: Execution, available_at: datetime | None = None) -> None:
        one.status, one.holder, one.available_at = "pending", None, available_at

    def _end(self, id_: uuid.UUID, status: str, *, told: bool = True) -> None:
        one = self.executions[id_]
        one.status, one.holder, one.holds = status, None, False
        one.timers.clear()
        one.unread.clear()
        if one.parent is not None and told:
            assert one.operation is not None
            self._deliver(one.parent, "completed" if status == "completed" else "failed", one.operation)

    def _deliver(self, id_: uuid.UUID, kind: str, operation: int | None) -> None:
        one = self.executions[id_]
        if one.finished:
            return
        one.numbered += 1
        one.unread.append((kind, operation))
        if one.status == "suspended" and self._wakes(one, kind, operation):
            self._make_pending(one)

    def _wakes(self, one: Execution, kind: str, operation: int | None) -> bool:
        """Whether a delivery wakes a suspended workflow; only groups of mode "last" are used here."""
        if kind not in OUTCOMES or one.group is None or operation not in one.group.operations:
            return True
        one.remaining -= 1
        return one.remaining <= 0

    def _wake_unread(self, one: Execution) -> None:
        if one.status != "suspended" or not one.unread:
            return
        one.remaining = len(one.group.operations) if one.group else 0
        woken = [self._wakes(one, kind, operation) for kind, operation in one.unread]  # each counts
        if True in woken:
            self._make_pending(one)

    def _wake_early(self, one: Execution) -> None:
        """A wake-up for less than must wake is allowed; one for nothing is not."""
        if one.status == "suspended" and one.unread:
            self._make_pending(one)

    # --- the comparison ---

    async def differences(self, bench: Bench) -> list[str]:
        """What the database says otherwise."""
        rows = await bench.raw.fetch(
            "select v.id, v.status, v.attempts, v.lost, w.version, w.next_number - 1 as numbered, "
            "w.next_number - 1 - w.seen_through as unread from rhythm.executions_view v "
            "left join rhythm.waits w on w.id = v.id"
        )
        found = []
        for row in rows:
            one = self.executions[row["id"]]
            if row["status"] == "pending":
                self._wake_early(one)
            counted = one.kind == "task" or one.status in ("pending", "running")
            least = 1 if one.version > 0 and not one.finished else 0
            expected = [one.status]
            actual = [row["status"]]
            if counted:
                expected += [max(one.attempts, least), one.lost]
                actual += [row["attempts"], row["lost"]]
            if one.kind == "workflow" and not one.finished:
                expected += [one.version, one.numbered, len(one.unread)]
                actual += [row["version"], row["numbered"], row["unread"]]
            if expected != actual:
                found.append(f"{one.kind} {row['id']}: {actual} in the database, must be {expected}")
        held = {row["id"] for row in await bench.raw.fetch("select id from rhythm.places")}
        holding = {id_ for id_, one in self.executions.items() if one.holds and one.queue in self.limits}
        if held != holding:
            found.append(f"places of {held - holding} too many and of {holding - held} too few")
        if len(rows) != len(self.executions):
            found.append(f"{len(rows)} executions in the database, must be {len(self.executions)}")
        return found
