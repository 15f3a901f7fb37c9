"""What every measured program does in the same way: its commands, its marks, the loop of single starts.

A program is one queue or engine behind five commands, so that one driver measures them all alike (`..driver`):

    PROGRAM URL prepare             makes tables, registers names
    PROGRAM URL fill KIND COUNT     starts COUNT executions as fast as its public API does; prints {"per_s": …}
    PROGRAM URL work                a worker, until it is told to terminate
    PROGRAM URL latency COUNT       starts tasks one by one while a worker is idle; prints {"ms": […]}
    PROGRAM URL steps COUNT         one workflow of so many sequential steps; prints {"ms_per_step": …}

KIND is ``task`` (a no-op that marks its index) or ``workflow`` (three no-op steps, then it marks). BENCH_SETTINGS is a
JSON object with the program's settings, BENCH_MARKS the file of marks: one float64 per index, CLOCK_MONOTONIC seconds.
Nothing of Rhythm is imported here: the peers have an environment of their own.
"""

import asyncio
import inspect
import json
import mmap
import os
import struct
import sys
import time

CAPACITY = 400_000
WAIT_SECONDS = 60.0
SETTINGS = json.loads(os.environ.get("BENCH_SETTINGS", "{}"))
_map = None


def marks():
    global _map
    if _map is None:
        descriptor = os.open(os.environ["BENCH_MARKS"], os.O_RDWR | os.O_CREAT, 0o600)
        if os.fstat(descriptor).st_size < CAPACITY * 8:
            os.ftruncate(descriptor, CAPACITY * 8)
        _map = mmap.mmap(descriptor, CAPACITY * 8)
        os.close(descriptor)
    return _map


def mark(index):
    struct.pack_into("d", _map or marks(), index * 8, time.perf_counter())


def clear(count):
    marks()[: count * 8] = bytes(count * 8)


def marked(index):
    return struct.unpack_from("d", marks(), index * 8)[0]


async def until_marked(index):
    deadline = time.perf_counter() + WAIT_SECONDS
    while not marked(index):
        if time.perf_counter() > deadline:
            raise SystemExit(f"execution {index} never ran")
        await asyncio.sleep(0.0005)
    return marked(index)


class Peer:
    """A program: its methods are plain or async."""

    def __init__(self, url):
        self.url = url

    async def open(self):
        """Before every command but ``work``."""

    async def close(self):
        """After it."""

    def prepare(self):
        """Tables, names."""

    def fill(self, kind, count):
        """Starts so many executions, with the indexes from 0 on."""
        raise NotImplementedError

    def start(self, index):
        """One task."""
        raise NotImplementedError

    def start_steps(self, count):
        """One workflow of so many steps, which marks index 0 at its end."""
        raise NotImplementedError

    def work(self):
        """A worker."""
        raise NotImplementedError


async def latency(peer, count):
    waits = []
    for index in range(count):
        began = time.perf_counter()
        await done(peer.start(index))
        waits.append((await until_marked(index) - began) * 1000)
        await asyncio.sleep(0.01)
    return {"ms": waits}


async def steps(peer, count):
    began = time.perf_counter()
    await done(peer.start_steps(count))
    return {"ms_per_step": (await until_marked(0) - began) * 1000 / count}


async def fill(peer, kind, count):
    began = time.perf_counter()
    await done(peer.fill(kind, int(count)))
    return {"per_s": int(count) / (time.perf_counter() - began)}


async def done(value):
    return await value if inspect.isawaitable(value) else value


async def command(peer, name, arguments):
    await done(peer.open())
    try:
        if name == "prepare":
            return await done(peer.prepare())
        if name == "fill":
            return await fill(peer, *arguments)
        return await (latency if name == "latency" else steps)(peer, int(arguments[0]))
    finally:
        await done(peer.close())


def run(peer_type, runner=asyncio.run):
    """The program's main: obeys the command line."""
    _, url, name, *arguments = sys.argv
    peer = peer_type(url)
    if name == "work":
        working = peer.work()
        if inspect.isawaitable(working):
            runner(working)
    else:
        answer = runner(command(peer, name, arguments))
        print(json.dumps(answer), flush=True)
        os._exit(0)  # some of them leave threads behind


def portions(count, size=1000):
    return (range(first, min(count, first + size)) for first in range(0, count, size))
