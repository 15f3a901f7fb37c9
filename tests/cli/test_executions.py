"""start, wait, list, show, signal, publish, migrate on a real database, without a worker."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import rhythm
from rhythm.model import TaskRegistration, WorkerRegistration, new_id
from tests.support.commands import Rhythm
from tests.support.processes import Processes

UNKNOWN = "0192f0c1-7e3a-7c55-9a55-2f8c54e0a1b2"
FLOW = 'workflow(ctx, inputs) {\n  return await task("charge", { amount: inputs.amount })\n}\n'


def test_start_prints_the_id_and_list_and_show_know_it(rhythm_db: Rhythm) -> None:
    started = rhythm_db("start", "charge", "--inputs", '{"amount": 25.5}', "--queue", "orders", code=0).out.strip()
    as_json = rhythm_db("start", "charge", "--key", "k-1", "--priority", "7", "--json", code=0).json

    listed = rhythm_db("list", "--json", code=0).json_lines
    shown = rhythm_db("show", started, "--json", code=0).json

    assert [entry["id"] for entry in listed] == [as_json["id"], started]
    assert (shown["id"], shown["name"], shown["status"], shown["queue"]) == (started, "charge", "pending", "orders")
    assert shown["inputs"] == {"amount": 25.5}
    assert (listed[0]["key"], listed[0]["priority"]) == ("k-1", 7)
    assert f"id        {started}" in rhythm_db("show", started, code=0).out
    assert started in rhythm_db("list", "--queue", "orders", code=0).out
    assert rhythm_db("list", "--status", "failed", "--json", code=0).out == ""


def test_a_key_makes_start_safe_to_repeat(rhythm_db: Rhythm) -> None:
    first = rhythm_db("start", "charge", "--key", "k-1", "--inputs", '{"n": 1}', code=0)
    again = rhythm_db("start", "charge", "--key", "k-1", "--inputs", '{"n": 1}', code=0)

    assert first.out == again.out
    rhythm_db("start", "charge", "--key", "k-1", "--inputs", '{"n": 2}', code=1)


def test_waiting_without_a_worker_says_so_within_two_seconds(rhythm_db: Rhythm, processes: Processes) -> None:
    rhythm_db("list", code=0)  # caches are warm
    waiting = processes.rhythm("start", "charge", "--wait", "--timeout", "4s", cwd=rhythm_db.folder, env=rhythm_db.env)
    begin = time.monotonic()

    waiting.wait_for_output("No live worker can run 'charge' on the queue 'default'")

    assert time.monotonic() - begin < 2.0
    assert waiting.wait() == 3
    assert "it carries on" in waiting.output


def test_unknown_and_malformed_ids_are_wrong_input(rhythm_db: Rhythm) -> None:
    for command in (["show", UNKNOWN], ["wait", UNKNOWN], ["signal", UNKNOWN, "go"]):
        result = rhythm_db(*command, code=2)
        assert result.err.startswith("rhythm: no execution ")
        assert UNKNOWN in result.err
    assert "'nonsense' is not an execution id" in rhythm_db("show", "nonsense", code=2).err


def test_a_payload_over_the_limit_names_the_limit(rhythm_db: Rhythm) -> None:
    rhythm_db.write("big.json", '{"text": "' + "x" * (1024 * 1024) + '"}')

    result = rhythm_db("start", "charge", "--inputs", "@big.json", code=2)

    assert "payload_bytes_max" in result.err
    rhythm_db("start", "charge", "-i", "@big.json", env={"RHYTHM_PAYLOAD_BYTES_MAX": "2_000_000"}, code=0)


def test_names_with_markup_and_control_characters_are_shown_harmlessly(rhythm_db: Rhythm) -> None:
    name = "[red]x\x1b[2J\u202e'; drop table--"
    started = rhythm_db("start", name, "--inputs", '{"a": "\\u001b[31m<b>"}', code=0).out.strip()

    for arguments in (["list"], ["show", started]):
        out = rhythm_db(*arguments, code=0).out
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert r"[red]x\x1b[2J\u202e'; drop table--" in out
    assert rhythm_db("show", started, "--json", code=0).json["name"] == name


def test_publish_stores_all_or_nothing(rhythm_db: Rhythm) -> None:
    rhythm_db.write("flows/order.flow", FLOW)
    first = rhythm_db("publish", "flows", "--json", code=0).json
    again = rhythm_db("publish", "flows", "--json", code=0).json
    rhythm_db.write("flows/order.flow", FLOW.replace("charge", "refund"))
    rhythm_db.write("flows/zbroken.flow", "workflow(ctx, inputs) {\n  retrun 1\n}\n")

    broken = rhythm_db("publish", "flows", code=1)

    assert (first["name"], first["changed"]) == ("order", True)
    assert (again["hash"], again["changed"]) == (first["hash"], False)
    assert "flows/zbroken.flow:2:" in broken.err
    (rhythm_db.folder / "flows" / "zbroken.flow").unlink()
    assert rhythm_db("publish", "flows", "--json", code=0).json["changed"] is True


def test_a_pending_workflow_shows_no_standing(rhythm_db: Rhythm) -> None:
    rhythm_db.write("order.flow", FLOW)
    rhythm_db("publish", "order.flow", code=0)
    started = rhythm_db("start", "order", "--inputs", '{"amount": 1}', code=0).out.strip()

    shown = rhythm_db("show", started, "--json", code=0).json

    assert (shown["kind"], shown["status"], shown["standing"]) == ("workflow", "pending", None)


def test_queues_and_workers_print_what_there_is(rhythm_db: Rhythm) -> None:
    for _ in range(3):
        rhythm_db("start", "charge", "--queue", "orders", code=0)

    (orders,) = [queue for queue in rhythm_db("queues", "--json", code=0).json_lines if queue["queue"] == "orders"]

    assert {"queue", "pending", "running", "suspended", "oldest_pending_seconds", "paused"} <= set(orders)
    assert (orders["pending"], orders["running"], orders["suspended"], orders["paused"]) == (3, 0, 0, False)
    assert orders["oldest_pending_seconds"] >= 0
    assert rhythm_db("workers", "--json", code=0).out == ""


def test_limits_of_a_queue_are_set_shown_and_removed(rhythm_db: Rhythm) -> None:
    assert (
        "there is no queue 'mial'; the queues are default"
        in rhythm_db("queues", "limit", "mial", "--rate", "5/s", code=2).err
    )
    started = rhythm_db("start", "charge", "--queue", "mail", "--limit-key", "c-7", code=0).out.strip()
    said = rhythm_db("queues", "limit", "mail", "--concurrency", "1", "--key-rate", "5/1m", code=0).err
    (mail,) = [queue for queue in rhythm_db("queues", "--json", code=0).json_lines if queue["queue"] == "mail"]
    table = rhythm_db("queues", code=0).out
    shown = rhythm_db("show", started, "--json", code=0).json
    removed = rhythm_db("queues", "limit", "mail", "--none", code=0).err

    assert "The queue 'mail' has the limits: 1 at a time; per key 5/1m." in said
    assert (1, None, 5, 60.0) == tuple(mail[name] for name in ("concurrency", "rate", "key_rate", "key_rate_seconds"))
    assert re.search(r"^mail .* 1 at a time; per key 5/1m$", table, re.MULTILINE)
    assert ("c-7", None) == (shown["limit_key"], shown["gate"]), "nobody knows the task: that is what it waits for"
    assert "The queue 'mail' has no limits." in removed


def test_migrate_from_nothing_and_again(tmp_path: Path, postgres_url: str) -> None:
    rhythm = Rhythm(tmp_path, {"RHYTHM_DATABASE_URL": postgres_url})

    assert "rhythm migrate" in rhythm("list", code=3).err
    pending = rhythm("migrate", "--status", "--json", code=1).json_lines
    applied = rhythm("migrate", "--json", code=0).json_lines

    assert [entry["migration"] for entry in pending] == [entry["migration"] for entry in applied] != []
    assert {entry["applied"] for entry in pending} == {False}
    assert rhythm("migrate", code=0).out == ""
    rhythm("migrate", "--status", code=0)
    rhythm("list", code=0)


def test_migrate_prints_sql_that_makes_the_schema(tmp_path: Path, postgres_url: str) -> None:
    rhythm = Rhythm(tmp_path, {})

    sql = rhythm("migrate", "--sql", code=0).out

    assert "create schema" in sql
    assert "create or replace function rhythm." in sql or "create function rhythm." in sql


def test_retry_says_what_it_did_and_refuses_what_has_not_failed(rhythm_db: Rhythm) -> None:
    rhythm_db.write("flows/pay.flow", FLOW)
    rhythm_db("publish", "flows", code=0)
    started = rhythm_db("start", "pay", "--inputs", '{"amount": 1}', "--key", "k", code=0).out.strip()
    early = rhythm_db("retry", started, code=1)
    rhythm_db("cancel", started, code=0)
    resumed = rhythm_db("retry", started, code=1)
    fresh = rhythm_db("retry", started, "--from-start", code=0).out.strip()
    again = rhythm_db("retry", started, "--from-start", "--json", code=1)

    assert f"execution {started} cannot be retried: it has not finished" in early.err
    assert "was cancelled leaves nothing to resume; start it anew (from_start)" in resumed.err
    assert fresh != started
    assert "pending" == rhythm_db("show", fresh, "--json", code=0).json["status"]
    assert f"its key belongs to execution {fresh} by now" in again.err
    assert "" == again.out
    assert UNKNOWN in rhythm_db("retry", UNKNOWN, code=2).err


def test_cancel_says_what_became_of_it(rhythm_db: Rhythm) -> None:
    started = [rhythm_db("start", "charge", code=0).out.strip() for _ in range(2)]
    asked = rhythm_db("cancel", started[0], "--json", code=0)
    forced = rhythm_db("cancel", started[1], "--force", code=0)
    again = rhythm_db("cancel", started[1], "--force", code=1)

    assert {"id": started[0], "status": "cancelled"} == asked.json
    assert ("", "cancelled\n") == (forced.out, forced.err)
    assert "has finished" in again.err
    assert UNKNOWN in rhythm_db("cancel", UNKNOWN, "--force", code=2).err


def test_a_retried_task_is_claimable_again(rhythm_db: Rhythm, rhythm_url: str) -> None:
    async def register() -> None:
        async with rhythm.connect(rhythm_url) as client:
            tasks = [TaskRegistration("charge")]
            await client.store.register_worker(WorkerRegistration(new_id(), "host", 1, tasks=tasks))

    asyncio.run(register())
    started = rhythm_db("start", "charge", code=0).out.strip()
    rhythm_db("cancel", started, code=0)
    retried = rhythm_db("retry", started, code=0)
    shown = rhythm_db("show", started, "--json", code=0).json
    rhythm_db("cancel", started, code=0)

    assert ("", "it is claimable again\n") == (retried.out, retried.err)
    assert ("pending", "CancelledError") == (shown["status"], shown["last_failure"]["name"])
    assert {"id": started} == rhythm_db("retry", started, "--json", code=0).json
