"""Runs the cases of the suite for one adapter (see the README beside this file)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from rhythm.model import new_id
from tests.support.processes import ROOT, Process, Processes, Zygote, clean_environment
from tests.support.proxy import Proxy

HERE = Path(__file__).resolve().parent
NODE = ROOT / "node" / "dist"
QUEUE = "conformance"
DEADLINE_SECONDS = 40.0
POLL_SECONDS = 0.01
HEARTBEAT = "1s"


@dataclass(frozen=True)
class Adapter:
    """How an adapter's two programs are run."""

    name: str
    driver: list[str]
    worker: list[str]
    folder: Path


PYTHON = Adapter(
    "python",
    [sys.executable, str(HERE / "python" / "driver.py")],
    [sys.executable, "-m", "rhythm", "worker", "--app", "conformance_tasks"],
    HERE / "python",
)
NODE_JS = Adapter(
    "node",
    ["node", str(NODE / "test" / "conformance" / "driver.js")],
    ["node", str(NODE / "src" / "cli.js"), "worker", str(NODE / "test" / "conformance" / "tasks.js")],
    ROOT,
)
ADAPTERS = {adapter.name: adapter for adapter in (PYTHON, NODE_JS)}


def read_cases() -> list[Any]:
    """All cases: {"case", "steps"}."""
    return [case for path in sorted(HERE.glob("cases/*.json")) for case in json.loads(path.read_text())]


class Network:
    """A proxy before the database, in an event loop of its own thread."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._proxy = Proxy(url)
        self._run(self._proxy.__aenter__())
        self.url = self._proxy.url

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def call(self, name: str, *arguments: Any) -> None:
        """A method of the proxy."""

        async def work() -> None:
            getattr(self._proxy, name)(*arguments)

        self._run(work())

    def close(self) -> None:
        self._run(self._proxy.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Bench:
    """One adapter with a database, its driver, and a worker of the shared queue."""

    def __init__(self, adapter: Adapter, url: str, processes: Processes, pooled_url: str | None = None) -> None:
        self.adapter = adapter
        self.url = url
        self.pooled_url = pooled_url  #: through a pooler in transaction mode: what the adapter is given
        self.processes = processes
        self.zygote = Zygote(processes.folder).__enter__() if adapter is PYTHON else None
        self.database = psycopg.connect(url, autocommit=True)
        self.database.execute("create table conformance_calls (execution_id uuid, attempt integer)")
        self._driver = subprocess.Popen(
            adapter.driver,
            cwd=adapter.folder,
            env=clean_environment({"CONFORMANCE_URL": pooled_url or url} | self._pooler()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.worker(QUEUE, {})

    def close(self) -> None:
        assert self._driver.stdin is not None, "a pipe"
        assert self._driver.stdout is not None, "a pipe"
        self._driver.stdin.close()
        self._driver.wait(10)
        self._driver.stdout.close()
        self.database.close()
        self.processes.close()
        if self.zygote is not None:
            self.zygote.__exit__()

    def _pooler(self) -> dict[str, str]:
        return {} if self.pooled_url is None else {"RHYTHM_POOLER": "true"}

    def ask(self, order: Mapping[str, Any]) -> Any:
        """The driver's answer."""
        assert self._driver.stdin is not None, "a pipe"
        assert self._driver.stdout is not None, "a pipe"
        self._driver.stdin.write(json.dumps(order) + "\n")
        self._driver.stdin.flush()
        line = self._driver.stdout.readline()
        assert line, f"the driver has ended with {self._driver.wait(10)}"
        return json.loads(line)

    def worker(self, queue: str, options: Mapping[str, str], url: str | None = None) -> Process:
        """A worker that is ready."""
        given = {"heartbeat-timeout": HEARTBEAT, "poll-interval": "200ms", **options}
        arguments = [f"--{name}={value}" for name, value in given.items()]
        command = [*self.adapter.worker, "-q", queue, "--database-url", url or self.pooled_url or self.url, *arguments]
        env = {"CONFORMANCE_URL": self.url, "CONFORMANCE_QUEUE": QUEUE} | self._pooler()
        if self.zygote is not None:  # a worker of Python is there in a tenth of the time
            words = command[command.index("worker") :]
            process = self.zygote.rhythm(*words, cwd=self.adapter.folder, env=env)
        else:
            process = self.processes.start(command, cwd=self.adapter.folder, env=env)
        process.wait_for_output("worker ready")
        return process


@dataclass
class Run:
    """One run of one case."""

    bench: Bench
    word: str = field(default_factory=lambda: f"case-{uuid.uuid4().hex[:12]}")
    uuid: str = field(default_factory=lambda: str(new_id()))
    ids: dict[str, str] = field(default_factory=dict)
    workers: dict[str, Process] = field(default_factory=dict)
    network: Network | None = None

    def case(self, case: Mapping[str, Any]) -> None:
        try:
            for number, step in enumerate(case["steps"], 1):
                try:
                    self.step(self.filled(step))
                except AssertionError as error:
                    logs = "\n".join(process.output[-2000:] for process in self.workers.values())
                    raise AssertionError(f"step {number}, {json.dumps(step)}: {error}\n{logs}") from None
        finally:
            for process in self.workers.values():
                process.kill()
            if self.network is not None:
                self.network.close()

    def filled(self, value: Any) -> Any:
        """The step, with this run's own words in it."""
        if isinstance(value, str):
            for name, id_ in self.ids.items():
                value = value.replace(f"$id:{name}", id_)
            return value.replace("$case", self.word).replace("$uuid", self.uuid)
        if isinstance(value, dict):
            return {self.filled(key): self.filled(item) for key, item in value.items()}
        return [self.filled(item) for item in value] if isinstance(value, list) else value

    def id_of(self, name: str) -> str:
        return name[1:] if name.startswith("=") else self.ids[name]

    @property
    def queue(self) -> str:
        return self.word if self.workers else QUEUE

    def step(self, step: dict[str, Any]) -> None:
        for verb, run in VERBS.items():
            if verb in step:
                run(self, step)
                return
        raise AssertionError("no such step")

    # --- the client's steps ---

    def start(self, step: dict[str, Any]) -> None:
        start = {"name": step["start"], "queue": self.queue, **step.get("options", {})}
        start.update({key: step[key] for key in ("inputs", "special") if key in step})
        self.client(step, {"op": "start", "start": start})

    def start_raw(self, step: dict[str, Any]) -> None:
        self.ids[step["as"]] = str(new_id())
        self.bench.database.execute(
            "select rhythm.start_many(%s::uuid[], %s::bytea[], '{1}', '{0}', %s::text[], '{1}', %s::text[])",
            ([self.ids[step["as"]]], [b"\x01" + step["json"].encode()], [step["start_raw"]], [self.queue]),
        )

    def start_many(self, step: dict[str, Any]) -> None:
        starts = [{"queue": self.queue, **start} for start in step["start_many"]] * step.get("times", 1)
        self.client(step, {"op": "start_many", "starts": starts})

    def transaction(self, step: dict[str, Any]) -> None:
        starts = [{"queue": self.queue, **start} for start in step["transaction"]]
        self.client(step, {"op": "transaction", "starts": starts, "end": step["end"]})

    def result(self, step: dict[str, Any]) -> None:
        self.client(step, {"op": "result", "id": self.id_of(step["result"]), "timeout": step.get("timeout", "30s")})

    def get(self, step: dict[str, Any]) -> None:
        self.client(step, {"op": "get", "id": self.id_of(step["get"])})

    def list(self, step: dict[str, Any]) -> None:
        step["is"] = [self.ids[name] for name in step["is"]]
        self.client(step, {"op": "list", "options": step["list"]})

    def signal(self, step: dict[str, Any]) -> None:
        order = {"op": "signal", "id": self.id_of(step["signal"]), "name": step["name"]}
        self.client(step, {**order, "payload": step.get("payload")})

    def cancel(self, step: dict[str, Any]) -> None:
        self.client(step, {"op": "cancel", "id": self.id_of(step["cancel"]), "force": step.get("force", False)})

    def retry(self, step: dict[str, Any]) -> None:
        order = {"op": "retry", "id": self.id_of(step["retry"])}
        self.client(step, {**order, "from_start": step.get("from_start", False)})

    def client(self, step: dict[str, Any], order: dict[str, Any]) -> None:
        answer = self.bench.ask(order)
        if "one_of" in step:
            assert any(_fits(answer, one) for one in step["one_of"]), answer
        else:
            assert _fits(answer, step), answer
        if "as" in step and "value" in answer:
            value = answer["value"]
            self.ids[step["as"]] = value[-1] if isinstance(value, list) else value

    def same(self, step: dict[str, Any]) -> None:
        assert len({self.ids[name] for name in step["same"]}) == 1, self.ids

    def differ(self, step: dict[str, Any]) -> None:
        assert len({self.ids[name] for name in step["differ"]}) == len(step["differ"]), self.ids

    # --- workers and waiting ---

    def worker(self, step: dict[str, Any]) -> None:
        url = None
        if step.get("network"):
            self.network = self.network or Network(self.bench.url)
            url = self.network.url
        self.workers[step["worker"]] = self.bench.worker(self.word, step.get("options", {}), url)

    def kill(self, step: dict[str, Any]) -> None:
        self.workers[step["kill"]].kill()

    def stop(self, step: dict[str, Any]) -> None:
        os.kill(self.workers[step["stop"]].pid, signal.SIGSTOP)

    def go_on(self, step: dict[str, Any]) -> None:
        os.kill(self.workers[step["continue"]].pid, signal.SIGCONT)

    def drain(self, step: dict[str, Any]) -> None:
        process = self.workers[step["drain"]]
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0, process.output

    def ends(self, step: dict[str, Any]) -> None:
        self.workers[step["ends"]].wait(DEADLINE_SECONDS)

    def alive(self, step: dict[str, Any]) -> None:
        assert self.workers[step["alive"]].alive, self.workers[step["alive"]].output

    def change_network(self, step: dict[str, Any]) -> None:
        assert self.network is not None, "a worker goes through it"
        self.network.call(step["network"], *step.get("directions", ()))

    def end_sessions(self, step: dict[str, Any]) -> None:
        """Every connection of workers, and of the client, is ended by the server."""
        self.bench.database.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and application_name like 'rhythm%'"
        )

    def until(self, step: dict[str, Any]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        id_ = self.ids[step["until"]]
        while not self._holds(step, id_):
            assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s"
            time.sleep(POLL_SECONDS)

    def finished(self, step: dict[str, Any]) -> None:
        query = "select count(*) from rhythm.executions_view where queue = %s and status = 'completed' and lost = 0"
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (found := self._one(query, self.word)) < step["finished"]:
            assert time.monotonic() < deadline, f"{found} within {DEADLINE_SECONDS} s"
            time.sleep(POLL_SECONDS)

    def calls_in_all(self, step: dict[str, Any]) -> None:
        query = (
            "select count(*) from conformance_calls where execution_id in "
            "(select id from rhythm.executions_view where queue = %s)"
        )
        assert self._one(query, self.word) == step["calls_in_all"], self._one(query, self.word)

    def _one(self, query: LiteralString, argument: str) -> int:
        (value,) = self.bench.database.execute(query, (argument,)).fetchone() or (0,)
        return int(value)

    def _holds(self, step: dict[str, Any], id_: str) -> bool:
        if "calls" in step:
            return self._count(id_) >= step["calls"]
        return _like(self.bench.ask({"op": "get", "id": id_})["value"], step["like"])

    def calls(self, step: dict[str, Any]) -> None:
        assert self._count(self.ids[step["calls"]]) == step["is"], self._count(self.ids[step["calls"]])

    def _count(self, id_: str) -> int:
        return self._one("select count(*) from conformance_calls where execution_id = %s", id_)


VERBS: Mapping[str, Callable[[Run, dict[str, Any]], None]] = {
    "start": Run.start, "start_raw": Run.start_raw, "start_many": Run.start_many, "transaction": Run.transaction,
    "result": Run.result, "get": Run.get, "list": Run.list, "signal": Run.signal, "cancel": Run.cancel,
    "retry": Run.retry, "same": Run.same, "differ": Run.differ, "worker": Run.worker, "kill": Run.kill,
    "stop": Run.stop, "continue": Run.go_on, "drain": Run.drain, "ends": Run.ends, "alive": Run.alive,
    "network": Run.change_network, "end_sessions": Run.end_sessions, "finished": Run.finished,
    "calls_in_all": Run.calls_in_all,
    "until": Run.until, "calls": Run.calls,
}  # fmt: skip


def _fits(answer: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether an answer of a driver is what a step expects."""
    if "error" in expected:
        return "error" in answer and _like(answer["error"], expected["error"])
    if "error" in answer:
        return False
    value = answer["value"]
    if "text" in expected:
        return json.dumps(value, separators=(",", ":")) == expected["text"]
    if "like" in expected:
        return _like(value, expected["like"])
    return "is" not in expected or _same(value, expected["is"])


def _like(value: Any, expected: Mapping[str, Any]) -> bool:
    return all(
        name in value
        and (_like(value[name], want) if isinstance(want, dict) and value[name] else _same(value[name], want))
        for name, want in expected.items()
    )


def _same(value: Any, expected: Any) -> bool:
    """Equal, and neither true nor false is a number."""
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(_same(value[key], expected[key]) for key in expected)
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(_same, value, expected))
    return isinstance(value, bool) == isinstance(expected, bool) and bool(value == expected)
