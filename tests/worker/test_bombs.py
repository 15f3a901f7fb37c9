"""Bombs in a real worker: each ends with its error, and the same process goes on, its heartbeat and others with it.

What each kind of bomb ends with is in tests/language/test_limits.py; here are some of each kind, those that only the
watchdog ends, and a block that nothing can end.
"""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import psutil
import pytest

import rhythm
from rhythm.engine import Limits
from tests.worker.conftest import Shop

MIB = 1 << 20
TOO_LONG = "the workflow ran too long without an await that waits"
TOO_MUCH = "the workflow (took more memory than an activation may|ran too long)"  # a busy machine gives no memory
#: Body of a workflow -> the error it must end with, a pattern, or its output.
BOMBS = {
    "for (;;) {}": f"LimitError: {TOO_LONG}",
    "for (;;) await null": f"LimitError: {TOO_LONG}",
    "const s = 'x'.repeat(2 ** 26), k = []; for (;;) k.push(s.slice(k.length))": f"LimitError: {TOO_MUCH}",
    "const k = []; for (;;) k.push('\\u0100'.repeat(2 ** 24).split(''))": f"LimitError: {TOO_MUCH}",
    "const s = 'x'.repeat(2 ** 24), k = Array(2 ** 20).fill(s); await task('plain', { i: 1 }); return k.length": (
        "LimitError: the snapshot is over the limit"
    ),
    "throw new Error('x'.repeat(2 ** 26))": "Error: xxx",
    "const f = (a, b) => [2, 1].sort(f).length; [1, 2].sort(f)": "RangeError: Maximum call stack size exceeded",
    "let p = task('plain', { i: 4 }); for (let i = 0; i < 500; i++) p = p.then(x => x); return await p": 8,
    "for (let i = 0; i < 2000; i++) Promise.reject(new Error(`${i}`)); console.log('x'.repeat(2 ** 20)); return 1": 1,
    "for (;;) task('plain', { i: 1, x: 'x'.repeat(2 ** 19) })": "LimitError: the inputs of what this activation starts",
}
BYSTANDER = """
workflow(ctx, inputs) {
  let sum = 0
  for (let i = 0; i < 20; i++) sum += await task("plain", { i })
  return sum
}
"""


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had; what it has now where the system does not say."""
    path = Path(f"/proc/{pid}/status")
    if not path.exists():
        return psutil.Process(pid).memory_info().rss
    status = path.read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10


async def test_a_worker_survives_every_bomb_and_disturbs_nobody(shop: Shop) -> None:
    for number, body in enumerate(BOMBS):
        (shop.folder / "workflows" / f"bomb{number}.flow").write_text(f"workflow(ctx, inputs) {{ {body} }}")
    (shop.folder / "workflows" / "bystander.flow").write_text(BYSTANDER)
    await shop.client.publish(shop.folder / "workflows")
    # a third of the default: with two seconds a slow machine that is busy with other things ends the incarnation itself
    worker = shop.worker("--heartbeat-timeout", "10s")
    worker.wait_for_output("ready")
    assert await (await shop.client.start("bystander")).result(timeout=20) == 380
    before = await shop.query("select incarnation, pid, seen_at from rhythm.workers")
    memory = peak_bytes(worker.pid)

    bystanders = [await shop.client.start("bystander") for _ in range(3)]
    bombs = [await shop.client.start(f"bomb{number}") for number in range(len(BOMBS))]
    expected = await shop.start_orders(5)
    for bomb, end in zip(bombs, BOMBS.values(), strict=True):
        if isinstance(end, int):
            assert await bomb.result(timeout=60) == end
            continue
        with pytest.raises(rhythm.ExecutionFailed) as failed:
            await bomb.result(timeout=60)
        assert re.match(end, f"{failed.value.name}: {failed.value.remote_message}")
        assert (await bomb.refresh()).lost == 0

    for bystander in bystanders:
        assert await bystander.result(timeout=30) == 380
        assert (await bystander.refresh()).lost == 0
    await shop.check(expected)
    beaten = "select from rhythm.workers where seen_at > $1"
    await shop.until(lambda: shop.query(beaten, before[0]["seen_at"]), "it has been heard of since")
    after = await shop.query("select incarnation, pid from rhythm.workers")
    assert [(row["incarnation"], row["pid"]) for row in after] == [(before[0]["incarnation"], worker.pid)]
    assert worker.alive
    # The limit, what one call of C may add to it, and what one look at the memory may miss.
    assert peak_bytes(worker.pid) - memory < Limits().memory_bytes_max + 256 * MIB


BLOCK = """
import os, time
import rhythm.language.builtins
from rhythm.language.values import METHODS

def block(text, *_):
    time.sleep(3600)  # in C: no exception arrives

if os.environ.get("SHOP_BLOCKS"):
    METHODS[str]["normalize"] = block
"""


async def test_a_process_that_nothing_can_interrupt_ends_and_lost_names_the_culprit(shop: Shop) -> None:
    (shop.folder / "blocking.py").write_text(f"import shop\n{BLOCK}")
    (shop.folder / "workflows" / "stuck.flow").write_text("workflow(ctx, inputs) { return 'x'.normalize() }")
    await shop.client.publish(shop.folder / "workflows")
    worker = shop.processes.worker(
        shop.url,
        *("--heartbeat-timeout", "2s", "--poll-interval", "200ms"),
        app=["blocking"],
        workflows=["workflows"],
        cwd=shop.folder,
        env={"SHOP_URL": shop.url, "SHOP_BLOCKS": "1"},
    )
    worker.wait_for_output("ready")
    stuck = await shop.client.start("stuck", {})
    began = time.monotonic()
    while worker.alive:
        assert time.monotonic() - began < 30, worker.output
        await asyncio.sleep(0.05)
    took = time.monotonic() - began

    shop.worker()
    assert await stuck.result(timeout=30) == "x"
    assert (await stuck.refresh()).lost == 1
    assert "an activation cannot be interrupted" in worker.output
    assert 5 < took
