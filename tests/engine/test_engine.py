"""Activations: what a workflow asks for, when it wakes, and how it ends. No database, no clock."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import pytest

from rhythm import engine
from rhythm.engine import (
    LOG_CHARACTERS_MAX,
    LOG_LENGTH_MAX,
    LOG_LINES_MAX,
    Activation,
    Limits,
    StartInfo,
    activate,
    check_source,
    compile_workflow,
)
from rhythm.errors import CompileError, SnapshotError
from rhythm.language.ir import IRError
from rhythm.language.values import current_realm
from rhythm.model import Delivery
from rhythm.testing import Later, evaluate
from tests.support.activations import EXECUTION_ID, NOW_MS, Driver, body, error_of, names_of, program_of, result_of


def groups(activation: Activation) -> list[tuple[str, list[int]]]:
    return [(group.mode, list(group.operations)) for group in activation.wake_groups]


# Commands -----------------------------------------------------------------------------------------


def test_a_start_asks_for_its_operations_in_the_order_of_the_calls() -> None:
    driver = Driver(
        body("await Promise.all([task('one', { n: 1 }), sleep('2s'), child('two'), signal('go', { timeout: 5 })])")
    )
    activation = driver.start()

    assert [(1, "task", "one", b'{"n":1}'), (3, "workflow", "two", b"{}")] == [
        (child.operation, child.kind, child.name, child.inputs) for child in activation.children
    ]
    assert [(2, 2000.0, None), (4, 5.0, None)] == [
        (timer.operation, timer.delay_ms, timer.due_at_ms) for timer in activation.timers
    ]
    assert activation.outstanding == 4
    assert activation.outcome is None
    assert activation.snapshot is not None
    assert activation.live is not None


def test_commands_are_asked_for_once() -> None:
    driver = Driver(body("const a = task('one'), b = task('two'); await a; task('three'); return await b"))
    first = driver.start()
    second = driver.completed(1)

    assert ["one", "two"] == names_of(first.children)
    assert ["three"] == names_of(second.children)


def test_inputs_are_copied_at_the_call() -> None:
    driver = Driver(body("const data = { n: 1 }; const t = task('x', data); data.n = 2; return [await t, data.n]"))
    activation = driver.start()

    assert activation.children[0].inputs == b'{"n":1}'


def test_what_is_not_awaited_runs_anyway() -> None:
    activation = Driver(body("task('log'); sleep(5); return 1")).start()

    assert result_of(activation) == 1
    assert ["log"] == names_of(activation.children)
    assert activation.snapshot is None
    assert activation.live is None


def test_a_date_is_an_absolute_timer() -> None:
    activation = Driver(body("await sleep(new Date(1800000000000))")).start()

    assert [(1, None, 1.8e12)] == [(t.operation, t.delay_ms, t.due_at_ms) for t in activation.timers]


def test_the_context_is_plain_data() -> None:
    driver = Driver(body("return [ctx, inputs]"))
    ctx, inputs = result_of(driver.start({"a": [1]}))

    assert inputs == {"a": [1]}
    assert ctx == {
        "executionId": EXECUTION_ID, "name": "flow", "version": driver.program.hash, "startedAt": NOW_MS,
        "parentId": None, "tags": None, "cancelled": False,
    }  # fmt: skip


def test_parent_and_tags_reach_the_context() -> None:
    driver = Driver(body("return [ctx.parentId, ctx.tags.team]"))
    start = StartInfo(EXECUTION_ID, "flow", driver.program.hash, NOW_MS, b"null", "p", {"team": "a"})

    assert ["p", "a"] == result_of(activate(driver.program, environment=driver.environment, start=start))


# Turns --------------------------------------------------------------------------------------------

ORDER = body("""
    const log = []
    const a = task("a").then(v => { log.push("a" + v); return null }).then(() => log.push("a2"))
    const b = task("b").then(v => { log.push("b" + v); return null }).then(() => log.push("b2"))
    await a; await b
    return log
""")


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_each_delivery_is_a_turn_of_its_own(together: bool, live: bool) -> None:
    driver = Driver(ORDER, live=live)
    driver.start()
    deliveries = [driver.delivery("completed", 2, 1), driver.delivery("completed", 1, 2)]
    if together:
        activation = driver.deliver(*deliveries)
    else:
        driver.deliver(deliveries[0])
        activation = driver.deliver(deliveries[1])

    assert ["b1", "b2", "a2", "a2"] == result_of(activation)
    assert activation.seen_through == 2


def test_deliveries_after_the_end_count_as_seen() -> None:
    driver = Driver(body("return await Promise.race([task('a'), task('b')])"))
    driver.start()
    activation = driver.deliver(driver.delivery("completed", 1, "first"), driver.delivery("completed", 2, "second"))

    assert result_of(activation) == "first"
    assert activation.seen_through == 2


@pytest.mark.parametrize("kind", ["completed", "failed", "timer"])
def test_a_delivery_for_a_settled_operation_is_ignored(kind: str) -> None:
    driver = Driver(body("const t = task('a', {}, { onCancel: 'abandon' }); cancel(t); const u = task('b')\n"
                         "const first = await t.catch(e => e.name); return [first, await u]"))  # fmt: skip
    driver.start()
    before = driver.snapshot
    activation = driver.deliver(driver.delivery(kind, 1, {"name": "Late", "message": "late"}))

    assert activation.outcome is None
    assert activation.snapshot == before
    assert activation.seen_through == 1
    assert ["CancelledError", 7] == result_of(driver.completed(2, 7))


@pytest.mark.parametrize("number", [0, 2, 99, -1, None])
def test_a_delivery_for_an_unknown_operation_is_ignored(number: int | None) -> None:
    driver = Driver(body("return await task('a')"))
    driver.start()
    activation = driver.deliver(driver.delivery("completed", number, 5))

    assert activation.outcome is None
    assert result_of(driver.completed(1, 6)) == 6


def test_a_repeated_delivery_is_ignored() -> None:
    driver = Driver(body("const a = await task('a'); return [a, await task('b')]"))
    driver.start()
    driver.completed(1, "once")
    activation = driver.completed(1, "twice")

    assert activation.outcome is None
    assert ["once", "b"] == result_of(driver.completed(2, "b"))


def test_an_output_that_no_double_holds_rejects_with_a_type_error() -> None:
    driver = Driver(body("try { await task('a') } catch (e) { return [e.name, e.message] }"))
    driver.start()
    name, message = result_of(driver.completed(1, {"id": 2**53 + 1}))

    assert name == "TypeError"
    assert "output of task a" in message
    assert "$.id" in message


@pytest.mark.parametrize("text", ["2 ** 53", "2 ** 64", "-(2 ** 70)", "123456789012345680000", "1e21", "1e20", "-0"])
def test_whole_numbers_leave_with_the_digits_of_javascript_and_come_back(text: str) -> None:
    driver = Driver(body(f"const a = await task('a', {{ n: {text} }}); return [a, a === {text}, JSON.stringify(a)]"))
    sent = json.loads(driver.start().children[0].inputs)["n"]
    value, same, written = result_of(driver.completed(1, sent))

    assert same
    assert value == sent
    assert json.loads(written) == sent


def test_a_failure_reaches_catch_with_its_fields() -> None:
    driver = Driver(
        body("""
            try { await task('charge') } catch (e) {
              return [e instanceof Error, e.name, e.message, e.task, e.type, e.data, e.attempts, e.executionId.length,
                      e.cause.message]
            }
        """)
    )
    driver.start()
    error = {"name": "CardDeclined", "message": "no", "type": "failed", "data": {"code": 5}, "attempts": 3,
             "cause": {"name": "HTTPError", "message": "402"}}  # fmt: skip
    activation = driver.deliver(driver.delivery("failed", 1, error))

    assert [True, "CardDeclined", "no", "charge", "failed", {"code": 5}, 3, 36, "402"] == result_of(activation)


def test_a_repeated_turn_reads_clock_and_randomness_anew_and_keeps_what_was_read_before() -> None:
    """A worker that dies inside a turn: the next one begins from the same snapshot."""
    driver = Driver(
        body("""
            const read = () => [Date.now(), +new Date(), Math.random()]
            const before = read()
            await task('a')
            const after = read(), sent = task('b', { at: Date.now(), dice: Math.random() })
            return [before, after, read(), await sent]
        """)
    )
    driver.start()
    snapshot, delivery = driver.snapshot, driver.delivery("completed", 1)
    first = driver.deliver(delivery)
    driver.snapshot = snapshot
    driver.environment = replace(driver.environment, now_ms=lambda: NOW_MS + 1234.9, random=lambda: 0.25)
    second = driver.deliver(delivery)

    inputs = [json.loads(activation.children[0].inputs) for activation in (first, second)]
    assert [{"at": NOW_MS, "dice": 0.5}, {"at": NOW_MS + 1234, "dice": 0.25}] == inputs
    old, new = [NOW_MS, NOW_MS, 0.5], [NOW_MS + 1234, NOW_MS + 1234, 0.25]
    assert [old, new, new, "b"] == result_of(driver.completed(2, "b"))


# Wake groups --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("combinator", "mode"), [("all", "on_rejection"), ("any", "on_fulfilment"), ("allSettled", "last")]
)
def test_tasks_of_one_combinator_form_a_wake_group(combinator: str, mode: str) -> None:
    driver = Driver(body(f"await Promise.{combinator}([task('a'), child('b'), task('c')])"))

    assert [(mode, [1, 2, 3])] == groups(driver.start())


def test_a_race_wakes_for_each() -> None:
    assert [] == groups(Driver(body("await Promise.race([task('a'), task('b')])")).start())


def test_timers_and_signals_are_in_no_wake_group() -> None:
    driver = Driver(body("await Promise.all([task('a'), sleep(5), task('b'), signal('s')])"))

    assert [("on_rejection", [1, 3])] == groups(driver.start())


def test_what_has_another_observer_is_in_no_wake_group() -> None:
    driver = Driver(body("const a = task('a'); a.then(() => 1); await Promise.all([a, task('b'), task('c')])"))

    assert [("on_rejection", [2, 3])] == groups(driver.start())


def test_what_is_watched_by_two_combinators_is_in_no_wake_group() -> None:
    driver = Driver(
        body("const a = task('a'), b = task('b'); await Promise.all([Promise.all([a, b]), Promise.any([a, b])])")
    )

    assert [] == groups(driver.start())


def test_two_combinators_are_two_wake_groups() -> None:
    driver = Driver(
        body("await Promise.allSettled([Promise.all([task('a'), task('b')]), Promise.any([task('c'), task('d')])])")
    )

    assert [("on_rejection", [1, 2]), ("on_fulfilment", [3, 4])] == groups(driver.start())


def test_a_single_task_needs_no_wake_group() -> None:
    assert [] == groups(Driver(body("await Promise.all([task('a')])")).start())


def test_a_wake_group_shrinks_to_what_is_outstanding() -> None:
    driver = Driver(body("await Promise.all([task('a'), task('b'), task('c')])"))
    driver.start()

    assert [("on_rejection", [1, 3])] == groups(driver.completed(2))
    assert [] == groups(driver.completed(1))


def test_a_decided_combinator_has_no_wake_group() -> None:
    driver = Driver(body("try { await Promise.all([task('a'), task('b'), task('c')]) } catch { await sleep(5) }"))
    driver.start()

    assert [] == groups(driver.failed(2))


def test_tasks_of_async_functions_are_in_no_wake_group() -> None:
    driver = Driver(
        body("const f = async n => { await task(n); log.push(n) }, log = []; await Promise.all(['a', 'b'].map(f))")
    )

    assert [] == groups(driver.start())


# Signals ------------------------------------------------------------------------------------------


def test_messages_go_to_waits_in_order() -> None:
    driver = Driver(body("const a = signal('s'), b = signal('s'); return [await b, await a]"))
    driver.start()
    driver.signal("s", 1)

    assert [2, 1] == result_of(driver.signal("s", 2))


def test_messages_of_other_names_are_kept() -> None:
    driver = Driver(body("const a = await signal('a'); return [a, await signal('b'), await signal('b')]"))
    driver.start()
    for number in (1, 2):
        assert number == driver.signal("b", number).unread_signals
    activation = driver.signal("a", 0)

    assert [0, 1, 2] == result_of(activation)
    assert activation.unread_signals == 0


def test_a_signal_times_out_with_a_timeout_error() -> None:
    driver = Driver(
        body("try { await signal('s', { timeout: '1m' }) } catch (e) { return [e.name, e.type, e instanceof Error] }")
    )
    activation = driver.start()

    assert [60_000.0] == [timer.delay_ms for timer in activation.timers]
    assert ["TimeoutError", "timeout", True] == result_of(driver.timer(1))


def test_a_message_drops_the_timer_of_its_wait() -> None:
    driver = Driver(body("await signal('s', { timeout: '1m' }); await task('next')"))
    driver.start()

    assert [1] == driver.signal("s").dropped_timers


def test_a_late_timeout_does_not_take_a_message_back() -> None:
    driver = Driver(body("const s = await signal('s', { timeout: '1m' }); return [s, await task('next')]"))
    driver.start()
    driver.signal("s", "came")
    assert driver.timer(1).outcome is None

    assert ["came", 3] == result_of(driver.completed(2, 3))


@pytest.mark.parametrize("live", [True, False])
def test_a_wait_that_lost_its_race_takes_no_message(live: bool) -> None:
    driver = Driver(
        body("const r = await Promise.race([signal('s'), sleep(5)]); await task('between'); return await signal('s')"),
        live=live,
    )
    driver.start()
    activation = driver.timer(2)
    assert activation.outstanding == 1
    activation = driver.signal("s", "for the second")
    assert activation.unread_signals == 1

    assert result_of(driver.completed(3)) == "for the second"


def test_a_wait_that_a_variable_holds_still_takes_its_message() -> None:
    driver = Driver(body("const s = signal('s'); await Promise.race([s, sleep(5)]); await task('t'); return await s"))
    driver.start()
    assert driver.timer(2).outstanding == 2
    assert driver.signal("s", "kept").unread_signals == 0

    assert result_of(driver.completed(3)) == "kept"


@pytest.mark.parametrize(
    "holder",
    [
        "[s]",
        "{ s }",
        "new Map([[1, s]])",
        "new Set([s])",
        "() => s",
        "Object.assign(new Error('x'), { s })",
        "Promise.resolve([s])",
    ],
)
def test_a_wait_that_data_holds_is_observable(holder: str) -> None:
    driver = Driver(
        body(
            f"const s = signal('s'), held = {holder}\n"
            "await Promise.race([s, sleep(5)]); await task('t'); return typeof held"
        )
    )
    driver.start()
    driver.timer(2)

    assert driver.signal("s", 1).unread_signals == 0


@pytest.mark.parametrize(
    "lost",
    [
        "Promise.all([signal('s'), task('never')])",
        "Promise.allSettled([Promise.any([signal('s')]), task('never')])",
        "(async () => signal('s'))()",
        "new Promise(resolve => resolve(signal('s')))",
    ],
)
def test_a_wait_inside_what_lost_its_race_takes_no_message(lost: str) -> None:
    driver = Driver(body(f"await Promise.race([{lost}, task('quick')]); return await signal('s')"))
    children = driver.start().children
    driver.completed(next(child.operation for child in children if child.name == "quick"))

    assert result_of(driver.signal("s", "for the second")) == "for the second"


def test_a_held_wait_comes_before_a_younger_one() -> None:
    driver = Driver(
        body(
            "const s = signal('s'); await Promise.race([s, sleep(5)]); const b = await signal('s'); return [b, await s]"
        )
    )
    driver.start()
    driver.timer(2)
    driver.signal("s", "older")

    assert ["younger", "older"] == result_of(driver.signal("s", "younger"))


def test_code_behind_a_lost_race_still_gets_its_message() -> None:
    driver = Driver(
        body("""
            const log = [], listen = async () => { log.push(await signal("s")) }
            await Promise.race([listen(), sleep(5)])
            await task("t")
            return log
        """)
    )
    driver.start()
    driver.timer(2)
    driver.signal("s", "heard")

    assert ["heard"] == result_of(driver.completed(3))


@pytest.mark.parametrize(
    "text",
    [
        "return sleep(5)",
        "return signal('s')",
        "return (async () => sleep(5))()",
        "return Promise.race([sleep(5), signal('s')])",
    ],
)
def test_what_the_workflow_returns_is_observable(text: str) -> None:
    driver = Driver(body(text))
    assert driver.start().outcome is None

    assert driver.signal("s").outcome is not None or driver.timer(1).outcome is not None


def test_a_wide_heap_of_combinators_is_searched_once() -> None:
    driver = Driver(
        body("""
            let p = signal("s")
            for (let i = 0; i < 60; i++) p = Promise.all([p, p])
            await Promise.race([p, sleep(5)])
            p = null
            return await task("t")
        """)
    )
    driver.start()

    assert driver.timer(2).outstanding == 1


def test_a_released_timer_leaves_with_the_next_snapshot() -> None:
    driver = Driver(body("await Promise.race([sleep('1d'), task('t')]); await task('next')"))
    driver.start()
    activation = driver.completed(2)

    assert [1] == activation.dropped_timers
    assert activation.outstanding == 1


def test_released_tasks_stay() -> None:
    driver = Driver(body("await Promise.race([task('slow'), task('fast')]); await task('next')"))
    driver.start()
    activation = driver.completed(2)

    assert activation.outstanding == 2
    assert [] == activation.cancels


# Cancelling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", ["sleep('1d')", "signal('s')", "signal('s', { timeout: '1h' })"])
def test_a_cancel_rejects_waits_at_once(wait: str) -> None:
    driver = Driver(body(f"await {wait}"))
    driver.start()
    activation = driver.cancel()

    assert activation.outcome is not None
    assert activation.outcome.status == "cancelled"
    assert ("CancelledError", "cancelled") == (error_of(activation)["name"], error_of(activation)["type"])


def test_a_cancel_asks_a_started_task_and_waits_for_what_happens() -> None:
    driver = Driver(body("return [await task('charge'), ctx.cancelled]"))
    started = driver.start()
    activation = driver.cancel()

    assert activation.outcome is None
    assert [started.children[0].id] == activation.cancels
    assert [] == driver.cancel().cancels
    assert ["receipt", True] == result_of(driver.completed(1, "receipt"))


def test_a_task_that_confirms_its_cancellation_cancels_the_workflow() -> None:
    driver = Driver(body("await task('charge')"))
    driver.start()
    driver.cancel()
    activation = driver.failed(1, "CancelledError", "stopped")

    assert activation.outcome is not None
    assert activation.outcome.status == "cancelled"


def test_a_cancelled_error_without_a_cancel_request_is_a_failure() -> None:
    driver = Driver(body("await task('charge')"))
    driver.start()
    activation = driver.failed(1, "CancelledError", "somebody else's")

    assert activation.outcome is not None
    assert activation.outcome.status == "failed"


def test_an_abandoned_task_rejects_at_once_and_is_not_asked() -> None:
    driver = Driver(body("await task('mail', {}, { onCancel: 'abandon' })"))
    driver.start()
    activation = driver.cancel()

    assert [] == activation.cancels
    assert error_of(activation)["name"] == "CancelledError"


def test_a_task_that_cannot_be_cancelled_is_never_asked() -> None:
    driver = Driver(body("return await task('pay', {}, { cancellable: false })"))
    driver.start()
    activation = driver.cancel()

    assert activation.outcome is None
    assert [] == activation.cancels
    assert result_of(driver.completed(1, "paid")) == "paid"


def test_compensation_runs_after_a_cancel() -> None:
    driver = Driver(body("try { await sleep('1d') } finally { await task('undo'); await sleep(1) }"))
    driver.start()
    activation = driver.cancel()
    assert ["undo"] == names_of(activation.children)
    activation = driver.completed(2)
    assert [3] == [timer.operation for timer in activation.timers]
    activation = driver.timer(3)

    assert activation.outcome is not None
    assert activation.outcome.status == "cancelled"


def test_a_workflow_that_returns_after_a_cancel_is_completed() -> None:
    driver = Driver(body("try { await sleep('1d') } catch (e) { return [e.name, ctx.cancelled] }"))
    driver.start()

    assert ["CancelledError", True] == result_of(driver.cancel())


def test_another_error_after_a_cancel_is_a_failure() -> None:
    driver = Driver(body("try { await sleep('1d') } catch (e) { throw new Error('late') }"))
    driver.start()
    activation = driver.cancel()

    assert activation.outcome is not None
    assert activation.outcome.status == "failed"


def test_cancel_of_a_task_in_its_own_turn_starts_nothing() -> None:
    driver = Driver(
        body(
            "const t = task('a'), was = cancel(t)\n"
            "try { await t } catch (e) { return [was, e.name, e.task, cancel(t)] }"
        )
    )
    activation = driver.start()

    assert [] == activation.children
    assert [True, "CancelledError", "a", False] == result_of(activation)


def test_cancel_of_a_sleep_in_its_own_turn_arms_nothing() -> None:
    activation = Driver(body("const s = sleep(5); cancel(s); await s.catch(() => 0); await task('t')")).start()

    assert [] == activation.timers
    assert [] == activation.dropped_timers


def test_cancel_takes_promises_only() -> None:
    assert "cancel needs the promise" in error_of(Driver(body("cancel(5)")).start())["message"]
    assert result_of(Driver(body("return cancel(Promise.resolve(1))")).start()) is False


# Deadlines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["task('charge', {}, { deadline: '1h' })", "child('order', {}, { deadline: '1h' })"])
def test_past_its_deadline_a_task_is_asked_to_stop_and_times_out_when_it_does(call: str) -> None:
    text = f"try {{ return await {call} }} catch (e) {{ return [e.name, e.type, e.message, e.executionId] }}"
    driver = Driver(body(text))
    started = driver.start()
    activation = driver.timer(1)
    assert activation.outcome is None
    asked_again = driver.timer(1)
    stopped = json.dumps({"name": "CancelledError", "message": "stopped", "type": "cancelled"}).encode()
    ended = driver.deliver(Delivery(3, "failed", 1, None, stopped))

    assert [(1, 3_600_000.0)] == [(timer.operation, timer.delay_ms) for timer in started.timers]
    assert ([started.children[0].id], []) == (activation.cancels, asked_again.cancels)
    name, kind, message, child_id = result_of(ended)
    assert ("TimeoutError", "timeout", str(started.children[0].id)) == (name, kind, child_id)
    assert "did not end within its deadline" in message


def test_past_its_deadline_a_task_settles_with_what_really_happened() -> None:
    for end in ("completed", "failed"):
        driver = Driver(body("try { return await task('t', {}, { deadline: 5 }) } catch (e) { return e.name }"))
        driver.start()
        driver.timer(1)
        ended = driver.completed(1, "receipt") if end == "completed" else driver.failed(1)
        assert ("receipt" if end == "completed" else "CardDeclined") == result_of(ended)
        assert [] == ended.dropped_timers


def test_a_task_that_ends_within_its_deadline_drops_its_timer() -> None:
    driver = Driver(body("await task('t', {}, { deadline: 5 }); await sleep(1)"))
    driver.start()

    assert [1] == driver.completed(1).dropped_timers


def test_past_its_deadline_an_abandoned_task_times_out_at_once() -> None:
    driver = Driver(
        body("try { await task('t', {}, { deadline: 5, onCancel: 'abandon' }) } catch (e) { return e.name }")
    )
    driver.start()
    activation = driver.timer(1)

    assert ([], "TimeoutError") == (activation.cancels, result_of(activation))


def test_a_deadline_after_a_cancel_request_changes_nothing() -> None:
    driver = Driver(body("try { await task('t', {}, { deadline: 5 }) } catch (e) { return e.name }"))
    driver.start()
    driver.cancel()
    late = driver.timer(1)
    stopped = json.dumps({"name": "CancelledError", "message": "stopped", "type": "cancelled"}).encode()

    assert [] == late.cancels
    assert "CancelledError" == result_of(driver.deliver(Delivery(4, "failed", 1, None, stopped)))


def test_a_deadline_needs_a_task_that_may_be_stopped() -> None:
    activation = Driver(body("task('t', {}, { deadline: 5, cancellable: false })")).start()

    assert "cannot have a deadline" in error_of(activation)["message"]


def test_a_task_cancelled_in_its_own_turn_leaves_no_deadline() -> None:
    text = "const t = task('t', {}, { deadline: 5 }); cancel(t); await t.catch(() => 0); await sleep(1)"
    activation = Driver(body(text)).start()

    assert ([], [2], []) == (
        activation.children, [timer.operation for timer in activation.timers], activation.dropped_timers,
    )  # fmt: skip


def test_a_wide_fan_out_is_cancelled_in_the_activation_that_started_it() -> None:
    text = "await signal('go'); await Promise.allSettled(Array.from({ length: 20000 }, () => task('t'))); return 1"
    driver = Driver(body(text))
    driver.start()
    activation = driver.deliver(driver.delivery("signal", 0, None, "go"), Delivery(9, "cancel"))

    assert ([], 1) == (activation.children, result_of(activation))


@pytest.mark.parametrize("mode", ["never", "await"])
def test_evaluate_knows_deadlines_and_cancels(mode: Any) -> None:
    text = """workflow(ctx, inputs) {
      const said = []
      for (const deadline of [2, 20]) {
        try { said.push(await task("slow", {}, { deadline })) } catch (e) { said.push([e.name, e.type]) }
      }
      const running = task("slow"), quick = task("quick")
      cancel(running); cancel(quick)
      await sleep(1)
      const later = task("slow"); await sleep(5); cancel(later)
      for (const one of [running, quick, later]) {
        try { said.push(await one) } catch (e) { said.push(e.name) }
      }
      return said
    }"""
    tasks = {"slow": lambda: Later("done", delay="10ms"), "quick": lambda: "quick"}
    outcome = evaluate(text, tasks=tasks, snapshot=mode)

    assert [["TimeoutError", "timeout"], "done", "CancelledError", "CancelledError", "CancelledError"] == outcome.result


# Endings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "await new Promise(() => {})",
        "await Promise.race([])",
        "await { then() {} }",
        "const p = (async () => { await null; return await p })(); await p",
        "await Promise.any([new Promise(() => {}), Promise.reject(1)])",
    ],
)
def test_a_workflow_that_waits_for_nothing_fails_with_a_deadlock(text: str) -> None:
    activation = Driver(body(text)).start()

    assert error_of(activation)["name"] == "DeadlockError"
    assert activation.outcome is not None
    assert activation.outcome.keep_snapshot


def test_a_deadlock_may_come_late() -> None:
    driver = Driver(body("await task('a'); await new Promise(() => {})"))
    driver.start()

    assert error_of(driver.completed(1))["name"] == "DeadlockError"


def test_an_outstanding_operation_that_nobody_awaits_is_no_deadlock_yet() -> None:
    driver = Driver(body("task('a'); await new Promise(() => {})"))
    assert driver.start().outcome is None

    assert error_of(driver.completed(1))["name"] == "DeadlockError"


def test_a_released_timer_does_not_hide_a_deadlock() -> None:
    driver = Driver(body("await Promise.race([sleep('1d'), task('t')]); await new Promise(() => {})"))
    driver.start()

    assert error_of(driver.completed(2))["name"] == "DeadlockError"


def test_nothing_of_a_fatal_activation_happens() -> None:
    driver = Driver(
        body("const key = 'constructor'; task('a'); sleep(5); try { return ({})[key] } catch { return 'caught' }")
    )
    activation = driver.start()

    assert error_of(activation)["name"] == "UnsupportedError"
    assert [] == activation.children
    assert [] == activation.timers


def test_an_unhandled_rejection_is_logged_and_does_not_fail() -> None:
    driver = Driver(body("Promise.reject(new Error('forgotten')); Promise.reject(5); await task('a'); return 1"))
    activation = driver.start()
    texts = [text for level, text in activation.logs if level == "warn"]

    assert activation.outcome is None
    assert texts[0].startswith("Unhandled rejection: Error: forgotten\n    at workflow (flow.flow:2:")
    assert texts[1:] == ["Unhandled rejection: 5"]
    assert result_of(driver.completed(1)) == 1


def test_a_rejection_handled_in_the_same_turn_is_not_logged() -> None:
    activation = Driver(body("const p = Promise.reject(1); await null; p.catch(() => 0); await task('a')")).start()

    assert [] == activation.logs


def test_a_failed_task_that_nobody_awaits_is_logged() -> None:
    driver = Driver(body("task('a'); await task('b')"))
    driver.start()
    ((level, text),) = driver.failed(1, "CardDeclined", "no funds").logs

    assert level == "warn"
    assert text.startswith("Unhandled rejection: [CardDeclined: no funds] {\n  type: 'failed',\n  task: 'a',")


def test_the_failure_of_the_workflow_itself_is_not_logged() -> None:
    activation = Driver(body("throw new Error('mine')")).start()

    assert [] == activation.logs
    assert error_of(activation)["message"] == "mine"


def test_a_failure_says_where() -> None:
    error = error_of(Driver(body("null.x")).start())

    assert error["name"] == "TypeError"
    assert "flow.flow:2:" in error["stack"]


@pytest.mark.parametrize(
    ("text", "thrown"), [("throw 5", 5), ("throw null", None), ("throw { a: [1] }", {"a": [1]}), ("throw 'x'", "x")]
)
def test_what_is_thrown_need_not_be_an_error(text: str, thrown: Any) -> None:
    assert error_of(Driver(body(text)).start())["thrown"] == thrown


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("return { a: [NaN] }", "$.a[0]"),
        ("return () => 1", "function"),
        ("const o = {}; o.o = o; return o", "$.o"),
        ("return new Map()", "Map"),
    ],
)
def test_an_output_that_json_cannot_hold_fails(text: str, path: str) -> None:
    error = error_of(Driver(body(text)).start())

    assert error["name"] == "TypeError"
    assert "output of workflow flow" in error["message"]
    assert path in error["message"]


def test_an_error_at_the_top_level_fails_the_workflow() -> None:
    error = error_of(Driver("const a = null\nconst b = a.x\nworkflow() { return b }\n").start())

    assert error["name"] == "TypeError"
    assert "flow.flow:2:" in error["stack"]


def test_inputs_that_no_double_holds_fail_the_workflow() -> None:
    assert "inputs" in error_of(Driver(body("return 1")).start({"id": 2**60 + 1}))["message"]


# Limits -------------------------------------------------------------------------------------------


def test_a_snapshot_over_the_limit_fails() -> None:
    limits = Limits(snapshot_bytes_max=10_000, snapshot_bytes_warn=1_000)
    source = body("let data = 'x'.repeat(inputs); await task('a'); data += data; await task('b'); return data.length")
    driver = Driver(source, limits=limits)
    activation = driver.start(6_000)
    assert any("the snapshot has" in text for _, text in activation.logs)

    activation = driver.completed(1)

    assert error_of(activation)["name"] == "LimitError"
    assert "over the limit of 10,000" in error_of(activation)["message"]
    assert activation.outcome is not None
    assert activation.outcome.keep_snapshot
    assert [] == activation.children


def test_a_small_snapshot_is_not_worth_a_warning() -> None:
    assert [] == Driver(body("await task('a')"), limits=Limits(snapshot_bytes_warn=1_000)).start().logs


@pytest.mark.usefixtures("unraisable_ignored")
@pytest.mark.parametrize(
    "text",
    [
        "for (;;) {}",
        "let n = 0; while (true) n++",
        "const f = () => f(); for (;;) { try { f() } catch {} }",
        "for (;;) await null",
    ],
)
def test_an_endless_loop_ends_with_a_limit_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["rhythm.testing.evaluate"], "BUDGET_SECONDS", 0.2)
    outcome = evaluate(body(f"try {{ {text} }} catch {{ return 'caught' }} finally {{ console.log('no') }}"))

    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.name == "LimitError"
    assert () == outcome.logs


def test_endless_recursion_is_a_range_error_that_can_be_caught() -> None:
    outcome = evaluate(
        body("const f = n => f(n + 1) + 1; try { f(0) } catch (e) { return [e.name, e instanceof RangeError] }")
    )

    assert ["RangeError", True] == outcome.result


LEFT_OUT = ("warn", "5 further lines of this step were left out of the log")


@pytest.mark.parametrize("end", ["return 1", "await task('a')", "const key = 'constructor'; ({})[key]"])
def test_an_activation_keeps_its_first_log_lines_and_says_how_many_more_there_were(end: str) -> None:
    activation = Driver(body(f"for (let i = 0; i < {LOG_LINES_MAX + 5}; i++) console.log(i); {end}")).start()

    assert [str(i) for i in range(LOG_LINES_MAX)] == [text for _, text in activation.logs[:-1]]
    assert LEFT_OUT == activation.logs[-1]


def test_long_log_lines_are_cut_and_many_of_them_left_out() -> None:
    fits = LOG_CHARACTERS_MAX // (LOG_LENGTH_MAX + 30)
    activation = Driver(
        body(f"for (let i = 0; i < {fits + 5}; i++) console.log('x'.repeat({LOG_LENGTH_MAX + 7})); console.log('y')")
    ).start()
    (line,) = {text for _, text in activation.logs[:-1]}

    assert "x" * LOG_LENGTH_MAX + "… (7 more characters)" == line
    assert fits == len(activation.logs) - 1
    assert ("warn", "6 further lines of this step were left out of the log") == activation.logs[-1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(()=>1)();" * 1_000, "at most 300 functions"),
        (";".join(f"let v{i}=ctx" for i in range(500)) + ";await 1" * 500, "the compiled program takes"),
    ],
)
def test_what_is_too_large_only_when_compiled_is_refused_by_check_and_publish(
    text: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = body(f"{text}; return [{','.join(f'v{i}' for i in range(500)) if 'v1' in text else ''}]")
    compile_workflow(source, "w.flow", "w")
    monkeypatch.setattr(engine.flow_ir, "FUNCTIONS_MAX", 300)
    monkeypatch.setattr(engine, "IR_BYTES_MAX", 1 << 19)

    with pytest.raises(CompileError, match=says):
        compile_workflow(source, "w.flow", "w")
    assert [("F111", True)] == [(d.code, says in d.message) for d in check_source(source, "w.flow") if d.code == "F111"]


# Definitions and snapshots ------------------------------------------------------------------------


def test_a_snapshot_of_another_definition_is_refused() -> None:
    driver, other = Driver(body("await task('a')")), Driver(body("await task('b')"))
    other.start()
    driver.snapshot = other.snapshot

    with pytest.raises(SnapshotError, match="another definition"):
        driver.completed(1)


def test_a_live_heap_and_its_bytes_go_on_alike() -> None:
    source = body("const log = []; for (const n of [1, 2, 3]) { log.push(await task('t', { n }), n) } return log")
    results = []
    for live in (True, False):
        driver = Driver(source, live=live)
        driver.start()
        bytes_of = [driver.snapshot]
        for number in (1, 2):
            driver.completed(number, number * 10)
            bytes_of.append(driver.snapshot)
        results.append((bytes_of, result_of(driver.completed(3, 30))))

    assert results[0] == results[1]


def test_an_activation_without_bytes_keeps_the_heap() -> None:
    driver = Driver(body("return await task('a')"))
    start = StartInfo(EXECUTION_ID, "flow", driver.program.hash, NOW_MS, b"null")
    activation = activate(driver.program, environment=driver.environment, start=start, keep_bytes=False)
    assert activation.snapshot is None
    assert activation.live is not None
    last = activate(
        driver.program,
        environment=driver.environment,
        live=activation.live,
        deliveries=[Delivery(1, "completed", 1, None, b"3")],
    )

    assert result_of(last) == 3


def test_a_program_is_loaded_once() -> None:
    source = body("return 'loaded once'")

    assert program_of(source) is program_of(source)


def test_programs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PROGRAMS_CACHED", 2)
    first = program_of(body("return 'first'"))
    for number in range(3):
        program_of(body(f"return {number}"))

    assert program_of(body("return 'first'")) is not first


def test_a_damaged_definition_is_refused() -> None:
    definition = engine.compile_workflow(body("return 'damaged'"), "flow.flow", "flow")

    with pytest.raises(IRError):
        engine.load_program(definition.ir_bytes + b" ", definition.hash)


def test_the_realm_is_gone_after_an_activation() -> None:
    Driver(body("await task('a')")).start()

    with pytest.raises(AssertionError, match="outside an activation"):
        current_realm()


def test_the_standing_lists_what_is_awaited() -> None:
    activation = Driver(body("const s = signal('go', { timeout: '1h' })\nawait Promise.all([task('a'), s])")).start()
    entries = json.loads(activation.standing.awaiting)

    assert activation.standing.line == 3
    assert [("signal", "go", 3), ("task", "a", 3)] == [(e["kind"], e["name"], e["line"]) for e in entries]
    assert entries[0]["due"] == NOW_MS + 3_600_000
    assert [NOW_MS, NOW_MS] == [e["since"] for e in entries]


@pytest.mark.parametrize(
    "text", ["return 5[0]", "return true[0]", "return -5[0]", "return 'a'[0] === 5", "return typeof [1][0][1]"]
)
def test_what_python_finds_odd_compiles_without_a_warning(text: str, recwarn: pytest.WarningsRecorder) -> None:
    assert Driver(body(text)).start().outcome is not None
    assert [] == list(recwarn)


def test_the_stack_of_a_tasks_error_names_the_functions_that_waited() -> None:
    source = """
async function charge(order) {
  await task("fail", { message: "no money" })
}
workflow(ctx, inputs) {
  await charge("o-1")
}
"""

    def fail(message: str) -> None:
        raise ValueError(message)

    outcome = evaluate(source, tasks={"fail": fail}, snapshot="await")

    assert outcome.error is not None
    assert outcome.error.stack is not None
    lines = outcome.error.stack.split("\n")
    assert lines[0] == "ValueError: no money"
    assert lines[1:3] == ["    at async charge (workflow.flow:3:3)", "    at async workflow (workflow.flow:6:3)"]


def test_payloads_of_workflows_have_the_limit_of_all_payloads() -> None:
    inputs = evaluate(
        'workflow(ctx) { try { await task("x", { s: "y".repeat(2000000) }) } catch (e) { return e.message } }'
    )
    output = evaluate('workflow(ctx) { return "y".repeat(2000000) }')

    assert "payload_bytes_max" in inputs.result
    assert output.error is not None
    assert "payload_bytes_max" in (output.error.message or "")


def test_the_standing_says_what_a_forced_cancel_stops() -> None:
    text = (
        "task('alone'); const lost = task('lost'); const held = task('held').then(x => x)\n"
        "task('left', {}, { onCancel: 'abandon' }).then(x => x); task('pay', {}, { cancellable: false }).then(x => x)\n"
        "await Promise.race([lost, sleep(1)])\n"
        "await Promise.all([task('one'), child('two'), sleep('1d')])"
    )
    driver = Driver(body(text))
    first = driver.start()
    second = driver.timer(6)

    def stops(activation: Any) -> list[str]:
        return [entry["name"] for entry in json.loads(activation.standing.awaiting) if entry.get("stops")]

    assert ["lost", "held"] == stops(first)
    assert ["held", "one", "two"] == stops(second)


def test_what_is_not_listed_is_stopped_as_well() -> None:
    driver = Driver(body("task('fire'); await Promise.all(Array.from({ length: 300 }, (_, i) => task('a', { i })))"))
    awaiting = json.loads(driver.start().standing.awaiting)

    assert 201 == len(awaiting)
    assert {"kind": "more", "stops": [[201, 302]], "kinds": ["task"]} == awaiting[-1]


def test_a_signal_that_is_not_listed_is_known_to_be_waited_for() -> None:
    text = "const all = Array.from({ length: 250 }, () => task('a')); all.push(signal('go')); await Promise.all(all)"
    awaiting = Driver(body(text)).start().standing.awaiting

    assert b'"signal"' in awaiting  # so the invariants look for it
    assert {"kind": "more", "stops": [[201, 251]], "kinds": ["signal", "task"]} == json.loads(awaiting)[-1]
