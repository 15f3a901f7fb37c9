"""The log of an execution, from a workflow's console to all who read it; docs/logs.md says what it looks like."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import rhythm
from rhythm.errors import InvalidInput
from rhythm.tasks import REGISTRY
from rhythm.testing import evaluate
from tests.support.commands import Rhythm
from tests.support.processes import Processes

PAGE = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()
(ORDER,) = re.findall(r"^```javascript\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SHOWN = re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  (\w+) +(.*)$", PAGE, re.MULTILINE)
INPUTS = {"orderId": "o-1", "items": [1, 2]}
ODD = """
workflow(ctx) {
  console.debug("\\u001b[31m\\u202e")
  console.log("\\ud800", "a\\u0000b", { half: "\\udc00" })
  Promise.reject(new RangeError("nobody looks"))
  console.log("two\\nlines")
  console.error(await signal("go"))
  return "done"
}
"""


@asynccontextmanager
async def served(url: str, folder: Path, **flows: str) -> AsyncIterator[rhythm.Client]:
    """A client, and a worker in this process that runs these workflows."""

    @rhythm.task(name="chargeCard")
    async def charge_card(orderId: str) -> Any:
        return {"ok": False, "code": "insufficient_funds"}

    for name, source in flows.items():
        (folder / f"{name}.flow").write_text(source)
    async with rhythm.connect(url) as client:
        await client.publish(folder)
        async with rhythm.Worker(database_url=url, tasks=[charge_card], poll_interval="100ms"):
            yield client
    REGISTRY.remove("chargeCard")


async def test_everybody_reads_the_same_lines(rhythm_db: Rhythm, rhythm_url: str) -> None:
    async with served(rhythm_url, rhythm_db.folder, order=ORDER) as client:
        execution = await client.start("order", INPUTS)
        assert await execution.result(timeout=30) is False
        lines = await execution.logs()
        (warning,) = await client.logs(str(execution.id), level="warn")
        with pytest.raises(InvalidInput, match="debug, info, warn, error"):
            await client.logs(execution.id, level="warning")
        refused = [client.logs(execution.id, after=-1), client.logs(execution.id, newest=0)]
        for call in refused:
            with pytest.raises(InvalidInput):
                await call
    blocking = rhythm.connect_sync(rhythm_url)
    with blocking:
        again = await asyncio.to_thread(lambda: blocking.execution(execution.id).logs(after=1))
        newest = await asyncio.to_thread(lambda: blocking.logs(execution.id, newest=1))
    printed = await asyncio.to_thread(rhythm_db, "logs", str(execution.id), code=0)
    as_json = (await asyncio.to_thread(rhythm_db, "logs", str(execution.id), "--json", code=0)).json_lines
    shown = await asyncio.to_thread(rhythm_db, "show", str(execution.id), code=0)
    shown_json = (await asyncio.to_thread(rhythm_db, "show", str(execution.id), "--json", code=0)).json
    followed = await asyncio.to_thread(rhythm_db, "logs", str(execution.id), "--follow", "--level", "warn", code=0)

    said = [(level, text.strip()) for level, text in SHOWN]
    assert said == [(line.level, line.text) for line in lines]
    assert [1, 2] == [line.number for line in lines]
    assert lines[1:] == [warning] == again == newest
    assert said == re.findall(r"^[\d-]+ [\d:]+  (\w+) +(.*)$", printed.out, re.MULTILINE)
    assert ("", 1) == (followed.err, len(followed.out.splitlines()))
    assert [line.text for line in lines] == [entry["text"] for entry in as_json]
    assert {"number", "level", "at", "text"} == set(as_json[0])
    assert as_json == shown_json["log"]
    assert "\nlog:\n  " in shown.out
    assert all(text in shown.out for _, text in said)
    outcome = evaluate(ORDER, INPUTS, {"chargeCard": lambda **_: {"ok": False, "code": "insufficient_funds"}})
    assert said == list(outcome.logs)


async def test_following_ends_with_the_execution(rhythm_db: Rhythm, rhythm_url: str, processes: Processes) -> None:
    async with served(rhythm_url, rhythm_db.folder, odd=ODD) as client:
        execution = await client.start("odd")
        command = ("logs", str(execution.id), "--follow")
        following = processes.rhythm(*command, cwd=rhythm_db.folder, env=rhythm_db.env)
        await asyncio.to_thread(following.wait_for_output, "lines")
        await execution.signal("go", {"by": "ann"})
        code = await asyncio.to_thread(following.wait)
        lines = await execution.logs()

    texts = [line.text for line in lines]
    assert ["\x1b[31m\u202e", "\ud800 a\0b { half: '\\udc00' }"] == texts[:2]
    assert texts[3].startswith("Unhandled rejection: RangeError: nobody looks\n    at workflow (odd.flow:5:")
    assert ["two\nlines", "{ by: 'ann' }"] == [texts[2], texts[4]]
    assert ["debug", "info", "info", "warn", "error"] == [line.level for line in lines]
    assert 0 == code
    assert r"debug  \x1b[31m\u202e" in following.output
    assert r"info   \ud800 a\x00b { half: '\udc00' }" in following.output
    assert "info   two\nlines\n" in following.output
    assert "error  { by: 'ann' }" in following.output
    assert "\x1b" not in following.output


def test_wrong_levels_unknown_executions_and_tasks(rhythm_db: Rhythm) -> None:
    unknown = "0192f0c1-7e3a-7c55-9a55-2f8c54e0a1b2"
    task = rhythm_db("start", "charge", code=0).out.strip()

    assert (
        "--level loud: the levels are debug, info, warn, error"
        in rhythm_db("logs", task, "--level", "loud", code=2).err
    )
    assert unknown in rhythm_db("logs", unknown, code=2).err
    assert unknown in rhythm_db("logs", unknown, "--follow", code=2).err
    nothing = rhythm_db("logs", task, code=0)
    assert ("", "no lines; what tasks log is in the log of their worker\n") == (nothing.out, nothing.err)


def test_eval_prints_lines_to_standard_error(rhythm: Rhythm) -> None:
    rhythm.write("odd.flow", 'workflow() { console.warn("%s is %d", "n", 1); console.log("\\ud800"); return 1 }')
    result = rhythm("eval", "odd.flow", "--json", code=0)

    assert ('{"result":1}\n', "warn: n is 1\ninfo: \\ud800\n") == (result.out, result.err)
