"""`rhythm worker --health-port`: 200 while all is well, 503 and the reason otherwise."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import urllib.error
import urllib.request

import psutil
import pytest

from tests.support.commands import Rhythm
from tests.support.processes import TIMEOUT_SECONDS, Process, Processes
from tests.support.proxy import Proxy

TASKS = """\
import time
import rhythm

@rhythm.task
async def block(seconds: float) -> None:
    time.sleep(seconds)
"""


@pytest.fixture
def shop(rhythm_db: Rhythm) -> Rhythm:
    rhythm_db.write("shop.py", TASKS)
    return rhythm_db


def start_worker(shop: Rhythm, processes: Processes, *arguments: str, url: str | None = None) -> tuple[Process, int]:
    env = {"RHYTHM_DATABASE_URL": url or shop.env["RHYTHM_DATABASE_URL"]}
    worker = processes.rhythm(
        "worker",
        "--app",
        "shop",
        "--health-port",
        "0",
        "--poll-interval",
        "100ms",
        *arguments,
        cwd=shop.folder,
        env=env,
    )
    return worker, int(worker.wait_for_output(r"health port=(\d+)")[1])


def ask(port: int, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/health", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode().strip()


def until(port: int, status: int, text: str) -> str:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        found = ask(port)
        if found[0] == status and text in found[1]:
            return found[1]
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


async def test_it_is_well_until_the_database_goes_and_again_when_it_comes_back(
    shop: Rhythm, processes: Processes, rhythm_url: str
) -> None:
    async with Proxy(rhythm_url) as proxy:
        worker, port = await asyncio.to_thread(start_worker, shop, processes, url=proxy.url)
        assert await asyncio.to_thread(until, port, 200, "ok") == "ok"
        proxy.cut()
        reason = await asyncio.to_thread(until, port, 503, "the database")
        proxy.mend()

        assert "answer" in reason
        assert await asyncio.to_thread(until, port, 200, "ok") == "ok"
        worker.terminate()
        assert await asyncio.to_thread(worker.wait) == 0


async def test_a_database_that_is_silent_is_noticed(shop: Rhythm, processes: Processes, rhythm_url: str) -> None:
    async with Proxy(rhythm_url) as proxy:
        _, port = await asyncio.to_thread(start_worker, shop, processes, "--heartbeat-timeout", "2s", url=proxy.url)
        await asyncio.to_thread(until, port, 200, "ok")
        proxy.silence()

        await asyncio.to_thread(until, port, 503, "")


def test_a_blocked_exchange_is_told_and_passes(shop: Rhythm, processes: Processes) -> None:
    _, port = start_worker(shop, processes)
    until(port, 200, "ok")
    shop("start", "block", "--inputs", '{"seconds": 4}', code=0)

    until(port, 503, "the exchange has not turned for")
    until(port, 200, "ok")


def test_one_port_for_several_processes_is_well_only_with_all_of_them(shop: Rhythm, processes: Processes) -> None:
    parent, port = start_worker(shop, processes, "--processes", "2")
    until(port, 200, "ok")
    first, second = (child.pid for child in psutil.Process(parent.pid).children())

    os.kill(first, signal.SIGSTOP)
    assert until(port, 503, f"process {first} does not answer")
    os.kill(first, signal.SIGCONT)
    until(port, 200, "ok")
    os.kill(second, signal.SIGKILL)
    parent.wait_for_output(f"worker process {second} was killed by signal 9; starting another")
    until(port, 200, "ok")
    assert second not in [child.pid for child in psutil.Process(parent.pid).children()]
    parent.terminate()
    assert parent.wait() == 0


def test_strange_requests_harm_nobody(shop: Rhythm, processes: Processes) -> None:
    _, port = start_worker(shop, processes)
    until(port, 200, "ok")
    with socket.create_connection(("127.0.0.1", port)) as silent, socket.create_connection(("127.0.0.1", port)) as loud:
        loud.sendall(b"x" * 20_000)
        silent.sendall(b"GET / HT")

        assert ask(port) == (200, "ok")
        assert ask(port, "POST")[0] == 405
        assert ask(port, "HEAD") == (200, "")


def test_a_port_that_is_taken_is_said_at_once(shop: Rhythm) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]

        for more in ([], ["--processes", "2"]):
            result = shop("worker", "--app", "shop", "--health-port", str(port), *more, code=2)
            assert f"cannot listen on the health port {port}: " in result.err
