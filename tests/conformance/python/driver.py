"""The client of the suite, in Python: one JSON object per line in, one out (see the README there)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import uuid
from typing import Any

import asyncpg

import rhythm


def snake(name: str) -> str:
    return re.sub("[A-Z]", lambda found: "_" + found[0].lower(), name)


def start_of(entry: dict[str, Any]) -> rhythm.Start:
    options = {snake(key): value for key, value in entry.items() if key not in ("name", "inputs", "special")}
    if "retry" in options:
        options["retry"] = rhythm.Retry(
            **{snake(k): tuple(v) if isinstance(v, list) else v for k, v in options["retry"].items()}
        )
    if "id" in options:
        options["id"] = uuid.UUID(options["id"])
    inputs = entry.get("inputs")
    if "special" in entry:
        deep: list[Any] = []
        for _ in range(2000):
            deep = [deep]
        special = {"nan": float("nan"), "binary": b"\x00", "deep": deep, "large": "x" * (2 << 20)}
        inputs = {"value": special[entry["special"]]}
    return rhythm.Start(entry["name"], inputs, **options)


def options_of(start: rhythm.Start) -> dict[str, Any]:
    names = [name for name in rhythm.Start.__struct_fields__ if name not in ("name", "inputs")]
    empty = rhythm.Start("x")
    return {name: getattr(start, name) for name in names if getattr(start, name) != getattr(empty, name)}


def told(execution: rhythm.Execution[Any]) -> dict[str, Any]:
    info = execution.info
    assert info is not None, "get() fills it in"
    failure = None if info.last_failure is None else json.loads(info.last_failure)
    return {
        "id": str(info.id), "kind": info.kind, "name": info.name, "status": info.status, "reason": info.reason,
        "queue": info.queue, "priority": info.priority, "key": info.key, "tags": info.tags, "inputs": execution.inputs,
        "output": execution.output, "error": execution.error, "attempts": info.attempts, "lost": info.lost,
        "parentId": None if info.parent_id is None else str(info.parent_id), "lastFailure": failure,
        "limitKey": info.limit_key, "progress": execution.progress,
    }  # fmt: skip


async def answer(client: rhythm.Client, order: dict[str, Any]) -> Any:
    match order["op"]:
        case "start":
            start = start_of(order["start"])
            return str((await client.start(start.name, start.inputs, **options_of(start))).id)
        case "start_many":
            return [str(id_) for id_ in await client.start_many([start_of(entry) for entry in order["starts"]])]
        case "transaction":
            connection = await asyncpg.connect(os.environ["CONFORMANCE_URL"])
            transaction = connection.transaction()
            await transaction.start()
            ids = await client.start_many([start_of(entry) for entry in order["starts"]], connection=connection)
            await (transaction.commit() if order["end"] == "commit" else transaction.rollback())
            await connection.close()
            return [str(id_) for id_ in ids]
        case "result":
            return await client.wait(order["id"], timeout=order.get("timeout"))
        case "get":
            return told(await client.get(order["id"]))
        case "list":
            options = {snake(key): value for key, value in order["options"].items()}
            return [str(execution.id) for execution in await client.list(**options)]
        case "signal":
            return await client.signal(order["id"], order["name"], order.get("payload"))
        case "cancel":
            return await client.cancel(order["id"], force=order.get("force", False))
        case "retry":
            return str((await client.retry(order["id"], from_start=order.get("from_start", False))).id)
    raise AssertionError(f"no operation {order['op']!r}")


async def main() -> None:
    async with rhythm.connect(os.environ["CONFORMANCE_URL"]) as client:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                said: dict[str, Any] = {"value": await answer(client, json.loads(line))}
            except rhythm.RhythmError as error:
                said = {"error": {"name": type(error).__name__, "code": getattr(error, "code", None)}}
                if isinstance(error, rhythm.ExecutionFailed):
                    said["error"]["failure"] = error.payload
            print(json.dumps(said), flush=True)


asyncio.run(main())
