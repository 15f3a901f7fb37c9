"""What a worker logs: one line per transition, with the execution's id and attempt, as text and as JSON."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest

import rhythm
from rhythm.cli.logs import TextFormatter
from tests.worker.conftest import Shop

TASKS = """
import logging
import rhythm

log = logging.getLogger("shop")

@rhythm.task(retries=1, retry=rhythm.Retry(initial="1ms"))
async def speaks(context: rhythm.TaskContext) -> int:
    context.logger.info("from the context")
    log.info("from the application")
    if context.attempt == 1:
        raise ValueError("not yet, said a \\"test\\"")
    return 1

@rhythm.task
def in_a_thread() -> int:
    log.warning("from a thread")
    return 1

@rhythm.task
async def waits() -> int:
    import asyncio
    await asyncio.sleep(0)
    log.info("after waiting")
    return 1
"""
FLOW = """
workflow(ctx, inputs) {
  console.warn("hello", inputs.n)
  await task("in_a_thread", {})
  await sleep(1)
  throw new RangeError("too far")
}
"""


@pytest.fixture
def speaking(shop: Shop) -> Shop:
    (shop.folder / "shop.py").write_text(TASKS)
    (shop.folder / "workflows" / "speak.flow").write_text(FLOW)
    return shop


async def run_all(shop: Shop) -> dict[str, str]:
    """Runs each once; their ids by name."""
    ids = {}
    for name, inputs in (("speaks", {}), ("waits", {}), ("speak", {"n": 1})):
        execution = await shop.client.start(name, inputs)
        ids[name] = str(execution.id)
        if name == "speak":
            with pytest.raises(rhythm.ExecutionFailed):
                await execution.result(timeout=30)
        else:
            await execution.result(timeout=30)
    return ids


async def test_lines_of_text_begin_with_the_execution_and_name_each_transition(speaking: Shop) -> None:
    worker = speaking.worker("--log-level", "debug")
    ids = await run_all(speaking)
    lines = [line.partition(" rhythm.worker ")[2] for line in worker.output.splitlines()]
    of_task = [line for line in lines if f"execution_id={ids['speaks']} " in line]
    of_workflow = [line for line in lines if line.startswith(f"execution_id={ids['speak']} ")]

    begin = f"execution_id={ids['speaks']} attempt="
    failure = json.dumps('ValueError: not yet, said a "test"')
    assert of_task == [
        f"{begin}1 task=speaks status=running",
        f"{begin}1 task=speaks status=failed type=failed error={failure}",
        f"{begin}2 task=speaks status=running",
        f"{begin}2 task=speaks status=completed",
    ]
    begin = f"execution_id={ids['speak']} attempt=1 workflow=speak status="
    assert of_workflow == [
        f"{begin}suspended line=4",
        f"{begin}suspended line=5",
        f'{begin}failed error="RangeError: too far"',
    ]
    assert re.search(rf"WARNING rhythm\.workflow\.speak execution_id={ids['speak']} attempt=1 hello 1", worker.output)
    assert re.search(rf"INFO shop execution_id={ids['speaks']} attempt=2 from the application", worker.output)


async def test_records_in_json_carry_the_execution_as_keys(speaking: Shop) -> None:
    worker = speaking.worker("--log-format", "json")
    ids = await run_all(speaking)
    records: list[dict[str, Any]] = [json.loads(line) for line in worker.output.splitlines()]
    said = {(r["logger"], r["message"]): (r.get("execution_id"), r.get("attempt")) for r in records}

    assert said["rhythm.task.speaks", "from the context"] == (ids["speaks"], 2)
    assert said["shop", "from the application"] == (ids["speaks"], 2)
    assert said["shop", "after waiting"] == (ids["waits"], 1)
    assert said["rhythm.workflow.speak", "hello 1"] == (ids["speak"], 1)
    (thread,) = [r for r in records if r["message"] == "from a thread"]
    (parent,) = await speaking.query(
        "select parent_id from rhythm.executions where id::text = $1", thread["execution_id"]
    )
    assert str(parent["parent_id"]) == ids["speak"]
    failed = [r for r in records if "status=failed" in r["message"]]
    assert [(r["execution_id"], r["attempt"]) for r in failed] == [(ids["speaks"], 1), (ids["speak"], 1)]
    assert {r["level"] for r in records} == {"info", "warning"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", r["time"]) for r in records)


async def test_an_error_of_any_length_is_one_short_line(speaking: Shop) -> None:
    worker = speaking.worker()
    (speaking.folder / "long.flow").write_text('workflow(ctx, inputs) { throw new Error("x\\n".repeat(5000)) }\n')
    await speaking.client.publish(speaking.folder / "long.flow")
    execution = await speaking.client.start("long")
    with pytest.raises(rhythm.ExecutionFailed):
        await execution.result(timeout=30)
    (line,) = [line for line in worker.output.splitlines() if str(execution.id) in line]

    assert "status=failed" in line
    assert len(line) < 2_000


def test_no_text_passes_for_a_line_of_the_worker_or_commands_a_terminal() -> None:
    record = logging.LogRecord(
        "rhythm.workflow.w", logging.INFO, "", 0, "%s", ("a\n2026 INFO x\x1b[2J\u202e\ud800",), None
    )
    record.execution_id = "7"

    text = TextFormatter().format(record)

    assert text.endswith("execution_id=7 a\n    2026 INFO x\\x1b[2J\\u202e\\ud800")
