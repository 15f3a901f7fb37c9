"""Real processes for tests: workers and other commands, killed for sure at the end.

with Processes(tmp_path) as processes:
    worker = processes.worker(url, app=["orders_tasks"], cwd=folder)
    worker.wait_for_output("ready")
    worker.kill()                        # SIGKILL, as a power cut would
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.01
ROOT = Path(__file__).resolve().parent.parent.parent


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without any of Rhythm's variables, so that a developer's own do not change the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RHYTHM_", "PG"))}
    return kept | dict(extra or {})


class Process:
    """One child process in a session of its own, its output collected in a file."""

    def __init__(self, popen: subprocess.Popen[bytes] | Forked, log: Path) -> None:
        self._popen = popen
        self.log = log

    @classmethod
    def spawn(cls, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> Process:
        with log.open("wb") as file:
            popen = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        return cls(popen, log)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def stopped(self) -> bool:
        """Whether it stands still after a SIGSTOP."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        return False

    def wait_for_output(self, pattern: str, timeout_seconds: float = TIMEOUT_SECONDS) -> re.Match[str]:
        """Waits until the output holds the pattern. Fails with the output when the process ends or time runs out."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            ended = not self.alive
            match = re.search(pattern, self.output)
            if match:
                return match
            assert not ended, (
                f"process {self.pid} ended with {self._popen.returncode} before {pattern!r}:\n{self.output}"
            )
            assert time.monotonic() < deadline, f"no {pattern!r} within {timeout_seconds} s:\n{self.output}"
            time.sleep(POLL_SECONDS)

    def wait(self, timeout_seconds: float = TIMEOUT_SECONDS) -> int:
        """Waits for the end; the exit status, negative for the signal that killed it."""
        return self._popen.wait(timeout_seconds)

    def terminate(self) -> None:
        """SIGTERM: the process may finish in order."""
        self._popen.send_signal(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP to the process and its children: it does nothing more until `thaw`."""
        self._signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_group(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to the process and all that descends from it; returns when it is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for descendant in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    descendant.kill()
        self._signal_group(signal.SIGKILL)
        self._popen.wait(TIMEOUT_SECONDS)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)


class Forked:
    """A child of a zygote, with as much of Popen's interface as Process uses."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self._zygote = zygote
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE:
            self.returncode = self._zygote.ask({"wait": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (TIMEOUT_SECONDS if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(["(forked)"], timeout or TIMEOUT_SECONDS)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Zygote:
    """Starts `rhythm` commands in a tenth of the time: see `zygote.py`. Use it with `with`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  #: for the logs
        self.started: list[Process] = []

    def __enter__(self) -> Zygote:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.support.zygote"],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._popen.stdin is not None, "a pipe"
        assert self._popen.stdout is not None, "a pipe"
        self._orders, self._answers = self._popen.stdin, self._popen.stdout
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            process.kill()
        self._orders.close()
        self._popen.wait(TIMEOUT_SECONDS)
        self._answers.close()

    def ask(self, order: Mapping[str, object]) -> int:
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        return int(self._answers.readline())

    def rhythm(self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Process:
        """`rhythm ARGUMENTS`, importing modules from `cwd`."""
        log = self.folder / f"forked-{len(self.started) + 1}.log"
        log.touch()
        order = {"command": arguments, "cwd": str(cwd), "env": clean_environment(env), "log": str(log)}
        process = Process(Forked(self, self.ask(order)), log)
        self.started.append(process)
        return process


class Processes:
    """Starts processes and kills those that are left at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  #: for the logs
        self.started: list[Process] = []

    def start(
        self, command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Process:
        log = self.folder / f"process-{len(self.started) + 1}.log"
        process = Process.spawn(command, cwd=cwd or self.folder, env=clean_environment(env), log=log)
        self.started.append(process)
        return process

    def rhythm(self, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Process:
        """`rhythm ARGUMENTS` as its users run it."""
        return self.start([sys.executable, "-m", "rhythm", *arguments], cwd=cwd, env=env)

    def worker(
        self,
        url: str,
        *arguments: str,
        app: Sequence[str] = (),
        workflows: Sequence[Path | str] = (),
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """A real worker: `rhythm worker --app … --workflows …`, importing modules from `cwd`."""
        options = [part for module in app for part in ("--app", module)]
        options += [part for folder in workflows for part in ("--workflows", str(folder))]
        return self.rhythm("worker", "--database-url", url, *options, *arguments, cwd=cwd, env=env)

    def close(self) -> None:
        for process in self.started:
            process.kill()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
