"""`rhythm show --snapshot`: the stored state of a workflow as one JSON value, also after an end that keeps it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest

import rhythm
from tests.support.commands import Rhythm

WAITS = """
workflow(ctx, inputs) {
  const name = "\\u00e9\\u202e", order = { name, tags: ["a"] }
  const answer = await signal("go")
  if (answer === "break") { const key = "constructor"; return order[key] }
  return { order, answer }
}
"""
DEADLINE_SECONDS = 30
UNKNOWN = "0192f0c1-7e3a-7c55-9a55-2f8c54e0a1b2"


async def start_all(url: str, folder: Path) -> list[str]:
    """Starts three workflows and a task, which nobody runs."""
    async with rhythm.connect(url) as client:
        await client.publish(folder)
        names = ["waits", "waits", "waits", "charge"]
        return [str(id_) for id_ in await client.start_many([rhythm.Start(name) for name in names])]


async def run_all(url: str, waiting: str, broken: str, ended: str) -> None:
    """Runs three executions: one waits for its signal, one ends by an unsupported construct, one completes."""
    async with (
        rhythm.connect(url) as client,
        rhythm.Worker(database_url=url, tasks=[], poll_interval="100ms"),
        asyncio.timeout(DEADLINE_SECONDS),
    ):
        for execution_id in (waiting, broken, ended):
            while (await client.get(execution_id)).status != "suspended":  # noqa: ASYNC110 - nothing says so by itself
                await asyncio.sleep(0.02)
        await client.signal(broken, "go", "break")
        await client.signal(ended, "go", "end")
        with pytest.raises(rhythm.ExecutionFailed, match="constructor"):
            await client.wait(broken)
        await client.wait(ended)


async def damage(url: str, execution_id: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("update rhythm.snapshots set snapshot = '\\x90' where id = $1", execution_id)
    await connection.close()


def test_the_stored_state_is_one_json_value(rhythm_db: Rhythm, rhythm_url: str) -> None:
    rhythm_db.write("flows/waits.flow", WAITS)
    waiting, broken, ended, task = asyncio.run(start_all(rhythm_url, rhythm_db.folder / "flows"))
    pending = rhythm_db("show", "--snapshot", waiting, code=1)

    asyncio.run(run_all(rhythm_url, waiting, broken, ended))
    suspended = rhythm_db("show", waiting, "--snapshot", code=0)
    state = rhythm_db("show", "--snapshot", waiting, "--json", code=0).json
    kept = rhythm_db("show", "--snapshot", broken, "--json", code=0).json
    completed = rhythm_db("show", "--snapshot", ended, code=1)
    of_task = rhythm_db("show", "--snapshot", task, code=1)
    asyncio.run(damage(rhythm_url, waiting))
    damaged = rhythm_db("show", "--snapshot", waiting, code=1)
    damaged_plainly = rhythm_db("show", waiting, code=0)

    assert state == json.loads(suspended.out)
    assert r'"name": "é\u202e"' in suspended.out
    assert len(suspended.out.splitlines()) > 20
    (frame,) = [entry for entry in state["heap"] if entry["kind"] == "frame"]
    assert {"name": "é\u202e", "tags": ["a"]} == frame["variables"]["order"]
    assert ("waits.flow:4:18", 'signal("go")') == (frame["at"], frame["awaits"])
    assert ("waits", [("signal", "go")]) == (kept["workflow"], [(o["kind"], o["name"]) for o in kept["operations"]])
    assert f"execution {waiting} has no snapshot: it has not come to an await yet\n" == pending.err
    assert "it is completed, and only what ended by a limit or by lost workers keeps one" in completed.err
    assert "it is a task" in of_task.err
    assert "" == pending.out + completed.out + of_task.out + damaged.out
    assert "rhythm: the snapshot is damaged" in damaged.err
    assert "Where it stands cannot be shown: the snapshot is damaged" in damaged_plainly.err
    assert f"id          {waiting}" in damaged_plainly.out
    assert UNKNOWN in rhythm_db("show", "--snapshot", UNKNOWN, code=2).err
