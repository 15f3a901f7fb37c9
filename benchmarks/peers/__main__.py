"""Measures Rhythm and its peers alike: python -m benchmarks.peers [--only rhythm,dbos,…] [--repeats 3] [--scale 1.0]

Every peer is a small program behind the same five commands (programs/peer.py says which), with the settings that were
its fastest here; what is measured, and how, is written once, in this file:

    tasks/s       a queue filled before, drained by one and by two worker processes, from the first to the last start
    start to run  single starts with one idle worker, from the call to the first line of the task
    workflows/s   workflows of three sequential no-op steps, all started before, two worker processes
    ms per step   one workflow of many sequential no-op steps

The peers on PostgreSQL share one fresh embedded server, each in a database of its own; `durable` says whether a
finished transition survives a crash of the machine. Peers are installed into .bench/ at first (pinned in
requirements.txt and package.json); those on Redis need `redis-server` on the path and are left out without it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from rhythm.bench import clocks
from rhythm.bench.harness import Harness
from rhythm.store.embedded import EmbeddedServer

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
INSTALLED = HERE.parents[1] / ".bench"
PYTHON = INSTALLED / "python"
NODE = INSTALLED / "node"
ADAPTER = HERE.parents[1] / "node" / "dist" / "src" / "index.js"
LATENCIES = 200
STEPS = 1000
WAIT_SECONDS = 240.0
COMMAND_SECONDS = 300.0
STOP_SECONDS = 5.0
LOOK_SECONDS = 0.05
IDLE_SECONDS = 2.5  #: until a worker has started and is idle: all peers have nothing in common that would tell


@dataclass(frozen=True, slots=True)
class Peer:
    """A program, how much of each load it gets (a run takes seconds, not minutes), and its fastest settings."""

    program: str
    tasks: int
    settings: dict[str, Any] = field(default_factory=dict)
    workflows: int = 0  #: 0: it has none
    on: str = "postgres"  #: or "redis", "itself"
    idle: dict[str, Any] = field(default_factory=dict)  #: settings while start to run is measured
    remark: str = ""


PEERS = {
    "rhythm": Peer("on_rhythm.py", 200_000, workflows=3000),
    "rhythm-node": Peer("on_rhythm_node.mjs", 200_000, remark="tasks in Node.js"),
    "graphile-worker": Peer(
        "on_graphile.mjs", 200_000, {"jobs": 24, "local": 500, "delay": 0}, remark="keeps no results"
    ),
    "pg-boss": Peer("on_pgboss.mjs", 100_000, {"loops": 1, "batch": 1000, "idle": 5}),
    "pgqueuer": Peer(
        "on_pgqueuer.py", 60_000, {"batch_size": 1000}, idle={"batch_size": 10}, remark="keeps no results"
    ),
    "procrastinate": Peer("on_procrastinate.py", 4_000, {"concurrency": 30}, remark="keeps no results"),
    "dbos": Peer(
        "on_dbos.py", 2_000, {"concurrency": 10, "poll": 0.02}, workflows=600, idle={"concurrency": 10, "poll": 0.01}
    ),
    "absurd": Peer("on_absurd.py", 5_000, {"batch_size": 50}, workflows=1500, idle={"batch_size": 1}),
    "restate": Peer("on_restate.mjs", 5_000, {"inflight": 100}, workflows=2000, on="itself"),
    "dramatiq": Peer("on_dramatiq.py", 20_000, {"threads": 4}, on="redis", remark="not durable"),
    "saq": Peer("on_saq.py", 10_000, {"concurrency": 20}, on="redis", remark="not durable"),
    "celery": Peer("on_celery.py", 5_000, {}, on="redis", remark="not durable"),
}


class Failed(Exception):
    """A peer's program ended with an error, or did not finish what it was given."""


# --- installing ----------------------------------------------------------------------------------


def install() -> None:
    """The peers, once for every change of their pins."""
    python_pins, node_pins = HERE / "requirements.txt", HERE / "package.json"
    if not same(python_pins, PYTHON / "installed.txt"):
        print("Installing the peers for Python into .bench/python", flush=True)
        venv.create(PYTHON, with_pip=True)
        pip = [str(PYTHON / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--only-binary", ":all:", "-r", str(python_pins)], check=True)
        shutil.copy(python_pins, PYTHON / "installed.txt")
    if not same(node_pins, NODE / "installed.json"):
        print("Installing the peers for Node.js into .bench/node", flush=True)
        NODE.mkdir(parents=True, exist_ok=True)
        shutil.copy(node_pins, NODE)
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel", "error", "--foreground-scripts"]
        subprocess.run(command, cwd=NODE, check=True, stdout=subprocess.DEVNULL)
        shutil.copy(node_pins, NODE / "installed.json")
    for program in PROGRAMS.glob("*.mjs"):  # Node.js looks for packages beside a module
        shutil.copy(program, NODE)


def same(pins: Path, installed: Path) -> bool:
    return installed.exists() and installed.read_bytes() == pins.read_bytes()


# --- running a peer's program --------------------------------------------------------------------


class Program:
    """A peer's program against one server."""

    def __init__(self, peer: Peer, url: str, log: Path) -> None:
        self.peer = peer
        self.url = url
        self.log = log

    def command(self, *arguments: object) -> list[str]:
        """The command line of one of its commands."""
        if self.peer.program.endswith(".mjs"):
            start = [str(NODE / "node_modules" / ".bin" / "node"), str(NODE / self.peer.program)]
        elif self.peer.program == "on_rhythm.py":
            start = [sys.executable, str(PROGRAMS / self.peer.program)]
        else:
            start = [str(PYTHON / "bin" / "python"), str(PROGRAMS / self.peer.program)]
        return [*start, self.url, *map(str, arguments)]

    def environment(self, settings: dict[str, Any]) -> dict[str, str]:
        """What it is told beside its arguments."""
        return os.environ | {
            "BENCH_MARKS": os.environ[clocks.VARIABLE],
            "BENCH_SETTINGS": json.dumps(settings),
            "BENCH_PYTHON": sys.executable,
            "BENCH_ADAPTER": str(ADAPTER),
        }

    def call(self, *arguments: object, prefix: Sequence[str] = ()) -> Any:
        """Runs one command to its end: what it answers. Raises Failed."""
        with open(self.log, "ab") as log:
            try:
                ran = subprocess.run(
                    [*prefix, *self.command(*arguments)],
                    env=self.environment(self.peer.settings),
                    stdout=subprocess.PIPE,
                    stderr=log,
                    timeout=COMMAND_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise Failed(f"{arguments[0]}: not within {COMMAND_SECONDS:.0f} s") from None
        if ran.returncode != 0:
            raise Failed(f"{arguments[0]}: exit code {ran.returncode}\n{self.log.read_text(errors='replace')[-2000:]}")
        lines = ran.stdout.decode().strip().splitlines()
        return json.loads(lines[-1]) if lines else None

    @contextmanager
    def workers(self, count: int, settings: dict[str, Any]) -> Iterator[None]:
        """Worker processes, killed at the end with all that they started."""
        running: list[subprocess.Popen[bytes]] = []
        try:
            with open(self.log, "ab") as log:
                running += [
                    subprocess.Popen(
                        self.command("work"),
                        env=self.environment(settings),
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                    for _ in range(count)
                ]
            yield
        finally:
            for process in running:
                end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Terminates a process and its group, by force after a few seconds."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def drained(count: int) -> float:
    """Executions a second, once all of them have run. Raises Failed."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        time.sleep(LOOK_SECONDS)
        if clocks.marked(count - 1):
            with suppress(ValueError):
                return count / clocks.span(count)
        if time.monotonic() > deadline:
            raise Failed(f"{count} executions: not all ran within {WAIT_SECONDS:.0f} s")


# --- measuring -----------------------------------------------------------------------------------


class Measure:
    """One run: figures of every peer."""

    def __init__(self, harness: Harness, scale: float) -> None:
        self.harness = harness
        self.scale = scale

    async def peer(self, name: str) -> None:
        """All figures of one peer, once."""
        peer = PEERS[name]
        tasks, workflows = max(100, int(peer.tasks * self.scale)), max(50, int(peer.workflows * self.scale))
        steps = max(50, int(STEPS * self.scale))
        if peer.on == "itself":
            self._itself(name, tasks, workflows, steps)
            return
        for processes in (1, 2):
            await self._drain(
                name, "task", tasks, processes, f"tasks/s, {processes} process{'es'[: 2 * processes - 2]}"
            )
        async with self._ready(name) as program:
            clocks.clear(LATENCIES)
            with program.workers(1, peer.settings | peer.idle | {"flush_ms": 0}):  # idle for as long as the others
                await asyncio.sleep(IDLE_SECONDS)
                self._latency(name, program.call("latency", LATENCIES)["ms"])
        if not peer.workflows:
            return
        await self._drain(name, "workflow", workflows, 2, "workflows of 3 steps/s, 2 processes")
        async with self._ready(name) as program:
            clocks.clear(1)
            with program.workers(1, peer.settings | peer.idle):
                await asyncio.sleep(IDLE_SECONDS)
                self._note(name, "ms per sequential step", program.call("steps", steps)["ms_per_step"], "ms")

    async def _drain(self, name: str, kind: str, count: int, processes: int, figure: str) -> None:
        async with self._ready(name) as program:
            clocks.clear(count)
            started = program.call("fill", kind, count)["per_s"]
            if kind == "task" and processes == 1:
                self._note(name, "bulk start/s", started, "/s")
            if PEERS[name].on == "postgres":
                await settle(program.url)
            clocks.clear(count)
            with program.workers(processes, PEERS[name].settings):
                self._note(name, figure, await asyncio.to_thread(drained, count), "/s")

    def _itself(self, name: str, tasks: int, workflows: int, steps: int) -> None:
        clocks.clear(clocks.CAPACITY)
        folder = self.harness.folder / f"{name}-{time.monotonic_ns()}"
        program = Program(PEERS[name], str(folder), self.harness.folder / f"{name}.log")
        # Its server looks for a newer release when it starts: it gets a network without a way out.
        alone = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        prefix = alone if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0 else []
        answer = program.call("measure", tasks, workflows, steps, LATENCIES, prefix=prefix)
        self._note(name, "tasks/s, 1 process", answer["tasks_per_s"], "/s")
        self._latency(name, answer["ms"])
        self._note(name, "workflows of 3 steps/s, 2 processes", answer["workflows_per_s"], "/s")
        self._note(name, "ms per sequential step", answer["ms_per_step"], "ms")
        shutil.rmtree(folder, ignore_errors=True)

    def _latency(self, name: str, waits: list[float]) -> None:
        waits = sorted(waits)
        self._note(name, "start to run, p50", waits[len(waits) // 2], "ms")
        self._note(name, "start to run, p99", waits[len(waits) * 99 // 100], "ms")

    def _note(self, name: str, figure: str, value: float, unit: str) -> None:
        self.harness.note(f"{name}: {figure}", value, unit)

    @asynccontextmanager
    async def _ready(self, name: str) -> AsyncIterator[Program]:
        """A peer with an empty database, or with an empty Redis."""
        log = self.harness.folder / f"{name}.log"
        if PEERS[name].on == "redis":
            with redis(self.harness.folder) as url:
                yield Program(PEERS[name], url, log)
            return
        async with self.harness.empty_database() as url:
            program = Program(PEERS[name], url, log)
            program.call("prepare")
            yield program


async def settle(url: str) -> None:
    """Vacuumed, analysed and written out, for every peer alike."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("vacuum analyze")
        await connection.execute("checkpoint")
    finally:
        await connection.close()


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis server without persistence on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--dir",
            str(folder),
            "--save",
            "",
            "--appendonly",
            "no",
        ],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise Failed("redis-server did not start") from None
                time.sleep(LOOK_SECONDS)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        end(process)


# --- reporting -----------------------------------------------------------------------------------


def report(harness: Harness, names: Sequence[str]) -> None:
    """Figure by figure: every peer's median and range, and how many times better Rhythm's median is."""
    table = Table()
    for column in ("figure", "peer", "median", "range", "unit", "Rhythm is better by"):
        table.add_column(column, justify="left" if column in ("figure", "peer", "unit") else "right")
    kinds = dict.fromkeys(name.partition(": ")[2] for name in harness.figures)
    for kind in kinds:
        own = harness.figures.get(f"rhythm: {kind}")
        for name in names:
            figure = harness.figures.get(f"{name}: {kind}")
            if figure is None:
                continue
            ratio = ""
            if own is not None and name != "rhythm":
                better = figure.median / own.median if figure.unit == "ms" else own.median / figure.median
                ratio = f"{better:.2f} x"
            spread = f"{min(figure.values):,.4g} … {max(figure.values):,.4g}"
            remark = f"{name} ({PEERS[name].remark})" if PEERS[name].remark else name
            table.add_row(kind, remark, f"{figure.median:,.4g}", spread, figure.unit, ratio)
        table.add_section()
    Console(width=140).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PEERS), help=",".join(PEERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all values")
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(PEERS):
        parser.error(f"unknown peers: {', '.join(unknown)}")
    names = [name for name in PEERS if name in options.only]
    if not shutil.which("redis-server"):
        left_out = [name for name in names if PEERS[name].on == "redis"]
        names = [name for name in names if name not in left_out]
        if left_out:
            print(f"No redis-server here: without {', '.join(left_out)}.", flush=True)
    if names != ["rhythm"]:
        install()
    folder = Path(tempfile.mkdtemp(prefix="rhythm-peers-"))
    server = EmbeddedServer(folder / "postgres")
    harness = Harness(
        server.ensure_running(), folder, lambda name, value, unit: print(f"  {name}: {value:,.4g} {unit}", flush=True)
    )
    failed = []
    try:
        for repeat in range(options.repeats):
            print(f"repeat {repeat + 1} of {options.repeats}", flush=True)
            for name in names:
                try:
                    asyncio.run(Measure(harness, options.scale).peer(name))
                except Failed as error:
                    failed.append(name)
                    print(f"  {name} FAILED: {error}", flush=True)
        report(harness, names)
        if options.json:
            options.json.write_text(json.dumps({f.name: f.values for f in harness.figures.values()}, indent=1))
    finally:
        server.stop(force=True)
        shutil.rmtree(folder, ignore_errors=True)
    if failed:
        sys.exit(f"failed: {', '.join(sorted(set(failed)))}")


if __name__ == "__main__":
    main()
