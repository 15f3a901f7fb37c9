"""Tasks in child processes: what goes in and comes out, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable

import psutil
import pytest
import pytest_asyncio

import rhythm
from rhythm.worker import children
from tests.support.processes import Process
from tests.support.proxy import Proxy
from tests.worker.conftest import Shop

TASKS = """
import ctypes, logging, os, signal, subprocess, sys, time
import rhythm

if __name__ != "numbers_": raise ImportError(__name__)

@rhythm.task(process=True)
def where(text: str, context: rhythm.TaskContext) -> dict:
    context.heartbeat()
    context.logger.info("said by %s", text)
    logging.getLogger("shop").warning("said beside")
    return {"pid": os.getpid(), "text": text, "attempt": context.attempt, "key": context.idempotency_key,
            "id": str(context.execution_id)}

@rhythm.task(process=True, retries=1, retry=rhythm.Retry(initial="1ms", no_retry_on=("KeyError",)))
def raises(error: str) -> None:
    raise {"KeyError": KeyError, "ValueError": ValueError, "SystemExit": SystemExit}[error]("no such number")

@rhythm.task(process=True)
def not_json() -> object:
    return {"a": b"bytes"}

@rhythm.task(process=True)
def ends(how: str) -> None:
    if how == "exit":
        os._exit(3)
    elif how == "segfault":
        ctypes.string_at(0)
    else:
        os.kill(os.getpid(), signal.SIGKILL)

@rhythm.task(process=True, timeout="2s")
def times_out(file: str) -> None:
    _begin(file)
    ctypes.PyDLL(None).sleep(60)  # holds the interpreter lock

@rhythm.task(process=True)
def stays(file: str) -> None:
    _begin(file)
    time.sleep(60)

@rhythm.task(process=True)
def meets(mine: str, other: str) -> int:
    open(mine, "w").close()
    while not os.path.exists(other):
        time.sleep(0.01)
    return os.getpid()

def _begin(file):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with open(file + ".new", "w") as out:
        out.write(f"{os.getpid()} {child.pid}")
    os.rename(file + ".new", file)
"""


APPLICATION = """
import asyncio, sys
import rhythm

@rhythm.task(process=True)
def where() -> str:
    return __name__

async def main():
    worker = rhythm.Worker(database_url=sys.argv[1], poll_interval="50ms")
    print("started once", flush=True)
    running = asyncio.create_task(worker.run())
    async with rhythm.connect(sys.argv[1]) as client:
        (execution,) = await client.list()
        await client.wait(execution.id)
    await worker.stop()
    await running

if __name__ == "__main__":
    asyncio.run(main())
"""


class Numbers:
    """The shop with these tasks, and a worker for them."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.client = shop.client
        (shop.folder / "numbers_.py").write_text(TASKS)

    async def worker(self, *arguments: str, url: str | None = None) -> Process:
        options = ("--heartbeat-timeout", "2s", "--poll-interval", "100ms", *arguments)
        worker = self.shop.processes.worker(url or self.shop.url, *options, app=["numbers_"], cwd=self.shop.folder)
        await asyncio.to_thread(worker.wait_for_output, "ready")
        return worker

    async def begun(self, name: str) -> tuple[rhythm.Execution[object], list[psutil.Process]]:
        """Starts a task that stays: its execution, its process, and the process that it has started."""
        file = self.shop.folder / "begun"
        execution = await self.client.start(name, {"file": str(file)})
        await until(file.exists)
        return execution, [psutil.Process(int(pid)) for pid in file.read_text().split()]


async def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest_asyncio.fixture
async def numbers(shop: Shop) -> Numbers:
    return Numbers(shop)


async def test_a_process_runs_one_task_after_the_other(numbers: Numbers) -> None:
    worker = await numbers.worker()
    outputs = []
    for text in ("U+0000 \x00", "\ud800", "é"):
        execution = await numbers.client.start("where", {"text": text})
        outputs.append(await execution.result(timeout=30))
        assert outputs[-1] == {
            "pid": outputs[0]["pid"],
            "text": text,
            "attempt": 1,
            "key": str(execution.id),
            "id": str(execution.id),
        }

    child = psutil.Process(outputs[0]["pid"])
    assert worker.pid == child.ppid()
    worker.wait_for_output(rf"execution_id={execution.id} attempt=1 said by é")
    worker.wait_for_output(rf"execution_id={execution.id} attempt=1 said beside")
    worker.terminate()
    assert await asyncio.to_thread(worker.wait) == 0
    assert gone(child)


async def test_no_more_processes_run_than_are_allowed(numbers: Numbers) -> None:
    await numbers.worker("--task-processes", "1")
    ids = await numbers.client.start_many([rhythm.Start("where", {"text": str(i)}) for i in range(30)])
    pids = {(await numbers.client.wait(i, timeout=60))["pid"] for i in ids}

    assert len(pids) == 1


async def test_processes_run_at_the_same_time(numbers: Numbers) -> None:
    await numbers.worker("--task-processes", "2")
    files = [str(numbers.shop.folder / name) for name in ("one", "two")]
    ids = await numbers.client.start_many(
        [rhythm.Start("meets", {"mine": mine, "other": other}) for mine, other in (files, files[::-1])]
    )
    first, second = [await numbers.client.wait(i, timeout=30) for i in ids]

    assert first != second


@pytest.mark.parametrize(("error", "attempts"), [("ValueError", 2), ("SystemExit", 2), ("KeyError", 1)])
async def test_what_a_task_raises_comes_back_with_its_traceback(numbers: Numbers, error: str, attempts: int) -> None:
    await numbers.worker()
    execution = await numbers.client.start("raises", {"error": error})

    with pytest.raises(rhythm.ExecutionFailed, match="no such number") as failed:
        await execution.result(timeout=30)
    assert (failed.value.name, failed.value.type) == (error, "failed")
    assert failed.value.traceback is not None
    assert re.search(r'numbers_\.py", line \d+, in raises\n', failed.value.traceback)
    assert "child.py" not in failed.value.traceback
    assert (await execution.refresh()).attempts == attempts


@pytest.mark.parametrize(
    ("name", "inputs", "error", "says"),
    [("not_json", {}, "OutputInvalid", "$.a"), ("where", {"texts": "a"}, "TaskInputInvalid", "texts")],
)
async def test_inputs_and_outputs_are_checked_in_the_process(
    numbers: Numbers, name: str, inputs: dict[str, object], error: str, says: str
) -> None:
    await numbers.worker()
    with pytest.raises(rhythm.ExecutionFailed) as failed:
        await (await numbers.client.start(name, inputs)).result(timeout=30)

    assert error == failed.value.name
    assert says in failed.value.remote_message


@pytest.mark.parametrize(
    ("how", "says", "data"),
    [
        ("exit", "exit status 3", {"exit_status": 3}),
        ("segfault", "SIGSEGV", {"signal": signal.SIGSEGV}),
        ("kill", "SIGKILL: perhaps it has used too much memory", {"signal": signal.SIGKILL}),
    ],
)
async def test_a_process_that_ends_in_the_middle_fails_that_attempt_alone(
    numbers: Numbers, how: str, says: str, data: dict[str, int]
) -> None:
    worker = await numbers.worker()
    ends = await numbers.client.start("ends", {"how": how}, retries=1)
    with pytest.raises(rhythm.ExecutionFailed) as failed:
        await ends.result(timeout=40)
    after = await numbers.client.start("where", {"text": "after"})

    assert (failed.value.name, failed.value.type, failed.value.data) == ("TaskProcessDied", "failed", data)
    assert says in failed.value.remote_message
    info = await ends.refresh()
    assert (info.attempts, info.lost) == (2, 0)
    assert (await after.result(timeout=30))["text"] == "after"
    assert worker.alive


async def test_a_process_is_killed_at_its_timeout_with_all_it_has_started(numbers: Numbers) -> None:
    await numbers.worker()
    execution, processes = await numbers.begun("times_out")

    with pytest.raises(rhythm.ExecutionFailed) as failed:
        await execution.result(timeout=30)
    assert failed.value.type == "timeout"
    for process in processes:
        await until(lambda process=process: gone(process))


async def test_a_process_is_killed_when_its_task_is_cancelled(numbers: Numbers) -> None:
    await numbers.worker()
    execution, processes = await numbers.begun("stays")
    processes[0].terminate()  # as a service manager does with all processes of a service: the worker decides
    await execution.cancel()

    with pytest.raises(rhythm.ExecutionCancelled):
        await execution.result(timeout=30)
    for process in processes:
        await until(lambda process=process: gone(process))


@pytest.mark.parametrize("how", ["drain", "twice", "kill"])
async def test_no_process_outlives_its_worker(numbers: Numbers, how: str) -> None:
    worker = await numbers.worker("--drain-timeout", "100ms" if how == "drain" else "60s")
    execution, processes = await numbers.begun("stays")
    if how == "kill":
        os.kill(worker.pid, signal.SIGKILL)
    else:
        worker.terminate()
        worker.wait_for_output("draining")
        if how == "twice":
            worker.terminate()

    await asyncio.to_thread(worker.wait)
    await until(lambda: gone(processes[0]), 2.0)
    if how != "kill":  # then the kernel kills the process, and nobody what that has started
        assert gone(processes[1])
        info = await execution.refresh()
        assert (info.status, info.attempts, info.lost) == ("pending", 0, 0)
    with contextlib.suppress(psutil.NoSuchProcess):
        processes[1].kill()


async def test_a_process_is_killed_when_its_worker_is_cut_off(numbers: Numbers) -> None:
    async with Proxy(numbers.shop.url) as proxy:
        await numbers.worker(url=proxy.url)
        execution, processes = await numbers.begun("stays")
        proxy.silence()
        for process in processes:
            await until(lambda process=process: gone(process))
        (numbers.shop.folder / "begun").unlink()
        proxy.mend()
        await until((numbers.shop.folder / "begun").exists)

        info = await execution.refresh()
        assert (info.attempts, info.lost) == (2, 1)


async def test_tasks_of_the_main_module_run_in_processes_too(shop: Shop) -> None:
    (shop.folder / "application.py").write_text(APPLICATION)
    execution = await shop.client.start("where", {})
    application = shop.processes.start([sys.executable, "application.py", shop.url])

    assert await execution.result(timeout=30) == "__mp_main__"
    assert await asyncio.to_thread(application.wait) == 0
    assert "started once" == application.output.strip()


@pytest.mark.parametrize(
    ("options", "says"), [({"process": True}, "top of a module"), ({"process": True, "transactional": True}, "both")]
)
def test_what_cannot_run_in_a_process_is_refused_at_its_declaration(options: dict[str, bool], says: str) -> None:
    with pytest.raises(TypeError, match=says):

        @rhythm.task(**options)
        def inner() -> None: ...


def test_an_async_function_does_not_run_in_a_process() -> None:
    with pytest.raises(TypeError, match="def functions"):

        @rhythm.task(process=True)
        async def inner() -> None: ...


def test_a_child_is_not_kept_idle_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "IDLE_SECONDS_MAX", 0.3)
    kept = children.Children(payload_bytes_max=1 << 20)
    try:
        first, second = kept.take(), kept.take()
        pids = {child._process.pid for child in (first, second)}
        kept.give_back(first)
        assert first is kept.take()  # it is used again
        kept.give_back(first)
        kept.give_back(second)
        deadline = time.monotonic() + 20
        while kept._all or any(psutil.pid_exists(pid) for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.01)

        assert kept.take() not in (first, second)
    finally:
        kept.close()
        kept.join()
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
