"""Wake-ups with the real engine on a real store: combinators wake when they must, and wide ones seldom."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from rhythm.engine import Activation, Environment, StartInfo, activate
from rhythm.model import Claim, TaskOutcome, new_id
from rhythm.store.codec import unpack_snapshot
from rhythm.worker.activations import commit_of
from tests.store.bench import Bench, Worker
from tests.support.activations import NOW_MS, Driver, body, program_of

COMBINATORS = ("all", "any", "allSettled", "race")


class Flow:
    """One execution of a workflow text, advanced whenever the store says that it is claimable."""

    def __init__(self, bench: Bench, worker: Worker, text: str) -> None:
        self.bench = bench
        self.worker = worker
        self.program = program_of(body(text))
        self.now_ms: Callable[[], float] = lambda: NOW_MS
        self.activations = 0
        self.deliveries = 0
        self.output: Any = None
        self.ended = False
        self.tasks: dict[int, Claim] = {}
        self.tokens: dict[int, int] = {}

    async def start(self) -> None:
        self.id = await self.bench.start("order")
        await self.advance()
        while claims := await self.worker.claim(500, 0):
            for claim in claims:
                assert claim.operation is not None
                self.tasks[claim.operation], self.tokens[claim.operation] = claim, claim.token

    async def advance(self) -> None:
        """Runs activations until it is not claimable any more."""
        while claims := await self.worker.claim(0, 1):
            (claim,) = claims
            assert claim.id == self.id
            activation = self._activate(claim)
            self.activations += 1
            self.deliveries += activation.seen_through - (claim.deliveries[0].number - 1 if claim.deliveries else 0)
            await self.worker.commit(commit_of(claim.token, claim.id, claim.version, activation))
            if activation.outcome is not None:
                self.ended = True
                self.output = json.loads(activation.outcome.payload)

    def _activate(self, claim: Claim) -> Activation:
        environment = Environment(self.now_ms, lambda: 0.5, lambda: str(new_id()))
        if claim.version == 0:
            start = StartInfo(str(claim.id), "order", self.program.hash, NOW_MS, b"{}")
            return activate(self.program, environment=environment, start=start, deliveries=claim.deliveries)
        return activate(
            self.program, environment=environment, snapshot=unpack_snapshot(claim.snapshot), deliveries=claim.deliveries
        )

    async def settle(self, outcomes: dict[int, str]) -> None:
        """Ends tasks, by their operations, in one exchange."""
        reports = [
            TaskOutcome(self.tokens[op], self.tasks[op].id, status, payload_of(op, status), retryable=False)
            for op, status in outcomes.items()
        ]
        result = await self.worker.exchange(task_outcomes=reports)
        assert frozenset() == result.refused
        for operation, task in self.tasks.items():
            self.tokens[operation] = result.retokened.get(task.id, self.tokens[operation])


def payload_of(operation: int, status: str) -> bytes:
    value: Any = operation
    if status == "failed":
        value = {"name": f"E{operation}", "message": "no", "type": "failed"}
    return json.dumps(value).encode()


@pytest.fixture
async def worker(bench: Bench) -> Worker:
    await bench.publish("order")
    return await bench.worker("t")


TASKS = "const t = [0, 1, 2, 3].map(i => task('t', { i })); "


@pytest.mark.parametrize(
    ("text", "statuses", "output", "activations"),
    [
        ("return await Promise.all(t)", "cccc", [1, 2, 3, 4], 2),
        ("try { return await Promise.all(t) } catch (e) { return e.name }", "cccf", "E4", 2),
        ("try { return await Promise.all(t) } catch (e) { return e.name }", "cfcc", "E2", 2),
        ("return (await Promise.allSettled(t)).map(o => o.status[0])", "cfcf", list("frfr"), 2),
        ("return await Promise.any(t)", "fffc", 4, 2),
        ("try { return await Promise.any(t) } catch (e) { return e.errors.length }", "ffff", 4, 2),
        ("return await Promise.race(t)", "cccc", 1, 2),
        ("return await Promise.race([Promise.all(t), sleep('9d')])", "cccc", [1, 2, 3, 4], 2),
        ("return await Promise.all([Promise.all(t.slice(0, 2)), Promise.allSettled(t.slice(2))])", "cccc", None, 3),
        ("return await Promise.all([Promise.any(t.slice(0, 2)), Promise.all(t.slice(2))])", "cccc", [1, [3, 4]], 4),
        ("for (const one of t) await one; return 7", "cccc", 7, 5),
        ("await t[0]; return await Promise.all(t.slice(1))", "cccc", [2, 3, 4], 3),
    ],
)
async def test_a_combinator_wakes_as_often_as_it_must(
    bench: Bench, worker: Worker, text: str, statuses: str, output: Any, activations: int
) -> None:
    flow = Flow(bench, worker, TASKS + text)
    await flow.start()
    for operation, status in enumerate(statuses, 1):
        await flow.settle({operation: {"c": "completed", "f": "failed"}[status]})
        await flow.advance()

    assert flow.ended
    assert output is None or output == flow.output
    assert activations == flow.activations


def tree(rng: random.Random, depth: int) -> str:
    """A random combinator over tasks, timers that never fire, and other combinators."""
    parts = []
    for _ in range(rng.randint(1, 4)):
        kind = rng.random()
        if kind < 0.6 or not depth:
            parts.append("task('t')")
        elif kind < 0.65:
            parts.append("sleep('9d')")
        else:
            parts.append(tree(rng, depth - 1))
    text = f"Promise.{rng.choice(COMBINATORS)}([{', '.join(parts)}])"
    return f"{text}.catch(e => e.name)" if rng.random() < 0.3 else text


@pytest.mark.parametrize("seed", range(40))
async def test_no_combinator_misses_the_outcome_that_decides_it(bench: Bench, worker: Worker, seed: int) -> None:
    """Compared with the same deliveries, each in an activation of its own."""
    rng = random.Random(seed)
    text = f"try {{ return [1, await {tree(rng, 3)}] }} catch (e) {{ return [0, e.name] }}"
    flow = Flow(bench, worker, text)
    await flow.start()
    driver = Driver(body(text))
    driver.start()
    order = rng.sample(sorted(flow.tasks), len(flow.tasks))
    ended_after: dict[str, int] = {}
    expected: Any = None
    for count, operation in enumerate(order, 1):
        status = rng.choice(["completed", "failed"])
        await flow.settle({operation: status})
        await flow.advance()
        if flow.ended:
            ended_after.setdefault("store", count)
        if "driver" not in ended_after:
            activation = driver.deliver(driver.delivery(status, operation, json.loads(payload_of(operation, status))))
            if activation.outcome is not None:
                ended_after["driver"] = count
                expected = json.loads(activation.outcome.payload)
    if not flow.ended:
        await bench.store.cancel(flow.id)
        await flow.advance()

    assert ended_after.get("driver") == ended_after.get("store"), text
    assert "driver" not in ended_after or without_ids(expected) == without_ids(flow.output), text
    assert flow.activations <= len(order) + 2


def without_ids(value: Any) -> Any:
    """The two have children of their own."""
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key != "executionId"}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


async def rows_read(bench: Bench) -> int:
    await bench.raw.execute("select pg_stat_clear_snapshot()")
    for connection, _ in bench.store._database._pool._idle:
        await connection.execute("select pg_stat_force_next_flush()")
    found: int = await bench.raw.fetchval(
        "select seq_tup_read + idx_tup_fetch from pg_stat_user_tables where relname = 'deliveries'"
    )
    return found


@pytest.mark.parametrize(("milliseconds", "activations"), [(0.0, 2), (1000.0, 11)])
async def test_a_fan_out_of_ten_thousand_is_read_once(
    bench: Bench, worker: Worker, milliseconds: float, activations: int
) -> None:
    """All at once when that is quick; when turns take their time, a thousand at a time."""
    count = 10_000
    clock = itertools.count(NOW_MS, milliseconds)
    flow = Flow(bench, worker, "return (await Promise.all(Array(10000).fill(0).map(() => task('t')))).length")
    flow.now_ms = partial(next, clock)
    await flow.start()
    assert count == len(flow.tasks)
    operations = sorted(flow.tasks)
    for first in range(0, count, 500):
        await flow.settle(dict.fromkeys(operations[first : first + 500], "completed"))
        assert (await bench.status(flow.id) == "suspended") == (first + 500 < count)
    before = await rows_read(bench)
    await flow.advance()
    read = await rows_read(bench) - before

    # each row is read to be described and to be deleted, and a few that are looked at one by one
    print(f"{flow.activations} activations, {flow.deliveries} deliveries, {read} rows of deliveries read")
    assert count == flow.output
    assert activations == flow.activations
    assert count == flow.deliveries
    assert read <= (2.5 if milliseconds == 0 else 7) * count
