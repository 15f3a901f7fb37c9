"""Random schedules of everything at once, then every execution must have ended as it should.

Virtual workers claim, report, complete in transactions of their own, commit, crash, come back as zombies, lose answers
and send again what they said; time passes; signals arrive, some twice. After every step the status, attempts, losses
and deliveries of each execution are what the reference model says (`model.py`). Each workflow keeps in its snapshot
what it has seen, so that at the end a child's outcome seen twice or never, or a signal lost, repeated or out of order,
shows. In some schedules queues have limits, which change while everything goes on; the model then knows who holds a
place.

Players that play at once, without the model, also end workflows by force, break them down, and retry what has failed.

A failing seed is in the test's name; it goes into REGRESSIONS. `make simulate SEEDS=1000` plays that many schedules.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import uuid
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import asyncpg
import msgspec
import pytest

from rhythm.errors import ExecutionFinished, IncarnationDead, RetryRefused
from rhythm.model import (
    Claim,
    Continuation,
    ExchangeRequest,
    ExchangeResult,
    NewChild,
    NewTimer,
    QueueLimits,
    Standing,
    TaskOutcome,
    TaskRegistration,
    WakeGroup,
    WorkflowCommit,
    WorkflowOutcome,
    new_id,
)
from rhythm.store.marshal import MEMBERS_BITS, SINGLE
from tests.store.bench import ERROR, Bench, Worker, always_look, another_session
from tests.store.model import HEARTBEAT_SECONDS, Model

REGRESSIONS = (11, 26)  #: seeds that once failed
SEEDS = [*range(int(os.environ.get("RHYTHM_SIMULATE_SEEDS", "6"))), *REGRESSIONS]
LIMITED_SEEDS = range(100, 100 + max(4, int(os.environ.get("RHYTHM_SIMULATE_SEEDS", "0"))))
MARKED_SEEDS = range(200, 200 + max(2, int(os.environ.get("RHYTHM_SIMULATE_SEEDS", "0"))))
STEPS = 3  #: of each workflow
WIDTH = 3  #: most children of a step
TASK = TaskRegistration("work", retries=2, retry={"initial": 1, "factor": 1, "max": 1, "jitter": 0})


@dataclass
class State:
    """What a workflow keeps: the step it is in, the operations it waits for, all it has seen."""

    step: int = 0
    next_operation: int = 1
    waiting: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)
    children: dict[str, str] = field(default_factory=dict)  #: operation to id
    to_cancel: bool = False

    def to_bytes(self) -> bytes:
        return json.dumps(self.__dict__).encode()

    @classmethod
    def of(cls, snapshot: bytes | None) -> State:
        return cls() if snapshot is None else cls(**json.loads(snapshot))


class Player:
    """One incarnation with its memory."""

    def __init__(self, simulation: Simulation, worker: Worker) -> None:
        self.simulation = simulation
        self.worker = worker
        self.held: dict[uuid.UUID, Claim] = {}
        self.tokens: dict[uuid.UUID, int] = {}

    def take(self, claims: list[Claim]) -> None:
        for claim in claims:
            self.held[claim.id] = claim
            self.tokens[claim.id] = claim.token

    async def completes(self, claim: Claim, token: int, committed: bool) -> bool:
        """Completes a task in a transaction, and commits or not; False: it was refused."""
        query = "select rhythm.complete($1, $2, $3, '\\x0131')"
        async with another_session(self.simulation.bench) as session:
            await session.execute("select set_config('rhythm.execution', $1, true)", str(claim.id))
            try:
                await session.execute(query, self.worker.incarnation, token >> MEMBERS_BITS, claim.id)
            except asyncpg.PostgresError as error:
                if error.sqlstate != "RH002":
                    raise
                return False
            await session.execute("commit" if committed else "rollback")
        return True

    async def complete_in_transactions(self, rng: random.Random) -> None:
        """Completes some tasks as transactional ones are: in a transaction of their own, if it is committed."""
        for id_, claim in list(self.held.items()):
            token = self.tokens[id_]
            if claim.kind != "task" or token & SINGLE != SINGLE or rng.random() < 0.7:
                continue
            committed = rng.random() < 0.8
            refused = not await self.completes(claim, token, committed)
            if committed or refused:
                said = ExchangeRequest(
                    incarnation=self.worker.incarnation, task_outcomes=[TaskOutcome(token, id_, "completed", b"1")]
                )
                self.simulation.model.exchange(said, _answer({id_} if refused else set()))
                del self.held[id_], self.tokens[id_]

    async def turn(self, rng: random.Random) -> None:
        """One exchange: some reports, some claims; sometimes the answer is lost."""
        await self.complete_in_transactions(rng)
        outcomes, commits, continuations, backs = [], [], [], []
        for id_, claim in rng.sample(sorted(self.held.items()), rng.randint(0, len(self.held))):
            token = self.tokens[id_]
            if rng.random() < 0.1:
                backs.append((token, id_))
            elif claim.kind == "workflow":
                commits.append(self.simulation.advance(claim, token, rng))
            else:
                failed = rng.random() < 0.2
                outcomes.append(
                    TaskOutcome(token, id_, "failed" if failed else "completed", ERROR if failed else b"1", not failed)
                )
                if claim.parent is not None and rng.random() < 0.8:
                    continuations.append(self.simulation.proceed(claim, "failed" if failed else "completed", rng))
        said: dict[str, Any] = {
            "task_outcomes": outcomes,
            "workflow_commits": commits,
            "continuations": continuations,
            "hand_backs": backs,
            "task_limit": rng.choice([0, 1, 5, 50]),
            "workflow_limit": rng.choice([0, 1, 5, 50]),
            "singles": list(self.worker.registered.names.values()) if rng.random() < 0.5 else [],
            "alone": len(outcomes) + len(commits) + len(backs) == len(self.held),
            "parents": rng.random() < 0.7,
        }
        request = self.worker.request(**said)
        result = await self.simulation.bench.store.exchange(request)
        self.simulation.model.exchange(request, result)
        if rng.random() < 0.1:  # as if the answer had been lost, and everything was sent again
            again = msgspec.structs.replace(request, names=[], task_limits=[], workflow_limit=0)
            self.simulation.model.repeated(again, await self.simulation.bench.store.exchange(again))
        if rng.random() < 0.1:  # as if the answer had been lost: ask what is held
            held = await self.simulation.bench.store.held(self.worker.incarnation, list(self.held.values()))
            self.held = {id_: claim for id_, claim in self.held.items() if id_ in held.tokens}
            self.tokens = dict(held.tokens)
            self.take(held.claims)
            return
        for id_ in [*(o.id for o in outcomes), *(c.id for c in commits), *(i for _, i in backs)]:
            self.held.pop(id_, None)
            self.tokens.pop(id_, None)
        self.tokens.update(result.retokened)
        self.take(result.claims)


def _answer(refused: set[uuid.UUID]) -> ExchangeResult:
    return ExchangeResult(
        claims=[], refused=frozenset(refused), continued=frozenset(), retokened={}, suspects_waiting=False,
        check_again=False,
    )  # fmt: skip


class Simulation:
    """The world the players play in."""

    def __init__(self, bench: Bench, seed: int, model: Model, *, breaks: bool = False, limited: bool = False) -> None:
        self.bench = bench
        self.rng = random.Random(seed)
        self.flows: list[uuid.UUID] = []
        self.sent: dict[uuid.UUID, list[int]] = {}
        self.sends: list[tuple[uuid.UUID, int, uuid.UUID]] = []
        self.breaks = breaks  #: whether workflows break down
        self.limited = limited  #: whether queues get limits
        self.ended_by_force: set[uuid.UUID] = set()
        self.resumed: set[uuid.UUID] = set()
        self.model = model
        self.players: list[Player] = []
        self.zombies: list[Player] = []

    async def join(self) -> None:
        worker = await self.bench.worker(
            TASK, queues=["default", "other", "flows"], heartbeat_timeout=HEARTBEAT_SECONDS
        )
        self.model.register(worker.incarnation)
        self.players.append(Player(self, worker))

    # The workflow's program: STEPS times some children, all awaited, beside a timer now and then.

    def advance(self, claim: Claim, token: int, rng: random.Random) -> WorkflowCommit:
        state = State.of(claim.snapshot)
        for delivery in claim.deliveries:
            self.settle(claim.id, state, delivery.kind, delivery.operation, delivery.payload)
        seen = claim.deliveries[-1].number if claim.deliveries else 0
        return self.commit(state, rng, token=token, id=claim.id, version=claim.version, seen_through=seen)

    def proceed(self, claim: Claim, kind: str, rng: random.Random) -> Continuation:
        parent = claim.parent
        assert parent is not None
        state = State.of(parent.snapshot)
        self.settle(parent.id, state, kind, claim.operation, b"1")
        commit = self.commit(state, rng, token=0, id=parent.id, version=parent.version, seen_through=parent.next_number)
        return Continuation(child_id=claim.id, commit=commit)

    def settle(self, id_: uuid.UUID, state: State, kind: str, operation: int | None, payload: bytes | None) -> None:
        if kind == "signal":
            state.signals.append(int(payload or b""))
        elif kind == "cancel":
            state.to_cancel = True
        else:
            assert operation is not None
            if operation == 0 or (operation in state.seen and id_ in self.resumed):
                return  # taken back for a retry; or told once more to a resumed one, which an engine ignores
            state.waiting.remove(operation)
            state.seen.append(operation)

    def commit(self, state: State, rng: random.Random, **fields: Any) -> WorkflowCommit:
        children: list[NewChild] = []
        timers: list[NewTimer] = []
        cancels: list[uuid.UUID] = []
        if self.breaks and rng.random() < 0.04:
            return WorkflowCommit(**fields, outcome=WorkflowOutcome("failed", ERROR, keep_snapshot=True))
        if state.to_cancel:  # asks its children to stop, and goes on: what each says still counts, once
            cancels = [uuid.UUID(state.children[str(op)]) for op in state.waiting if str(op) in state.children]
            state.to_cancel = False
        if not state.waiting:
            if state.step == STEPS:
                outcome = WorkflowOutcome("completed", state.to_bytes())
                return WorkflowCommit(**fields, outcome=outcome, cancels=cancels)
            state.step += 1
            for _ in range(rng.randint(1, WIDTH)):
                state.waiting.append(state.next_operation)
                if rng.random() < 0.2:
                    timers.append(NewTimer(state.next_operation, delay_ms=rng.choice([0, 500, 5000])))
                else:
                    options = rng.choice([{}, {}, {"delay_seconds": 0.5}, {"priority": 5}, {"queue": "other"}])
                    if self.limited and rng.random() < 0.6:
                        options = options | {"queue": "other", "limit_key": rng.choice(["a", "b"])}
                    child = NewChild(state.next_operation, new_id(), "task", "work", b"{}", options)
                    state.children[str(child.operation)] = str(child.id)
                    children.append(child)
                state.next_operation += 1
        groups = [WakeGroup("last", list(state.waiting))] if rng.random() < 0.5 else []
        stops = [{"operation": op, "kind": "task", "stops": True} for op in state.waiting if op % 2]
        return WorkflowCommit(
            **fields,
            snapshot=state.to_bytes(),
            outstanding=len(state.waiting),
            children=children,
            timers=timers,
            wake_groups=groups,
            cancels=cancels,
            standing=Standing(awaiting=json.dumps(stops).encode()),
        )

    # What happens

    async def event(self) -> None:
        rng = self.rng
        if self.limited and rng.random() < 0.05:
            await self.limit(rng)
            return
        what = rng.choices(
            ["turn", "start", "signal", "cancel", "time", "maintain", "crash", "zombie"], [50, 5, 10, 3, 6, 10, 2, 4]
        )[0]
        if what == "turn":
            await self.play(rng.choice(self.players), rng)
        elif what == "start":
            await self.start(rng)
        elif what == "signal" and self.flows:
            await self.signal(rng.choice(self.flows))
        elif what == "cancel" and self.flows:
            await self.cancel(rng.choice(self.flows))
        elif what == "time":
            await self.pass_time(rng.choice([0.1, 1, 9]))
            for player in list(self.players):
                if rng.random() < 0.9:
                    await self.beat(player)
        elif what == "maintain":
            await self.maintain()
        elif what == "crash" and len(self.players) > 1:
            self.zombies.append(self.players.pop(rng.randrange(len(self.players))))
            await self.join()
        elif what == "zombie" and self.zombies:
            await self.play(rng.choice(self.zombies), rng)

    async def start(self, rng: random.Random) -> None:
        queue = "flows" if self.limited else "default"
        ids = await self.bench.start_many(rng.randint(1, 4), "order", queue=queue)
        self.model.start(ids, queue)
        self.sent.update((id_, []) for id_ in ids)
        self.flows += ids

    async def limit(self, rng: random.Random, queue: str | None = None) -> None:
        """Sets or removes limits: of the queue of workflows their number only, since they wait for their tasks."""
        queue = queue or rng.choice(["other", "flows"])
        limits = QueueLimits(concurrency=rng.randint(1, 5))
        if queue == "other":
            limits = rng.choice(
                [
                    limits,
                    QueueLimits(rate=(rng.randint(1, 4), 3.0)),
                    QueueLimits(rng.randint(2, 4), (5, 2.0), key_concurrency=rng.randint(1, 2)),
                    QueueLimits(key_concurrency=1, key_rate=(2, 3.0)),
                ]
            )
        if rng.random() < 0.2:
            limits = QueueLimits()
        await self.set_limits(queue, limits)

    async def set_limits(self, queue: str, limits: QueueLimits) -> None:
        await self.bench.store.limit_queue(queue, limits)
        self.model.limit(queue, limits if limits != QueueLimits() else None)

    async def pass_time(self, seconds: float) -> None:
        await self.bench.pass_time(seconds)
        self.model.now = self.bench.now

    async def maintain(self) -> None:
        await self.bench.store.maintain(new_id())
        self.model.maintain()

    async def play(self, player: Player, rng: random.Random) -> None:
        try:
            await player.turn(rng)
        except IncarnationDead:
            assert player.worker.incarnation not in self.model.seen_at, "a living one is declared dead"
            await self.bury(player)

    async def beat(self, player: Player) -> None:
        try:
            await player.worker.heartbeat()
        except IncarnationDead:
            assert player.worker.incarnation not in self.model.seen_at, "a living one is declared dead"
            await self.bury(player)
        else:
            self.model.heartbeat(player.worker.incarnation)

    async def bury(self, player: Player) -> None:
        if player in self.zombies:
            self.zombies.remove(player)
        elif player in self.players:
            self.players.remove(player)
            await self.join()

    async def signal(self, id_: uuid.UUID) -> None:
        if self.sends and self.rng.random() < 0.2:
            id_, number, send_id = self.rng.choice(self.sends)  # the same send once more
        else:
            number, send_id = len(self.sent[id_]), new_id()
        try:
            await self.bench.signal(id_, "go", str(number).encode(), send_id)
        except ExecutionFinished:
            return
        if number == len(self.sent[id_]):
            self.model.signal(id_)
            self.sent[id_].append(number)
            self.sends.append((id_, number, send_id))

    async def cancel(self, id_: uuid.UUID) -> None:
        with contextlib.suppress(ExecutionFinished):
            await self.bench.store.cancel(id_)
        self.model.cancel(id_)

    async def end_by_force(self, id_: uuid.UUID) -> None:
        with contextlib.suppress(ExecutionFinished):
            await self.bench.store.terminate(id_)
            self.ended_by_force.add(id_)

    async def retry_something(self, rng: random.Random) -> None:
        """A workflow that has failed, or any task that has or was cancelled."""
        failed = await self.bench.store.list(status=["failed", "cancelled"], limit=1000)
        if failed:
            await self.retry(rng.choice(failed).id)

    async def retry(self, id_: uuid.UUID) -> None:
        self.resumed.add(id_)
        with contextlib.suppress(RetryRefused):
            await self.bench.store.retry(id_, new_id())

    async def resume_what_broke_down(self) -> bool:
        """Whether there was anything."""
        rows = await self.bench.raw.fetch("select id from rhythm.outcomes where resume_version is not null")
        for row in rows:
            await self.retry(row["id"])
        return bool(rows)

    async def finish(self) -> None:
        """One patient worker does the rest; limits are wide, or that would take long."""
        self.breaks, broke = False, self.breaks
        for queue in ("other", "flows") if self.limited else ():
            await self.set_limits(queue, QueueLimits(concurrency=50, rate=(50, 1.0)))
        self.zombies += self.players
        self.players = []
        await self.join()
        (patient,) = self.players
        rng = random.Random(1)
        for _ in range(3000):
            await self.pass_time(2)
            await patient.worker.heartbeat()
            self.model.heartbeat(patient.worker.incarnation)
            await self.maintain()
            await patient.turn(rng)
            if not patient.held and not any(
                [await self.bench.count(table) for table in ("ready", "later", "gated", "claims", "waits")]
            ):
                if not (broke and await self.resume_what_broke_down()):
                    return
        raise AssertionError("it does not come to an end")

    async def check(self) -> None:
        for id_ in self.flows:
            info = await self.bench.get(id_)
            if info.status == "failed":
                assert "lost" == (await self.bench.error(id_))["type"]
                continue
            if info.status == "cancelled" and id_ in self.ended_by_force:
                continue
            if info.status == "cancelled":
                # or before another attempt at its first step, after one that broke down
                assert info.attempts == info.lost or id_ in self.resumed, "cancelled before it had done anything"
                continue
            assert "completed" == info.status
            state = State.of(info.output)
            assert sorted(state.seen) == list(range(1, state.next_operation)), "each outcome and timer exactly once"
            assert state.signals == self.sent[id_][: len(state.signals)], "signals in order, none twice, none lost"
            unread = await self.bench.raw.fetchval("select unread_signals from rhythm.outcomes where id = $1", id_)
            assert len(self.sent[id_]) == len(state.signals) + unread
            children = await self.bench.store.list(parent_id=id_)
            assert all(c.status in ("completed", "failed", "cancelled") for c in children)
            assert all(c.attempts - c.lost <= 3 for c in children if c.id not in self.resumed)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_random_schedule_ends_as_it_should(bench: Bench, seed: int) -> None:
    await bench.publish("order")
    simulation = Simulation(bench, seed, Model(bench.now))
    for _ in range(3):
        await simulation.join()
    for _ in range(300):
        await simulation.event()
        assert [] == await simulation.model.differences(bench)
    assert [] == await bench.store.breaches()
    await simulation.finish()
    assert [] == await simulation.model.differences(bench)
    await simulation.check()

    assert len(simulation.flows) > 5


@pytest.mark.parametrize("seed", MARKED_SEEDS)
async def test_a_random_schedule_with_marks_ends_as_it_should(bench: Bench, seed: int) -> None:
    await always_look(bench)
    await bench.publish("order")
    simulation = Simulation(bench, seed, Model(bench.now), limited=bool(seed % 2))
    for _ in range(3):
        await simulation.join()
    for _ in range(30):
        for _ in range(10):
            await simulation.event()
            assert [] == await simulation.model.differences(bench)
        assert [] == await bench.store.breaches()
    noted = await bench.raw.fetchval("select count(*) from rhythm.marks where seqs <> '{}'")
    await simulation.finish()
    assert [] == await simulation.model.differences(bench)
    await simulation.check()

    assert noted > 0


@pytest.mark.parametrize("seed", LIMITED_SEEDS)
async def test_a_random_schedule_with_limits_keeps_them_and_ends_as_it_should(bench: Bench, seed: int) -> None:
    await bench.publish("order")
    simulation = Simulation(bench, seed, Model(bench.now), limited=True)
    for _ in range(3):
        await simulation.join()
    for queue in ("other", "flows"):
        await simulation.limit(simulation.rng, queue)
    for _ in range(300):
        await simulation.event()
        assert [] == await simulation.model.differences(bench)
    assert [] == await bench.store.breaches()
    await simulation.finish()
    assert [] == await simulation.model.differences(bench)
    await simulation.check()

    assert len(simulation.flows) > 5


@pytest.mark.parametrize(
    ("seed", "limited", "marked"),
    [*((seed, False, seed % 2 == 0) for seed in range(10, 14)), (14, True, False), (15, True, True)],
)
async def test_players_at_once_on_one_database(bench: Bench, seed: int, limited: bool, marked: bool) -> None:
    if marked:
        await always_look(bench)
    await bench.publish("order")
    model = mock.create_autospec(Model, instance=True, seen_at={})
    simulation = Simulation(bench, seed, model, breaks=True, limited=limited)
    numbering = asyncio.Lock()
    for _ in range(6):
        await simulation.join()

    async def run(number: int) -> None:
        rng = random.Random(seed * 100 + number)
        for _ in range(40):
            what = rng.random()
            if what < 0.1:
                await simulation.start(rng)
            elif marked and what > 0.99:
                await bench.raw_call("update rhythm.clock set frozen_at = frozen_at + interval '1 s'")
            elif limited and what > 0.97:
                await simulation.limit(rng)
            elif what < 0.25:
                await bench.store.maintain(new_id())
            elif what < 0.3 and simulation.flows:
                await simulation.cancel(rng.choice(simulation.flows))
            elif what < 0.32 and simulation.flows:
                await simulation.end_by_force(rng.choice(simulation.flows))
            elif what < 0.37:
                await simulation.retry_something(rng)
            elif what < 0.45 and simulation.flows:
                async with numbering:
                    await simulation.signal(rng.choice(simulation.flows))
            else:
                await simulation.players[number].turn(rng)

    await asyncio.gather(*(run(number) for number in range(6)))
    assert [] == await bench.store.breaches()
    await simulation.finish()
    await simulation.check()

    assert len(simulation.flows) > 5
