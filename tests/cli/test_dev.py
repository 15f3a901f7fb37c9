"""`rhythm dev` as a process: what it starts, what a changed file does, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import psutil
import pytest

from rhythm.store.embedded import EmbeddedServer
from tests.support.commands import Rhythm
from tests.support.processes import TIMEOUT_SECONDS, Process, Processes
from tests.support.proxy import Proxy

TASKS = """\
import rhythm

@rhythm.task
async def answer() -> int:
    return 1
"""
HOLDING = """
import asyncio, pathlib

@rhythm.task
async def hold() -> str:
    pathlib.Path("begun").touch()
    while not pathlib.Path("release").exists():
        await asyncio.sleep(0.01)
    return "old"
"""
FLOW = """\
workflow(ctx, inputs) {
  await signal("go")
  return 1
}
"""


@pytest.fixture
def shop(rhythm_db: Rhythm) -> Rhythm:
    rhythm_db.write("shop.py", TASKS)
    rhythm_db.write("workflows/order.flow", FLOW)
    return rhythm_db


def start_dev(shop: Rhythm, processes: Processes, *arguments: str) -> Process:
    dev = processes.rhythm("dev", *arguments, cwd=shop.folder, env=shop.env)
    dev.wait_for_output("worker ready")
    return dev


def the_worker(dev: Process) -> psutil.Process:
    (child,) = psutil.Process(dev.pid).children()
    return child


def wait_until_gone(process: psutil.Process) -> None:
    """Not psutil's own wait: an orphan is collected by whoever adopts it, in a container perhaps nobody."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"{process} is still there"
        time.sleep(0.02)


def times(dev: Process, text: str) -> int:
    return dev.output.count(text)


def wait_for_times(dev: Process, text: str, count: int) -> None:
    dev.wait_for_output(rf"(?s)({text}.*){{{count}}}")


@pytest.fixture
def project(embedded_project: Rhythm) -> Rhythm:
    embedded_project("init", code=0)
    return embedded_project


def test_it_starts_everything_from_nothing_and_ctrl_c_leaves_nothing(project: Rhythm, processes: Processes) -> None:
    dev = start_dev(project, processes)
    inputs = '{"orderId": "o-1", "amount": 25}'

    result = project("start", "processOrder", "--inputs", inputs, "--wait", "--timeout", "20s", "--json", code=0)
    worker = the_worker(dev)
    server = EmbeddedServer(project.folder / ".rhythm")
    users = server.status().users
    os.killpg(dev.pid, signal.SIGINT)  # as a terminal does

    assert result.json == {"success": True, "txn_id": "txn-o-1"}
    assert "dev: applied the migration initial" in dev.output
    assert os.getpgid(worker.pid) == dev.pid if worker.is_running() else True
    assert set(users) == {dev.pid, worker.pid}
    assert dev.wait() == 0
    assert not worker.is_running()
    assert server.status().running is False
    assert "Traceback" not in dev.output


def test_killing_it_ends_its_worker_and_the_database(project: Rhythm, processes: Processes) -> None:
    dev = start_dev(project, processes)
    worker = the_worker(dev)
    server = EmbeddedServer(project.folder / ".rhythm")
    os.kill(dev.pid, signal.SIGKILL)
    dev.wait()

    wait_until_gone(worker)

    assert server.status().running is False


def test_killing_it_ends_a_worker_that_is_blocked(shop: Rhythm, processes: Processes) -> None:
    shop.write("shop.py", TASKS + "\nimport time\ntime.sleep(600)\n")
    dev = processes.rhythm("dev", "--app", "shop", cwd=shop.folder, env=shop.env)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (children := psutil.Process(dev.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(dev.pid, signal.SIGKILL)

    wait_until_gone(children[0])


def test_a_changed_module_restarts_the_worker_after_running_tasks(shop: Rhythm, processes: Processes) -> None:
    shop.write("shop.py", TASKS + HOLDING)
    dev = start_dev(shop, processes, "--app", "shop")
    first = the_worker(dev)
    running = shop("start", "hold", code=0).out.strip()
    wait_for_file(shop, "begun")
    shop.write("shop.py", TASKS.replace("return 1", "return 2") + HOLDING.replace("old", "new"))

    dev.wait_for_output(r"dev: shop\.py changed; restarting the worker")
    shop.write("release", "")
    wait_for_times(dev, "worker ready", 2)

    assert not first.is_running()
    assert shop("wait", running, "--json", "--timeout", "20s", code=0).json == "old"  # it was drained
    assert shop("start", "answer", "--wait", "--timeout", "20s", "--json", code=0).json == 2


def test_a_module_that_cannot_be_imported_is_shown_and_waited_for(shop: Rhythm, processes: Processes) -> None:
    dev = start_dev(shop, processes, "--app", "shop")
    shop.write("shop.py", "import rhythm\nvalue = 1 / 0\n")

    dev.wait_for_output(r"shop\.py:2: ZeroDivisionError: division by zero")
    dev.wait_for_output("dev: waiting for a change")
    assert dev.alive
    shop.write("shop.py", TASKS.replace("return 1", "return 3"))
    wait_for_times(dev, "worker ready", 2)

    assert shop("start", "answer", "--wait", "--timeout", "20s", "--json", code=0).json == 3


def test_a_changed_workflow_is_published_and_says_who_stays_on_the_old_one(shop: Rhythm, processes: Processes) -> None:
    dev = start_dev(shop, processes, "--app", "shop")
    old = dev.wait_for_output(r"published order ([0-9a-f]{12}); 0 executions stay on the old definition")[1]
    started = [shop("start", "order", code=0).out.strip() for _ in range(2)]
    for execution_id in started:
        wait_for_status(shop, execution_id, "suspended")
    shop.write("workflows/order.flow", FLOW.replace("return 1", "return 2"))

    new = dev.wait_for_output(r"published order ([0-9a-f]{12}); 2 executions stay on the old definition")[1]
    shop("signal", started[0], "go", code=0)
    fresh = shop("start", "order", code=0).out.strip()
    shop("signal", fresh, "go", code=0)

    assert new != old
    assert shop("wait", started[0], "--timeout", "20s", "--json", code=0).json == 1
    assert shop("wait", fresh, "--timeout", "20s", "--json", code=0).json == 2
    assert times(dev, "worker ready") == 1


def test_a_workflow_with_a_mistake_is_shown_and_the_last_one_stays(shop: Rhythm, processes: Processes) -> None:
    dev = start_dev(shop, processes, "--app", "shop")
    shop.write("workflows/order.flow", FLOW.replace("await signal", "await singal"))
    dev.wait_for_output(r"workflows/order\.flow:2:\d+: error\[")
    shop.write("workflows/second.flow", FLOW)
    dev.wait_for_output("published second ")

    assert shop("start", "order", "--json", code=0).json["id"]
    shop.write("workflows/sub/order.flow", FLOW)
    dev.wait_for_output("two files are the workflow 'order'")
    assert dev.alive


async def test_a_workflow_changed_while_the_database_is_away_is_published_when_it_is_back(
    shop: Rhythm, processes: Processes, rhythm_url: str
) -> None:
    async with Proxy(rhythm_url) as proxy:
        through = Rhythm(shop.folder, {"RHYTHM_DATABASE_URL": proxy.url})
        dev = await asyncio.to_thread(start_dev, through, processes, "--app", "shop")
        proxy.cut()
        shop.write("workflows/order.flow", FLOW.replace("return 1", "return 2"))
        await asyncio.to_thread(dev.wait_for_output, "dev: not published yet: the database at ")
        proxy.mend()

        await asyncio.to_thread(dev.wait_for_output, r"(?s)not published yet.*dev: published order ")
        assert dev.alive


def test_a_worker_that_was_killed_is_started_again(shop: Rhythm, processes: Processes) -> None:
    dev = start_dev(shop, processes, "--app", "shop")
    the_worker(dev).kill()

    dev.wait_for_output("dev: the worker was killed by signal 9; starting another")
    wait_for_times(dev, "worker ready", 2)


def test_it_refuses_production_and_having_nothing_to_run(rhythm_db: Rhythm) -> None:
    rhythm_db.write("shop.py", TASKS)

    assert "RHYTHM_ENV is production" in rhythm_db("dev", "--app", "shop", env={"RHYTHM_ENV": "production"}, code=2).err
    assert "--app MODULE" in rhythm_db("dev", code=2).err


def test_outside_a_project_it_has_no_database(rhythm: Rhythm) -> None:
    rhythm.write("shop.py", TASKS)

    assert "rhythm init" in rhythm("dev", "--app", "shop", code=3).err


def wait_for_file(shop: Rhythm, name: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (shop.folder / name).exists():
        assert time.monotonic() < deadline, f"{name} never appears"
        time.sleep(0.01)


def wait_for_status(shop: Rhythm, execution_id: str, status: str) -> None:
    for _ in range(100):
        if shop("show", execution_id, "--json", code=0).json["status"] == status:
            return
    raise AssertionError(f"{execution_id} is never {status}")
