"""Cancelling: before the beginning, in the middle, and what a workflow may do about it."""

from __future__ import annotations

import pytest

import rhythm
from tests.worker.conftest import Shop

SAGA = """
workflow(ctx, inputs) {
  try {
    await task("book", { order: "c", step: "charge" })
    await signal("go")
  } catch (error) {
    await task("book", { order: "c", step: "refund" })
    if (inputs.swallow) return [error.name, ctx.cancelled]
    throw error
  }
}
"""


TASKS = """
import asyncio, time
import rhythm
from shop import pool

async def note(mark: str, step: str) -> None:
    await (await pool()).execute("insert into ledger (key, order_id, step) values ($1 || $2, $1, $2)", mark, step)

@rhythm.task(retries=5)
async def charge(mark: str, stops: str) -> str:
    await note(mark, "begun")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        if stops == "confirms":
            raise
        if stops == "fails":
            raise ValueError("half of it was done")
    return "charged"

@rhythm.task
def threaded(context: rhythm.TaskContext, mark: str) -> str:
    asyncio.run(note(mark, "begun"))
    for _ in range(3000):
        time.sleep(0.01)
        context.heartbeat()
    return "never"
"""
CALLS = """
workflow(ctx, inputs) {
  try {
    return await task(inputs.task, inputs.inputs, inputs.options)
  } catch (error) {
    if (inputs.rethrow) throw error
    return [error.name, error.type ?? null, error.task, ctx.cancelled]
  }
}
"""
TREE = """
workflow(ctx, inputs) {
  try {
    if (inputs.depth > 0) {
      const below = []
      for (let i = 0; i < 2; i++) below.push(child("tree", { depth: inputs.depth - 1, mark: inputs.mark + i }))
      return await Promise.all(below)
    }
    return await task("slow", { seconds: 60, mark: inputs.mark })
  } finally {
    await task("book", { order: inputs.mark, step: "undone" })
  }
}
"""


FAN = """
workflow(ctx, inputs) {
  const calls = []
  for (let i = 0; i < inputs.width; i++) calls.push(task("slow", { seconds: 60, mark: "f" + i }))
  const ends = await Promise.allSettled(calls)
  return ends.filter(end => end.status === "rejected" && end.reason.name === "CancelledError").length
}
"""
CHOICES = """
workflow(ctx, inputs) {
  const said = []
  const left = task("slow", { seconds: 1, mark: "left" }, { onCancel: "abandon" })
  const kept = task("slow", { seconds: 1, mark: "kept" }, { cancellable: false })
  task("slow", { seconds: 1, mark: "fired" }, { onCancel: "abandon" })
  for (const one of [left, kept]) {
    try { said.push(await one) } catch (e) { said.push(e.name) }
  }
  return said
}
"""
CHILDREN = """
workflow(ctx, inputs) {
  const first = await child("calls", { task: "plain", inputs: { i: 2 } }, { id: inputs.id, key: "token" })
  try {
    await child("calls", {}, { id: inputs.id })
  } catch (error) {
    return [first, error.name, error.message]
  }
}
"""


@pytest.fixture
async def stops(shop: Shop) -> Shop:
    (shop.folder / "stops.py").write_text(TASKS)
    for name, source in (
        ("calls", CALLS),
        ("tree", TREE),
        ("saga", SAGA),
        ("fan", FAN),
        ("choices", CHOICES),
        ("children", CHILDREN),
    ):
        (shop.folder / "workflows" / f"{name}.flow").write_text(source)
    await shop.client.publish(shop.folder / "workflows")
    return shop


async def asked(shop: Shop, count: int) -> bool:
    (row,) = await shop.query("select count(*) as n from rhythm.cancels")
    return bool(row["n"] >= count)


async def finished(shop: Shop, count: int) -> bool:
    (row,) = await shop.query("select count(*) as n from rhythm.outcomes")
    return bool(row["n"] == count)


async def suspended(shop: Shop) -> bool:
    (row,) = await shop.query("select count(*) as n from rhythm.snapshots where line = 5")
    return bool(row["n"])


@pytest.mark.parametrize("swallow", [True, False])
async def test_a_cancelled_workflow_undoes_what_it_did(shop: Shop, swallow: bool) -> None:
    path = shop.folder / "workflows" / "saga.flow"
    path.write_text(SAGA)
    await shop.client.publish(path)
    shop.worker()
    execution = await shop.client.start("saga", {"swallow": swallow})
    await shop.until(lambda: suspended(shop), "it waits for the signal")
    await execution.cancel()
    await execution.cancel()

    if swallow:
        assert await execution.result(timeout=20) == ["CancelledError", True]
    else:
        with pytest.raises(rhythm.ExecutionCancelled):
            await execution.result(timeout=20)
    steps = [row["step"] for row in await shop.query("select step from ledger order by step")]
    assert steps == ["charge", "refund"]
    assert list(await shop.client.store.breaches()) == []


async def test_what_has_not_begun_is_simply_cancelled(shop: Shop) -> None:
    task = await shop.client.start("plain", {"i": 1}, delay="1h")
    workflow = await shop.client.start("order", {"order": "x"})
    for execution in (task, workflow):
        await execution.cancel()
        with pytest.raises(rhythm.ExecutionCancelled):
            await execution.result(timeout=5)
        with pytest.raises(rhythm.ExecutionFinished):
            await execution.cancel()
    assert list(await shop.client.store.breaches()) == []


async def test_a_running_task_is_interrupted(shop: Shop) -> None:
    shop.worker()
    execution = await shop.client.start("slow", {"seconds": 60, "mark": "m1"})
    await shop.begun("m1")
    await execution.cancel()

    with pytest.raises(rhythm.ExecutionCancelled):
        await execution.result(timeout=20)
    assert list(await shop.client.store.breaches()) == []


@pytest.mark.parametrize(
    ("how", "result"),
    [
        ("confirms", ["CancelledError", "cancelled", "charge", True]),
        ("fails", ["ValueError", "failed", "charge", True]),
        ("completes", "charged"),
    ],
)
async def test_a_running_charge_settles_with_what_really_happened(stops: Shop, how: str, result: object) -> None:
    stops.worker("--app", "stops")
    inputs = {"mark": "m1", "stops": how}
    execution = await stops.client.start("calls", {"task": "charge", "inputs": inputs})
    await stops.begun("m1")
    await execution.cancel()

    assert result == await execution.result(timeout=20)
    (called,) = await stops.client.list(parent=execution.id)
    assert called.info is not None
    assert 1 == called.info.attempts


async def test_a_workflow_that_ends_by_the_error_of_its_cancelled_task_is_cancelled(stops: Shop) -> None:
    stops.worker("--app", "stops")
    inputs = {"mark": "m1", "stops": "confirms"}
    execution = await stops.client.start("calls", {"task": "charge", "inputs": inputs, "rethrow": True})
    await stops.begun("m1")
    await execution.cancel()

    with pytest.raises(rhythm.ExecutionCancelled):
        await execution.result(timeout=20)


async def test_a_thread_confirms_when_it_asks_its_context(stops: Shop) -> None:
    stops.worker("--app", "stops")
    execution = await stops.client.start("threaded", {"mark": "m1"})
    await stops.begun("m1")
    await execution.cancel()

    with pytest.raises(rhythm.ExecutionCancelled):
        await execution.result(timeout=20)


async def test_what_was_claimed_but_has_not_begun_never_begins(shop: Shop) -> None:
    first = [await shop.client.start("slow", {"seconds": 0.01, "mark": f"w{i}"}) for i in range(3)]
    ids = await shop.client.start_many([rhythm.Start("slow", {"seconds": 60, "mark": f"m{i}"}) for i in range(3)])
    shop.worker("--concurrency", "1")
    await shop.begun("m0")
    for execution_id in reversed(ids):
        await shop.client.cancel(execution_id)

    for execution_id in ids:
        with pytest.raises(rhythm.ExecutionCancelled):
            await shop.client.wait(execution_id, timeout=20)
    for execution in first:
        assert (await execution.result(timeout=5)).startswith("w")
    begun = await shop.query("select order_id from ledger where order_id like 'm%'")
    assert ["m0"] == [row["order_id"] for row in begun]
    assert list(await shop.client.store.breaches()) == []


async def test_a_tree_is_cancelled_level_by_level_and_each_undoes_its_own(stops: Shop) -> None:
    """Each parent ends with its first cancelled child, and does not wait for the other."""
    stops.worker()
    execution = await stops.client.start("tree", {"depth": 2, "mark": "t"})
    for leaf in ("t00", "t01", "t10", "t11"):
        await stops.begun(leaf)
    await execution.cancel()

    with pytest.raises(rhythm.ExecutionCancelled):
        await execution.result(timeout=30)
    await stops.until(lambda: finished(stops, 18), "the last of them has undone what it did")
    for level, count in (("suspended", 0), ("running", 0), ("pending", 0), ("cancelled", 7 + 4), ("completed", 7)):
        assert count == len(await stops.client.list(status=level)), level
    undone = await stops.query("select order_id from ledger where step = 'undone' order by 1")
    assert ["t", "t0", "t00", "t01", "t1", "t10", "t11"] == [row["order_id"] for row in undone]
    assert list(await stops.client.store.breaches()) == []


async def test_a_worker_killed_while_a_saga_is_cancelled_is_replaced_and_undoes_once(stops: Shop) -> None:
    """The charge runs when the worker dies: nobody knows what became of it, so it counts as cancelled."""
    first = stops.worker("--app", "stops", "--heartbeat-timeout", "10s")
    inputs = {"mark": "m1", "stops": "completes"}
    execution = await stops.client.start("calls", {"task": "threaded", "inputs": {"mark": "m1"}, "rethrow": False})
    other = await stops.client.start("calls", {"task": "charge", "inputs": inputs | {"mark": "m2"}})
    await stops.begun("m1")
    await stops.begun("m2")
    first.freeze()
    await execution.cancel()
    await other.cancel()
    stops.worker("--app", "stops")
    await stops.until(lambda: asked(stops, 4), "both tasks have been asked")
    first.kill()

    for one, task in ((execution, "threaded"), (other, "charge")):
        assert ["CancelledError", "cancelled", task, True] == await one.result(timeout=30)
        (called,) = await stops.client.list(parent=one.id)
        assert called.info is not None
        assert ("cancelled", 1, 1) == (called.info.status, called.info.attempts, called.info.lost)
    begun = await stops.query("select count(*) as n from ledger where step = 'begun'")
    assert 2 == begun[0]["n"]
    assert list(await stops.client.store.breaches()) == []


async def test_a_forced_cancel_stops_what_runs_and_undoes_nothing(stops: Shop) -> None:
    stops.worker("--app", "stops")
    execution = await stops.client.start("tree", {"depth": 1, "mark": "t"})
    threaded = await stops.client.start("threaded", {"mark": "m1"})
    for mark in ("t0", "t1", "m1"):
        await stops.begun(mark)
    await execution.cancel(force=True)
    await threaded.cancel(force=True)
    states = [(await one.refresh()).status for one in (execution, threaded)]
    with pytest.raises(rhythm.ExecutionFinished):
        await execution.cancel(force=True)

    assert ["cancelled", "cancelled"] == states
    for child in await stops.client.list(parent=execution.id):  # they are asked, and undo what they did
        with pytest.raises(rhythm.ExecutionCancelled):
            await child.result(timeout=20)
    await stops.until(lambda: quiet(stops), "the thread has stopped, and the worker holds nothing")
    undone = await stops.query("select order_id from ledger where step = 'undone' order by 1")
    assert ["t0", "t1"] == [row["order_id"] for row in undone]
    assert list(await stops.client.store.breaches()) == []


async def quiet(shop: Shop) -> bool:
    (row,) = await shop.query("select count(*) as n from rhythm.claims")
    return not row["n"]


@pytest.mark.parametrize(
    ("task", "inputs", "result"),
    [
        ("slow", {"seconds": 60, "mark": "m1"}, ["TimeoutError", "timeout", "slow", False]),
        ("charge", {"mark": "m1", "stops": "completes"}, "charged"),
        ("nobody knows", {}, ["TimeoutError", "timeout", "nobody knows", False]),
    ],
)
async def test_past_its_deadline_a_task_is_stopped_or_settles_with_what_happened(
    stops: Shop, task: str, inputs: dict[str, object], result: object
) -> None:
    stops.worker("--app", "stops")
    options = {"deadline": 1500, "retries": 5}
    execution = await stops.client.start("calls", {"task": task, "inputs": inputs, "options": options})

    assert result == await execution.result(timeout=30)
    assert 0 == (await stops.query("select count(*) as n from rhythm.timers"))[0]["n"]
    assert list(await stops.client.store.breaches()) == []


async def test_a_thousand_tasks_at_every_stage_are_cancelled(stops: Shop) -> None:
    """Some run, some are claimed and have not begun, most are pending."""
    stops.worker("--concurrency", "20")
    execution = await stops.client.start("fan", {"width": 1000})
    await stops.until(lambda: running(stops, 20), "twenty of them run")
    await execution.cancel()

    assert 1000 == await execution.result(timeout=40)
    counts = await stops.query("select count(*) as n, max(attempts) as most from rhythm.outcomes where status = 3")
    assert (1000, 1) == (counts[0]["n"], counts[0]["most"])
    begun = await stops.query("select count(*) as n from ledger")
    assert 20 <= begun[0]["n"] < 200
    assert list(await stops.client.store.breaches()) == []


async def running(shop: Shop, count: int) -> bool:
    (row,) = await shop.query("select count(*) as n from ledger")
    return bool(row["n"] >= count)


async def test_what_a_call_says_of_cancelling_counts(stops: Shop) -> None:
    stops.worker()
    execution = await stops.client.start("choices", {})
    for mark in ("left", "kept", "fired"):
        await stops.begun(mark)
    await execution.cancel()

    assert ["CancelledError", "kept"] == await execution.result(timeout=20)
    for child in await stops.client.list(parent=execution.id):
        assert child.inputs["mark"] == await child.result(timeout=20)
    assert list(await stops.client.store.breaches()) == []


async def test_a_child_has_the_id_and_key_it_was_given(stops: Shop) -> None:
    stops.worker()
    wanted = "0192f0c1-7e3a-7c55-9a55-2f8c54e0a1b2"
    execution = await stops.client.start("children", {"id": wanted})

    assert [4, "StartRefused", "the id is in use"] == await execution.result(timeout=20)
    child = (await stops.client.get(wanted)).info
    assert child is not None
    assert ("workflow", "token", execution.id) == (child.kind, child.key, child.parent_id)
    assert list(await stops.client.store.breaches()) == []
