"""What users' type checkers see: decorated tasks keep their signatures, starts know their results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CODE = """\
import rhythm
from dataclasses import dataclass
from typing_extensions import assert_type
from collections.abc import Coroutine
from typing import Any


@dataclass
class Receipt:
    number: str


@rhythm.task
async def bare(orderId: str, amount: float) -> Receipt:
    return Receipt(orderId)


@rhythm.task(queue="orders", retries=3, timeout="30s", retry=rhythm.Retry(initial="1s"))
async def charge(orderId: str, amount: float = 1.0) -> Receipt:
    return Receipt(orderId)


@rhythm.task(queue="orders")
def count(context: rhythm.TaskContext, items: list[str]) -> int:
    context.heartbeat()
    return len(items)


async def plain_calls() -> None:
    assert_type(await bare("o", 1.0), Receipt)
    called = charge("o")
    called = assert_type(called, Coroutine[Any, Any, Receipt])
    await called
    assert_type(count(rhythm.TaskContext(), ["a"]), int)
    await bare(orderId="o")  # error: Missing positional argument "amount"
    await charge(1)  # error: incompatible type "int"; expected "str"
    count(rhythm.TaskContext(), [1])  # error: List item 0 has incompatible type "int"


async def starts() -> None:
    async with rhythm.connect() as client:
        execution = await client.start(charge, {"orderId": "o", "amount": 1.0}, key="k", delay="5s")
        assert_type(execution, rhythm.Execution[Receipt])
        assert_type(await execution.result(timeout="1m"), Receipt)
        assert_type(await (await client.start(count, {"items": []})).result(), int)
        assert_type(await (await client.start("processOrder", {})).result(), Any)
        await client.start(charge, {}, priorty=1)  # error: No overload variant
        await client.start(charge, {}, retries="three")  # error: No overload variant


def blocking() -> None:
    with rhythm.connect_sync() as client:
        assert_type(client.start(charge, {}).result(), Receipt)
        assert_type(client.start(count, {}).result(), int)
        assert_type(client.start("processOrder").result(), Any)
        for found in client.list(status=["failed"]):
            assert_type(found.status, str)
        client.list(state="failed")  # error: Unexpected keyword argument "state"


def worker() -> rhythm.Worker:
    return rhythm.Worker(tasks=[bare, charge, count], queues=["orders"])
"""


def test_a_type_checker_sees_what_was_promised(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(CODE)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "shop.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    expected = {n: m[1] for n, line in enumerate(CODE.splitlines(), 1) if (m := re.search(r"# error: (.*)", line))}
    found = [(int(m[1]), m[2]) for m in re.finditer(r"^shop\.py:(\d+): error: (.*)$", result.stdout, re.M)]

    assert expected.keys() == {number for number, _ in found}, result.stdout + result.stderr
    for number, text in expected.items():
        assert any(text in said for line, said in found if line == number), text
