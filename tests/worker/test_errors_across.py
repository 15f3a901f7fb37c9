"""What a workflow catches of a task or child that ended badly: every field, in `evaluate` as in the engine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import rhythm
from rhythm.errors import ExecutionFailed
from rhythm.tasks import REGISTRY
from rhythm.testing import Later, evaluate
from tests.support.commands import Rhythm

SHOWN = """
const of = (e) => e instanceof Error
  ? { name: e.name, message: e.message, text: String(e), keys: Object.keys(e).sort(), task: e.task,
      workflow: e.workflow, id: e.executionId?.length, attempts: e.attempts, type: e.type, data: e.data,
      retryable: e.retryable, cause: "cause" in e ? of(e.cause) : "none", stack: e.stack.split("\\n") }
  : { thrown: e }
async function caught(name, promise) {
  try { return [name, await promise] } catch (e) { return [name, of(e)] }
}
"""
FLOW = f"""{SHOWN}
workflow(ctx, inputs) {{
  const slow = task("slow", {{}}, {{ delay: "1h" }}), pending = task("slow", {{}}, {{ delay: "1h" }})
  const abandoned = task("slow", {{}}, {{ delay: "1h", onCancel: "abandon" }})
  const found = [caught("never started", slow), caught("abandoned", abandoned)]
  cancel(slow)
  found.push(caught("not begun", pending), caught("deadline", task("late", {{}}, {{ deadline: "50ms" }})))
  await sleep(1)
  cancel(pending)
  cancel(abandoned)
  for (const [name, inputs] of [
    ["declines", {{ amount: 3 }}], ["chained", {{}}], ["plain", {{}}], ["final", {{}}], ["declines", {{ amuont: 1 }}],
    ["not_json", {{}}],
  ]) found.push(caught(name, task(name, inputs)))
  found.push(caught("signal", signal("never", {{ timeout: "20ms" }})))
  for (const name of ["fails", "throws", "rethrows", "cancels"]) found.push(caught(name, child(name, {{ n: 1 }})))
  return Promise.all(found)
}}
"""
CHILDREN = {
    "fails": """workflow(ctx, inputs) {
      const error = new TypeError("no " + inputs.n, { cause: new RangeError("deep", { cause: "text" }) })
      throw Object.assign(error, { extra: [1], data: { a: 1 }, odd: () => 1 })
    }""",
    "throws": "workflow() { throw { code: 5 } }",
    "rethrows": 'workflow() { return task("declines", { amount: 9 }) }',
    "cancels": 'workflow() { const p = task("slow", {}, { delay: "1h" }); cancel(p); return p }',
}
RETRIED = """workflow() {
  try { await task("declines", { amount: 1 }, { retries: 2, retry: { initial: 1 } }) } catch (e) { return e.attempts }
}"""
FAILS = """async function pay() {
  await task("declines", { amount: 4 })
}
workflow() {
  await pay()
}"""


class CardDeclined(Exception):
    def __init__(self, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.data = data


async def declines(amount: float) -> None:
    raise CardDeclined(f"no funds for {amount:g}", {"code": "nsf", "amount": amount})


async def chained() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("middle") from error
    except ValueError as error:
        raise CardDeclined("outer") from error


def plain() -> None:
    raise ValueError("bad \U0001f600 \ud800 \0")


def final() -> None:
    raise rhythm.TaskNotRetryable("never again")


def not_json() -> Any:
    return {1}


def slow() -> int:
    return 1


async def late() -> None:
    await asyncio.sleep(60)


@pytest.fixture
def tasks() -> Any:
    made = [rhythm.task(function) for function in (declines, chained, plain, final, not_json, slow, late)]
    yield made
    for task in made:
        REGISTRY.remove(task.name)


async def test_what_a_workflow_catches_is_the_same_everywhere(rhythm_url: str, tmp_path: Path, tasks: Any) -> None:
    flows = {"errors": FLOW, "retried": RETRIED, "pays": FAILS, **CHILDREN}
    for name, source in flows.items():
        (tmp_path / f"{name}.flow").write_text(source)
    async with rhythm.connect(rhythm_url) as client:
        await client.publish(tmp_path)
        async with rhythm.Worker(database_url=rhythm_url, tasks=tasks, poll_interval="50ms", heartbeat_timeout="1s"):
            ids = await client.start_many([rhythm.Start(name) for name in ("errors", "retried", "pays")])
            real = await client.wait(ids[0], timeout=60)
            attempts = await client.wait(ids[1], timeout=60)
            with pytest.raises(ExecutionFailed) as failed:
                await client.wait(ids[2], timeout=60)
    fakes = {task.name: task for task in tasks} | {"late": lambda: Later(delay="1h")}
    outcomes = [
        evaluate(FLOW, tasks=fakes, workflows=CHILDREN, snapshot=mode, ctx={"name": "errors"})
        for mode in ("never", "await")
    ]
    shown = await asyncio.to_thread(Rhythm(tmp_path, {"RHYTHM_DATABASE_URL": rhythm_url}), "show", str(ids[2]), code=0)
    waited = await asyncio.to_thread(Rhythm(tmp_path, {"RHYTHM_DATABASE_URL": rhythm_url}), "wait", str(ids[2]), code=1)

    expected = dict(real)
    assert [None, None] == [outcome.error for outcome in outcomes]
    for outcome in outcomes:
        assert real == json.loads(json.dumps(outcome.result).replace("(workflow.flow:", "(errors.flow:"))

    of_tasks = ["attempts", "executionId", "retryable", "task", "type"]
    by_name = {name: fields.get("keys") for name, fields in expected.items()}
    assert by_name == {
        "never started": of_tasks,
        "abandoned": [key for key in of_tasks if key != "attempts"],
        "not begun": of_tasks,
        "deadline": of_tasks,
        "declines": of_tasks,
        "chained": of_tasks,
        "plain": of_tasks,
        "final": of_tasks,
        "not_json": of_tasks,
        "signal": ["type"],
        "fails": ["data", "executionId", "extra", "type", "workflow"],
        "throws": None,
        "rethrows": sorted([*of_tasks, "data", "workflow"]),
        "cancels": sorted([*of_tasks, "workflow"]),
    }
    first = next(fields for name, fields in real if name == "declines")
    assert (
        "CardDeclined",
        "no funds for 3",
        "CardDeclined: no funds for 3",
        "declines",
        36,
        1,
        "failed",
        True,
    ) == tuple(first[key] for key in ("name", "message", "text", "task", "id", "attempts", "type", "retryable"))
    assert {"code": "nsf", "amount": 3} == first["data"]
    assert [("ValueError", "middle"), ("KeyError", "'inner'")] == [
        (cause["name"], cause["message"])
        for cause in (expected["chained"]["cause"], expected["chained"]["cause"]["cause"])
    ]
    assert ("TypeError", "RangeError", "text") == (
        expected["fails"]["name"],
        expected["fails"]["cause"]["name"],
        expected["fails"]["cause"]["cause"]["thrown"],
    )
    assert [("cancelled", 0, False), ("cancelled", None, False), ("cancelled", 0, False), ("timeout", 1, False)] == [
        (expected[name]["type"], expected[name].get("attempts"), expected[name]["retryable"])
        for name in ("never started", "abandoned", "not begun", "deadline")
    ]
    assert {"thrown": {"code": 5}} == expected["throws"]
    assert "bad \U0001f600 \ud800 \0" == expected["plain"]["message"]
    assert {"TaskInputInvalid", "OutputInvalid", "TaskNotRetryable"} <= {f.get("name") for _, f in real}
    assert 3 == attempts
    stack = "CardDeclined: no funds for 4\n    at async pay (pays.flow:2:3)\n    at async workflow (pays.flow:5:3)"
    assert stack == failed.value.payload["stack"]
    assert stack in shown.out
    assert stack.split("\n", 1)[1] in waited.err
