"""`rhythm worker` as a process: from the files to the output, where a workflow stands, and how it ends."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import pytest

from tests.support.commands import Rhythm
from tests.support.processes import Process, Processes

TASKS = """\
import asyncio
import rhythm

@rhythm.task(queue="orders")
async def charge(amount: float) -> dict:
    if amount < 0:
        raise ValueError("negative amount")
    return {"charged": amount}

@rhythm.task
def reserve(items: list) -> int:
    return len(items)
"""
FLOW = """\
workflow(ctx, inputs) {
  let total = inputs.amount * 2
  let paid = await task("charge", { amount: total })
  let answer = await signal("approval")
  return { paid, total, approved: answer.approved }
}
"""


@pytest.fixture
def shop(rhythm_db: Rhythm) -> Rhythm:
    rhythm_db.write("shop.py", TASKS)
    rhythm_db.write("workflows/order.flow", FLOW)
    return rhythm_db


def start_worker(shop: Rhythm, processes: Processes, *arguments: str) -> Process:
    worker = processes.rhythm("worker", "--app", "shop", *arguments, cwd=shop.folder, env=shop.env)
    worker.wait_for_output("ready")
    return worker


def test_show_says_what_the_awaited_task_is_doing(shop: Rhythm, processes: Processes) -> None:
    shop.write(
        "shop.py",
        TASKS
        + """
@rhythm.task(retries=5, retry=rhythm.Retry(initial="1h", jitter=0))
async def flaky():
    raise ConnectionError("the gateway answered 503")
""",
    )
    shop.write("workflows/two.flow", 'workflow() { await Promise.all([task("flaky"), task("nobodyHasIt")]) }')
    start_worker(shop, processes)
    started = shop("start", "two", code=0).out.strip()

    def known() -> dict[str, Any]:
        shown = shop("show", started, "--json", code=0).json
        entries = shown["standing"]["awaiting"] if shown["standing"] else []
        return {entry["name"]: entry for entry in entries if entry.get("reason") in ("retry", "unknown task")}

    for _ in range(60):
        if len(waited := known()) == 2:
            break
    text = shop("show", started, code=0).out

    assert waited["flaky"]["attempts"] == 1
    assert waited["flaky"]["last_failure"]["message"] == "the gateway answered 503"
    assert waited["nobodyHasIt"]["status"] == "pending"
    assert "pending (retry) after 1 attempt, until" in text
    assert "last failure: ConnectionError: the gateway answered 503" in text
    assert "pending (unknown task)" in text


def test_from_files_to_output_with_a_look_at_where_it_stands(shop: Rhythm, processes: Processes) -> None:
    worker = start_worker(shop, processes)
    started = shop("start", "order", "--inputs", '{"amount": 10}', code=0).out.strip()
    shown = wait_until_awaiting(shop, started, "approval")

    (frame,) = shown["standing"]["frames"]
    assert (shown["status"], shown["standing"]["file"]) == ("suspended", "order.flow")
    assert (frame["line"], frame["source"]) == (4, 'let answer = await signal("approval")')
    assert frame["variables"]["total"] == 20
    assert frame["variables"]["paid"] == {"charged": 20}
    text = shop("show", started, code=0).out
    assert re.search(r"at order\.flow:4:\d+", text)
    assert '  4 |   let answer = await signal("approval")' in text
    assert re.search(r"awaits signal approval since \d{4}-", text)
    assert re.search(r"^  total = 20$", text, re.MULTILINE)
    shop("signal", started, "approval", '{"approved": true}', code=0)
    assert shop("wait", started, "--timeout", "20s", "--json", code=0).json == {
        "paid": {"charged": 20},
        "total": 20,
        "approved": True,
    }
    assert shop("workers", "--json", code=0).json["tasks"] == ["charge", "reserve"]
    worker.terminate()
    assert worker.wait() == 0
    assert shop("workers", "--json", code=0).out == ""


def wait_until_awaiting(shop: Rhythm, execution_id: str, name: str) -> dict:
    """Asks until the workflow is suspended at an operation of this name."""
    for _ in range(60):
        shown = shop("show", execution_id, "--json", code=0).json
        operations = (shown["standing"] or {}).get("awaiting", [])
        if shown["status"] == "suspended" and any(operation["name"] == name for operation in operations):
            return shown
    raise AssertionError(shown)


def test_a_failed_execution_is_exit_code_one_with_its_error(shop: Rhythm, processes: Processes) -> None:
    start_worker(shop, processes)

    result = shop("start", "charge", "--inputs", '{"amount": -1}', "--wait", "--timeout", "20s", code=None)

    assert result.code == 1
    assert result.out == ""
    assert "ValueError: negative amount" in result.err
    assert 'raise ValueError("negative amount")' in result.err


def test_inputs_that_do_not_fit_name_the_parameter(shop: Rhythm, processes: Processes) -> None:
    start_worker(shop, processes)

    result = shop("start", "charge", "--inputs", '{"amuont": 1}', "--wait", "--timeout", "20s", code=None)

    assert result.code == 1
    assert "amuont" in result.err
    assert "amount" in result.err


def test_a_workflow_with_an_error_stops_the_worker_before_it_starts(shop: Rhythm) -> None:
    shop.write("workflows/order.flow", FLOW.replace("await signal", "await singal"))

    result = shop("worker", "--app", "shop", code=1)

    assert "workflows/order.flow:4:" in result.err
    assert "singal" in result.err


def test_several_processes_end_together_and_a_killed_one_is_replaced(shop: Rhythm, processes: Processes) -> None:
    parent = start_worker(shop, processes, "--processes", "2", "--heartbeat-timeout", "2s")
    first, second = (worker["pid"] for worker in wait_for_workers(shop, 2))

    os.kill(first, signal.SIGKILL)
    parent.wait_for_output(f"worker process {first} was killed by signal 9; starting another")
    again = {worker["pid"] for worker in wait_for_workers(shop, 2, without=first)}
    parent.terminate()

    assert second in again
    assert parent.wait() == 0
    assert shop("workers", "--json", code=0).out == ""


def wait_for_workers(shop: Rhythm, count: int, without: int = 0) -> list[dict]:
    for _ in range(60):
        found = shop("workers", "--json", code=0).json_lines
        if len(found) == count and without not in [worker["pid"] for worker in found]:
            return found
    raise AssertionError(found)


def test_a_paused_queue_is_shown_and_worked_on_again_when_resumed(shop: Rhythm, processes: Processes) -> None:
    worker = start_worker(shop, processes)
    assert "there is no queue 'ordres'; the queues are default, orders" in shop("queues", "pause", "ordres", code=2).err
    shop("queues", "pause", "orders", code=0)
    started = shop("start", "charge", "--inputs", '{"amount": 1}', code=0).out.strip()
    other = shop("start", "reserve", "--inputs", '{"items": []}', "--wait", "--timeout", "20s", "--json", code=0)

    queues = {queue["queue"]: queue for queue in shop("queues", "--json", code=0).json_lines}
    assert other.json == 0
    assert (queues["orders"]["paused"], queues["orders"]["pending"]) == (True, 1)
    assert queues["default"]["finished_per_minute"] == 1
    assert re.search(r"^orders \(paused\) +1 +0 +0 +0 +\d", shop("queues", code=0).out, re.MULTILINE)
    shop("queues", "resume", "orders", code=0)
    assert shop("wait", started, "--timeout", "20s", "--json", code=0).json == {"charged": 1}
    worker.terminate()


def test_limits_from_the_configuration_and_what_waits_for_them(shop: Rhythm, processes: Processes) -> None:
    shop.write("rhythm.toml", "[queue.orders]\nconcurrency = 1\n")
    worker = start_worker(shop, processes)
    worker.terminate()
    worker.wait()
    ids = [shop("start", "charge", "--inputs", '{"amount": 1}', code=0).out.strip() for _ in range(2)]
    (orders,) = [queue for queue in shop("queues", "--json", code=0).json_lines if queue["queue"] == "orders"]
    free = shop("show", ids[1], code=0).out
    listed = shop("list", code=0).out
    shop("queues", "limit", "orders", "--rate", "1/1h", code=0)
    shop.write("rhythm.toml", "")
    worker = start_worker(shop, processes)
    shop("wait", ids[0], "--timeout", "20s", code=0)
    late = shop("show", ids[1], code=0).out

    assert (1, 2, 2) == (orders["concurrency"], orders["pending"], orders["gated"])
    assert "pending (waiting for a place: there is room for it as soon as it is its turn and a worker takes it)" in free
    assert "pending (waiting for a place)" in listed
    assert re.search(r"waiting for a place: queue orders starts 1/1h, the next one at \d", late)
    worker.terminate()


def test_two_registrations_of_a_task_are_warned_of(shop: Rhythm, processes: Processes) -> None:
    start_worker(shop, processes)
    assert shop("workers", code=0).err == ""
    shop.write("other.py", TASKS.replace("@rhythm.task\n", "@rhythm.task(retries=3)\n"))
    second = processes.rhythm("worker", "--app", "other", cwd=shop.folder, env=shop.env)
    second.wait_for_output("worker ready")

    assert "registered it differently" in second.output
    warning = shop("workers", code=0).err
    assert "warning: live workers have registered the task 'reserve' differently" in warning
    assert f":{second.pid}" in warning
    assert "charge" not in warning
    assert {tuple(worker["conflicts"]) for worker in shop("workers", "--json", code=0).json_lines} == {("reserve",)}
