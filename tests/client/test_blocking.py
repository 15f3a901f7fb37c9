"""The blocking client: from many threads, across forks, and what is left of it when it is closed."""

from __future__ import annotations

import concurrent.futures
import inspect
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psycopg
import pytest

import rhythm
from tests.support.processes import TIMEOUT_SECONDS, Processes, clean_environment

WAIT = "workflow(ctx, inputs) { return await signal('go') }"


def backends(url: str) -> list[int]:
    """Process numbers of the server's sides of clients' connections."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "select pid from pg_stat_activity where datname = current_database() and application_name = 'rhythm client'"
        ).fetchall()
    return [pid for (pid,) in rows]


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def run_script(script: str, url: str) -> str:
    """What a script of its own process prints; it may warn of nothing, and leave nothing on standard error."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, url],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
    )
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


@pytest.mark.parametrize(
    ("asynchronous", "blocking"), [(rhythm.Client, rhythm.BlockingClient), (rhythm.Execution, rhythm.BlockingExecution)]
)
def test_it_has_the_same_methods_with_the_same_parameters(asynchronous: type, blocking: type) -> None:
    left_out = {"open", "store", "exists"}  # opened by its first use; the store is asynchronous
    for name in sorted({name for name in dir(asynchronous) if not name.startswith("_")} - left_out):
        ours, theirs = getattr(blocking, name), getattr(asynchronous, name)
        assert inspect.isfunction(ours) == inspect.isfunction(theirs), name
        if inspect.isfunction(theirs):
            parameters = [(p.name, p.kind, p.default) for p in inspect.signature(theirs).parameters.values()]
            assert [(p.name, p.kind, p.default) for p in inspect.signature(ours).parameters.values()] == parameters, (
                name
            )


def test_it_does_what_the_other_does(rhythm_url: str) -> None:
    with rhythm.connect_sync(rhythm_url) as client:
        execution = client.start("add", {"a": 1})
        (other,) = client.start_many([rhythm.Start("add", {"a": 2})])
        with pytest.raises(rhythm.WaitTimeout):
            execution.result(timeout=0.05)
        with pytest.raises(rhythm.WaitTimeout):
            client.wait(execution, timeout=0.05)

        assert execution.refresh().status == "pending"
        assert client.get(other).inputs == {"a": 2}
        assert len(client.list(name="add", status="pending", limit=1)) == 1
        execution.cancel()
        with pytest.raises(rhythm.ExecutionCancelled):
            execution.result(timeout=10)


def test_it_cancels_and_retries(rhythm_url: str) -> None:
    with rhythm.connect_sync(rhythm_url) as client:
        execution = client.start("add", {"a": 1}, key="k")
        execution.cancel(force=True)
        with pytest.raises(rhythm.ExecutionCancelled):
            execution.result(timeout=5)
        with pytest.raises(rhythm.RetryRefused) as refused:
            client.retry(execution.id)
        fresh = execution.retry(from_start=True)

        assert "name_unknown" == refused.value.code
        assert ("cancelled", "pending") == (execution.refresh().status, fresh.refresh().status)
        assert fresh.id == client.start("add", {"a": 1}, key="k").id


def test_many_threads_share_it_and_the_one_portal(rhythm_url: str) -> None:
    with rhythm.connect_sync(rhythm_url) as client:
        with concurrent.futures.ThreadPoolExecutor(24) as threads:
            ids = list(threads.map(lambda i: client.start("add", {"a": i}).id, range(240)))

        assert len(set(ids)) == 240
        assert len(client.list(limit=1_000)) == 240
        assert [thread.name for thread in threading.enumerate()].count("rhythm-portal") == 1


def test_nothing_begins_before_its_first_use_and_nothing_is_left_after_close(rhythm_url: str) -> None:
    before = set(threading.enumerate())
    client = rhythm.connect_sync(rhythm_url)
    assert set(threading.enumerate()) == before
    client.start("add", {})
    assert backends(rhythm_url)
    client.close()
    client.close()

    assert set(threading.enumerate()) == before
    until(lambda: not backends(rhythm_url), "the connections are closed")
    with pytest.raises(rhythm.RhythmError, match="closed"):
        client.start("add", {})


def test_closing_ends_calls_that_other_threads_wait_in(rhythm_url: str) -> None:
    client = rhythm.connect_sync(rhythm_url)
    execution = client.start("add", {})
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        waits = [threads.submit(execution.result) for _ in range(8)]
        waiting = client._portal.client._waits._waits  # type: ignore[union-attr]
        until(lambda: len(waiting.get(execution.id, ())) == 8, "all wait")
        client.close()

        for wait in waits:
            with pytest.raises(rhythm.RhythmError, match="closed"):
                wait.result(timeout=10)


def test_a_database_that_is_not_there_is_said_and_leaves_nothing(rhythm_url: str) -> None:
    before = set(threading.enumerate())
    client = rhythm.connect_sync("postgresql://nobody@127.0.0.1:1/none")

    for _ in range(2):
        with pytest.raises(rhythm.DatabaseUnavailable):
            client.start("add", {})
    assert set(threading.enumerate()) == before
    client.close()


FORK = """
import os, sys, threading
import rhythm

client = rhythm.connect_sync(sys.argv[1])
client.start("add", {"by": "parent"})
hold = threading.Event()
held = threading.Event()
def keep_the_lock():  # a thread that does not exist in the child
    with client._lock:
        held.set()
        hold.wait()
threading.Thread(target=keep_the_lock).start()
held.wait()
children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        client.start("add", {"by": number})
        assert len(client.list(limit=100)) >= 2
        if number % 2:
            client.close()
        sys.exit(0)  # with everything that is collected at the end
    children.append(child)
hold.set()
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
for _ in range(20):
    client.start("add", {"by": "parent"})
print(len(client.list(limit=100)))
client.close()
"""


def test_a_fork_after_use_gives_each_process_its_own(rhythm_url: str) -> None:
    assert run_script(FORK, rhythm_url) == "25\n"
    until(lambda: not backends(rhythm_url), "the connections are closed")


POOL = """
import multiprocessing, sys
import rhythm

client = rhythm.connect_sync(sys.argv[1])

def work(number):
    return str(client.start("add", {"n": number}, key=f"k{number}").id)

if __name__ == "__main__":
    client.start("add", {})
    with multiprocessing.get_context("fork").Pool(3) as pool:
        ids = pool.map(work, range(30), chunksize=1)
        pool.close()
        pool.join()
    assert ids == [work(number) for number in range(30)]
    print(len(set(ids)))
    client.close()
"""


def test_a_pool_of_forked_processes_uses_it(rhythm_url: str) -> None:
    assert run_script(POOL, rhythm_url) == "30\n"


PRELOADED = """
import os, signal, sys, time
import rhythm

client = rhythm.connect_sync(sys.argv[1])   # at import, before the server forks its workers
client.start("add", {})
child = os.fork()
if child == 0:
    client.start("add", {})
    print("child ready", flush=True)
    signal.pause()
print("parent ready", flush=True)
signal.pause()
"""


def test_a_child_holds_none_of_its_parents_connections(rhythm_url: str, processes: Processes) -> None:
    parent = processes.start([sys.executable, "-c", PRELOADED, rhythm_url])
    parent.wait_for_output("parent ready")
    parent.wait_for_output("child ready")
    both = set(backends(rhythm_url))
    parent._popen.kill()  # it alone: nobody says goodbye for it
    parent.wait()

    until(lambda: len(backends(rhythm_url)) == 1, "only the child's connection is left")
    assert len(both) == 2
