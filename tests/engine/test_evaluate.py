"""`evaluate` with child workflows, and with functions decorated as tasks."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

import rhythm
from rhythm.tasks import REGISTRY
from rhythm.testing import Later, evaluate

BEGIN = 1_700_000_000
CALL = "workflow(ctx, inputs) { return await child('inner', inputs) }"


class Price(BaseModel):
    net: Decimal


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    before = set(REGISTRY.as_dict())
    yield
    for name in set(REGISTRY.as_dict()) - before:
        REGISTRY.remove(name)


def run(source: str, *, mode: Any = "await", **arguments: Any) -> Any:
    outcome = evaluate(source, snapshot=mode, clock=BEGIN, **arguments)
    return outcome.result if outcome.error is None else (outcome.status, outcome.error.name, outcome.error.message)


@pytest.mark.parametrize("mode", ["never", "await"])
def test_a_child_runs_with_the_same_tasks_and_in_the_same_time(mode: Any) -> None:
    inner = "workflow(ctx, inputs) { await sleep('1h'); return [await task('double', inputs), Date.now(), ctx.name] }"
    source = "workflow() { const all = await child('inner', { n: 4 }); return [...all, Date.now()] }"

    outcome = run(source, mode=mode, workflows={"inner": inner}, tasks={"double": lambda n: n * 2})

    begin = BEGIN * 1000
    assert outcome == [8, begin + 3_600_001, "inner", begin + 3_600_002]


def test_children_run_at_the_same_time() -> None:
    inner = "workflow(ctx, inputs) { await sleep(inputs.ms); return Date.now() }"
    source = """workflow() {
      const [a, b] = await Promise.all([child('inner', { ms: 100 }), child('inner', { ms: 50 })])
      return [a, b, Date.now()]
    }"""

    assert run(source, workflows={"inner": inner}) == [BEGIN * 1000 + ms for ms in (100, 50, 101)]


def test_what_a_child_throws_reaches_its_parent() -> None:
    inner = "workflow() { throw Object.assign(new RangeError('no'), { code: 7 }) }"
    source = """workflow() {
      try { await child('inner') } catch (error) { return [error.name, error.message, error.code, error.workflow] }
    }"""

    assert run(source, workflows={"inner": inner}) == ["RangeError", "no", 7, "inner"]


def test_a_child_that_is_cancelled_ends_when_its_parent_asks() -> None:
    inner = "workflow() { await sleep('1d'); return 'late' }"
    source = """workflow() {
      const promise = child('inner')
      await sleep('1s')
      cancel(promise)
      try { return await promise } catch (error) { return [error.name, Date.now()] }
    }"""

    assert run(source, workflows={"inner": inner}) == ["CancelledError", BEGIN * 1000 + 1001]


def test_a_child_knows_its_parent_and_its_log_is_kept() -> None:
    inner = "workflow(ctx) { console.log('from inside'); return ctx.parentId }"

    outcome = evaluate(CALL, workflows={"inner": inner}, ctx={"executionId": "the-parent"})

    assert outcome.result == "the-parent"
    assert outcome.logs == (("info", "from inside"),)


def test_a_child_that_calls_itself_for_ever_fails() -> None:
    status, name, message = run(CALL, workflows={"inner": CALL})

    assert (status, name) == ("failed", "RecursionError")
    assert "20 workflows" in message


def test_a_child_that_does_not_compile_fails() -> None:
    status, name, message = run(CALL, workflows={"inner": "workflow() { return missing }"})

    assert (status, name) == ("failed", "CompileError")
    assert "inner.flow:1:" in message


def test_a_child_nobody_has_given_is_not_found() -> None:
    assert run(CALL)[1] == "TaskNotFoundError"
    assert run("workflow() { return task('inner') }", workflows={"inner": CALL})[1] == "TaskNotFoundError"


def test_a_decorated_task_has_its_inputs_validated_and_its_output_encoded() -> None:
    @rhythm.task
    async def price(context: rhythm.TaskContext, cents: int, rate: float = 0.2) -> Price:
        assert context.name == "price"
        return Price(net=Decimal(cents) / 100)

    tasks = {"price": price}

    assert run("workflow() { return task('price', { cents: 250 }) }", tasks=tasks) == {"net": "2.5"}
    status, name, message = run("workflow() { return task('price', { cents: 'lots' }) }", tasks=tasks)
    assert (status, name) == ("failed", "TaskInputInvalid")
    assert "cents" in message
    assert run("workflow() { return task('price', { cent: 1 }) }", tasks=tasks)[1] == "TaskInputInvalid"


def test_a_decorated_task_may_come_later_or_give_what_json_cannot_hold() -> None:
    @rhythm.task
    def slow() -> Any:
        return Later(value=1, delay="1h")

    @rhythm.task
    def odd() -> Any:
        return {1, 2}

    assert run("workflow() { await task('slow'); return Date.now() }", tasks={"slow": slow}) == BEGIN * 1000 + 3_600_000
    assert run("workflow() { return task('odd') }", tasks={"odd": odd})[1] == "OutputInvalid"
