"""The tasks of the suite, in Python (see the README there)."""

import asyncio
import os
import signal
import time
from typing import Annotated, Any

import asyncpg
from pydantic import Field

import rhythm


class CardDeclined(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.data = {"code": 51}


class ValueProblem(Exception):
    pass


QUEUE = os.environ.get("CONFORMANCE_QUEUE", "conformance")
SOON = rhythm.Retry(initial="10ms")


async def called(context: rhythm.TaskContext) -> None:
    connection = await asyncpg.connect(os.environ["CONFORMANCE_URL"])
    await connection.execute("insert into conformance_calls values ($1, $2)", context.execution_id, context.attempt)
    await connection.close()


@rhythm.task(queue=QUEUE)
async def echo(value: Any) -> Any:
    return value


@rhythm.task(queue=QUEUE)
async def context(context: rhythm.TaskContext) -> dict[str, Any]:
    return {
        "attempt": context.attempt,
        "name": context.name,
        "parent": context.parent_id is not None,
        "idempotencyKey": context.idempotency_key,
    }


@rhythm.task(queue=QUEUE, retries=2, retry=SOON)
async def flaky(fails: int, context: rhythm.TaskContext) -> int:
    if context.attempt <= fails:
        raise CardDeclined("declined")
    return context.attempt


@rhythm.task(queue=QUEUE, retries=3, retry=rhythm.Retry(initial="10ms", no_retry_on=(ValueProblem,)))
async def picky(kind: str) -> None:
    raise {"CardDeclined": CardDeclined, "ValueProblem": ValueProblem}.get(kind, rhythm.TaskNotRetryable)("no")


@rhythm.task(queue=QUEUE, retries=1, retry=rhythm.Retry(initial="60s"))
async def later(context: rhythm.TaskContext) -> int:
    if context.attempt == 1:
        raise rhythm.TaskRetryAfter("not yet", seconds=0.05)
    return context.attempt


@rhythm.task(queue=QUEUE, retries=3, retry=SOON)
async def bad(kind: str) -> Any:
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    return {
        "nan": float("nan"),
        "infinity": float("inf"),
        "binary": b"\x00",
        "deep": deep,
        "large": "x" * (2 << 20),
    }[kind]


@rhythm.task(queue=QUEUE, retries=3, retry=SOON)
async def strict(count: Annotated[int, Field(ge=1)], label: str | None = None) -> dict[str, Any]:
    return {"count": count, "label": label}


@rhythm.task(queue=QUEUE)
async def hang(context: rhythm.TaskContext) -> None:
    await called(context)
    await asyncio.Event().wait()


@rhythm.task(queue=QUEUE)
async def steps(context: rhythm.TaskContext) -> None:
    context.progress({"done": 1, "of": 3})
    context.progress({"done": 2, "of": 3})
    await asyncio.Event().wait()


@rhythm.task(queue=QUEUE)
async def stubborn(context: rhythm.TaskContext) -> str:
    await called(context)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "done"
    return "never"


@rhythm.task(queue=QUEUE, timeout="200ms")
async def limited(context: rhythm.TaskContext) -> None:
    await called(context)
    await asyncio.Event().wait()


@rhythm.task(queue=QUEUE)
async def slow(seconds: float, context: rhythm.TaskContext) -> int:
    await called(context)
    await asyncio.sleep(seconds)
    return context.attempt


@rhythm.task(queue=QUEUE)
async def busy(seconds: float, context: rhythm.TaskContext) -> int:
    await called(context)
    time.sleep(seconds)  # noqa: ASYNC251  (that is what it is for)
    return context.attempt


@rhythm.task(queue=QUEUE)
async def poison(context: rhythm.TaskContext) -> None:
    await called(context)
    os.kill(os.getpid(), signal.SIGKILL)
