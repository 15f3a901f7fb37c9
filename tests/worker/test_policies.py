"""Retry policies: of the decorator, of the call, and what a task says itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

import rhythm
from rhythm.errors import TaskNotRetryable, TaskRetryAfter
from rhythm.tasks import Task
from tests.worker.conftest import Shop

TASKS = """
import asyncio
import rhythm

class Busy(Exception):
    pass

class Broken(Exception):
    pass

@rhythm.task(retries=3, retry=rhythm.Retry(initial="1ms", no_retry_on=(Broken,)))
async def fails(context: rhythm.TaskContext, how: str, times: int = 9) -> int:
    if context.attempt <= times:
        match how:
            case "busy": raise Busy("busy")
            case "broken": raise Broken("broken")
            case "never": raise rhythm.TaskNotRetryable("never")
            case "later": raise rhythm.TaskRetryAfter("later", seconds=0.01)
            case "slow": await asyncio.sleep(60)
    return context.attempt

@rhythm.task(retries=1, retry=rhythm.Retry(initial="1h"))
async def patient(context: rhythm.TaskContext) -> int:
    if context.attempt == 1:
        raise rhythm.TaskRetryAfter("soon", seconds=0.01)
    return context.attempt
"""
FLOW = """
workflow(ctx, inputs) {
  try {
    return await task("fails", inputs.inputs, inputs.options)
  } catch (error) {
    return error.name
  }
}
"""


@pytest.mark.parametrize(
    ("inputs", "options", "result", "attempts"),
    [
        ({"how": "busy", "times": 3}, {}, 4, 4),
        ({"how": "busy"}, {}, "Busy", 4),
        ({"how": "busy"}, {"retries": 0}, "Busy", 1),
        ({"how": "busy"}, {"retry": {"noRetryOn": ["Busy"]}}, "Busy", 1),
        ({"how": "busy"}, {"retry": {"retryOn": ["Other"]}}, "Busy", 1),
        ({"how": "busy", "times": 2}, {"retry": {"retryOn": ["Busy"], "initial": 1}}, 3, 3),
        ({"how": "broken"}, {}, "Broken", 1),
        ({"how": "broken"}, {"retry": {"initial": 2}}, "Broken", 1),
        ({"how": "broken", "times": 1}, {"retry": {"noRetryOn": []}}, 2, 2),
        ({"how": "never"}, {"retries": 5}, "TaskNotRetryable", 1),
        ({"how": "later", "times": 2}, {"retry": {"retryOn": ["Other"], "initial": "1h"}}, 3, 3),
        ({"how": "later"}, {"retries": 1}, "TaskRetryAfter", 2),
        ({"how": "slow", "times": 1}, {"timeout": 50}, 2, 2),
        ({"how": "slow"}, {"timeout": 50, "retry": {"noRetryOn": ["TimeoutError"]}}, "TimeoutError", 1),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else str(value),
)
async def test_a_call_has_the_last_word_and_leaves_the_rest_to_the_decorator(
    policy_shop: Shop, inputs: dict[str, Any], options: dict[str, Any], result: Any, attempts: int
) -> None:
    execution = await policy_shop.client.start("calls", {"inputs": inputs, "options": options})

    assert result == await execution.result(timeout=30)
    (called,) = await policy_shop.client.list(parent=execution.id)
    assert called.info is not None
    assert attempts == called.info.attempts


@pytest.fixture
async def policy_shop(shop: Shop) -> Shop:
    (shop.folder / "policies.py").write_text(TASKS)
    (shop.folder / "workflows" / "calls.flow").write_text(FLOW)
    await shop.client.publish(shop.folder / "workflows")
    shop.worker("--app", "policies").wait_for_output("ready")
    return shop


async def test_a_start_keeps_what_the_decorator_says_of_errors(policy_shop: Shop) -> None:
    execution = await policy_shop.client.start("fails", {"how": "broken"}, retries=5, retry=rhythm.Retry(initial="1ms"))

    with pytest.raises(rhythm.ExecutionFailed):
        await execution.result(timeout=20)
    assert 1 == (await execution.refresh()).attempts


async def test_retry_after_comes_before_the_policys_wait(policy_shop: Shop) -> None:
    assert 2 == await (await policy_shop.client.start("patient", {})).result(timeout=20)


def never(error: BaseException, policy: dict[str, Any] | None = None, **retry: Any) -> bool:
    async def work() -> None: ...

    made: Task[[], Any] = Task(
        work, name="work", queue="default", retries=1, retry=rhythm.Retry(**retry), timeout_seconds=None, priority=0
    )
    return not made.is_retryable(error, policy)


def test_classes_and_names_of_bases_count() -> None:
    assert never(KeyError(), no_retry_on=(LookupError,))
    assert never(KeyError(), {"no_retry_on": ["LookupError"]})
    assert not never(KeyError(), {"retry_on": ["Exception"]}, retry_on=(ValueError,))
    assert not never(KeyError(), {"no_retry_on": []}, no_retry_on=(KeyError,))
    assert never(TaskNotRetryable("no"), {"retry_on": ["TaskNotRetryable"]})
    assert not never(TaskRetryAfter("later", seconds=1), {"no_retry_on": ["TaskRetryAfter"]})


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_retry_after_takes_a_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        TaskRetryAfter("x", seconds=seconds)
