"""What can be wrong with a task or its answer: each gives a clear outcome, and the database stays sound."""

from __future__ import annotations

import pytest

import rhythm
from tests.worker.conftest import Shop


@pytest.mark.parametrize(
    ("name", "inputs", "error", "kind", "says"),
    [
        ("raises", {}, "ValueError", "failed", "no such article"),
        ("not_json", {}, "OutputInvalid", "failed", "$.a"),
        ("not_a_number", {}, "OutputInvalid", "failed", "nan"),
        ("times_out", {}, "TimeoutError", "timeout", "0.1 s"),
        ("plain", {"i": 1, "j": 2}, "TaskInputInvalid", "failed", "j"),
        ("plain", {}, "TaskInputInvalid", "failed", "i"),
        ("plain", {"i": "x"}, "TaskInputInvalid", "failed", "i"),
    ],
)
async def test_a_failing_task_says_what_was_wrong(
    shop: Shop, name: str, inputs: dict[str, object], error: str, kind: str, says: str
) -> None:
    shop.worker()
    execution = await shop.client.start(name, inputs)

    with pytest.raises(rhythm.ExecutionFailed) as failed:
        await execution.result(timeout=20)

    assert (failed.value.name, failed.value.type) == (error, kind)
    assert says.lower() in failed.value.remote_message.lower()
    assert (await execution.refresh()).attempts == 1
    assert list(await shop.client.store.breaches()) == []


async def test_a_name_nobody_knows_waits_and_says_so(shop: Shop) -> None:
    worker = shop.worker()
    worker.wait_for_output("ready")
    execution = await shop.client.start("nobodyKnows", {})

    info = await execution.refresh()

    assert (info.status, info.reason) == ("pending", "unknown task")


async def test_inputs_over_the_limit_are_refused_by_the_client(shop: Shop) -> None:
    with pytest.raises(rhythm.PayloadTooLarge, match="payload_bytes_max"):
        await shop.client.start("plain", {"i": "x" * (2 << 20)})


async def test_an_endless_loop_ends_and_the_worker_lives(shop: Shop) -> None:
    path = shop.folder / "workflows" / "endless.flow"
    path.write_text("workflow(ctx, inputs) { let i = 0; while (true) { i++ } }")
    worker = shop.worker()
    execution = await shop.client.start("endless", {})
    with pytest.raises(rhythm.ExecutionFailed) as failed:
        await execution.result(timeout=30)
    expected = await shop.start_orders(3)

    assert failed.value.name == "LimitError"
    await shop.check(expected)
    assert worker.alive


async def test_a_thread_task_that_blocks_does_not_stop_the_heartbeat(shop: Shop) -> None:
    worker = shop.worker()
    execution = await shop.client.start("blocks", {"seconds": 4.5})

    assert await execution.result(timeout=20) == worker.pid
    assert (await execution.refresh()).lost == 0


async def test_a_signal_reaches_a_workflow_and_a_timer_fires_once_in_time(shop: Shop) -> None:
    path = shop.folder / "workflows" / "waits.flow"
    path.write_text(
        'workflow(ctx, inputs) { const begin = Date.now(); await sleep("300ms");'
        ' return [Date.now() - begin, await signal("go"), await signal("go")] }'
    )
    shop.worker().wait_for_output("ready")
    execution = await shop.client.start("waits", {})
    await execution.signal("go", {"n": 1})
    await execution.signal("go", {"n": 2})

    waited, first, second = await execution.result(timeout=20)

    assert 299 <= waited < 5_000
    assert (first, second) == ({"n": 1}, {"n": 2})
    assert list(await shop.client.store.breaches()) == []


FIELDS = """
workflow(ctx, inputs) {
  const seen = []
  for (const name of ["raises", "times_out", "not_json"]) {
    try { await task(name, {}) } catch (error) { seen.push([error.task, error.type, error.attempts, error.retryable]) }
  }
  return seen
}
"""


async def test_a_workflow_reads_in_an_error_how_the_task_ended(shop: Shop) -> None:
    path = shop.folder / "workflows" / "fields.flow"
    path.write_text(FIELDS)
    await shop.client.publish(path)
    shop.worker()

    assert await (await shop.client.start("fields")).result(timeout=20) == [
        ["raises", "failed", 1, True],
        ["times_out", "timeout", 1, True],
        ["not_json", "failed", 1, False],
    ]
