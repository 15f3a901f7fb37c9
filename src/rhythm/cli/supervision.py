"""Child processes that end with their parent, whatever ends it: the workers of `worker --processes N` and of `dev`.

Lifeline. Parent and child hold the ends of a socket pair; RHYTHM_LIFELINE tells the child its number. When the parent
ends, however it ends, the child reads the end of it, asks itself to drain, and kills itself if that takes too long.
Over the same line the parent asks how the child is: one byte, answered by one line, "ok" or what is wrong.

Signals. Parent and children are one process group, so Ctrl-C in a terminal reaches all of them. The children pass it
over (they are started with SIGINT blocked, so there is no moment at which it could hit them) and wait for the parent,
which sends one SIGTERM for every signal that it gets: once drains, twice lets go.

A child that died is started anew, with a growing pause. One that ended with USAGE would end so again: that is for the
owner to handle.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from rhythm.cli import output

VARIABLE = "RHYTHM_LIFELINE"
RESTART_FIRST_SECONDS = 0.5  #: before the first restart; doubled each time
RESTART_LONGEST_SECONDS = 30.0
STEADY_SECONDS = 60.0  #: a child that lived for so long begins again with the first pause
ANSWER_SECONDS = 2.0  #: for a child to say how it is
ANSWER_BYTES_MAX = 1_000
KILL_AFTER_SECONDS = 15.0  #: beyond its drain timeout, a process that should end is killed
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Child:
    """A running `rhythm worker` that ends with this process."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        self._asking = asyncio.Lock()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rhythm", "worker", *arguments],
                env={**os.environ, **environment, VARIABLE: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
        self.pid = self._process.pid
        self.started_at = time.monotonic()

    def ended(self) -> int | None:
        """The exit code, negative for the signal that killed it; None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """SIGTERM: the first drains, the second lets go."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, and collects it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Lets the line go, once it has ended."""
        self._line.close()

    async def problem(self) -> str | None:
        """What is wrong with it, by its own account; None: nothing."""
        loop = asyncio.get_running_loop()
        answer = b""
        try:
            async with self._asking, asyncio.timeout(ANSWER_SECONDS):
                with contextlib.suppress(BlockingIOError):
                    self._line.recv(ANSWER_BYTES_MAX)  # an answer that came too late for an earlier question
                await loop.sock_sendall(self._line, b"?")
                while not answer.endswith(b"\n"):
                    part = await loop.sock_recv(self._line, ANSWER_BYTES_MAX)
                    if not part:
                        return f"process {self.pid} has ended"
                    answer += part
        except TimeoutError:
            return f"process {self.pid} does not answer"
        except OSError:
            return f"process {self.pid} has ended"
        text = answer.decode(errors="replace").strip()
        return None if text == "ok" else f"process {self.pid}: {text}"


class Restarts:
    """The pauses before a child is started again."""

    def __init__(self) -> None:
        self._pause = RESTART_FIRST_SECONDS

    def next_pause(self, lived_seconds: float) -> float:
        """Seconds until the next start of a child that lived for so long."""
        if lived_seconds >= STEADY_SECONDS:
            self._pause = RESTART_FIRST_SECONDS
        pause, self._pause = self._pause, min(self._pause * 2, RESTART_LONGEST_SECONDS)
        return pause


class Fleet:
    """A number of children, kept running until stopped."""

    def __init__(self, count: int, arguments: Sequence[str], environment: dict[str, str], drain_timeout: float) -> None:
        self._arguments = arguments
        self._environment = environment
        self._drain_timeout = drain_timeout
        self._count = count
        self._children: dict[int, Child] = {}  # by place
        self._restarts = [Restarts() for _ in range(count)]
        self._due: dict[int, float] = {}  # places without a child: when to start the next one
        self._kill_at: float | None = None
        self._signals = 0
        self._news = asyncio.Event()

    async def run(self) -> int:
        """Runs until a stop signal has ended all children; the exit code."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGCHLD, self._news.set)
        for place in range(self._count):
            self._children[place] = Child(self._arguments, self._environment)
        code = 0
        try:
            while True:
                self._news.clear()
                code = self._collect() or code
                self._start_due()
                if not (self._children or self._due):
                    return code
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._news.wait()
        finally:
            for child in self._children.values():
                child.kill()
                child.close()

    def stop(self) -> None:
        """Drains all; the second time they let go."""
        self._signals += 1
        self._due.clear()
        self._kill_at = time.monotonic() + self._drain_timeout + KILL_AFTER_SECONDS
        for child in self._children.values():
            child.terminate()
        self._news.set()

    async def problem(self) -> str | None:
        """What is wrong with any of them; None: all are there and well."""
        if self._due:
            return f"{len(self._due)} of {self._count} processes died and will be started again"
        found = await asyncio.gather(*(child.problem() for child in self._children.values()))
        return "; ".join(text for text in found if text) or None

    def _collect(self) -> int:
        """Takes note of children that have ended; the exit code of one that cannot run at all."""
        failed = 0
        for place, child in list(self._children.items()):
            code = child.ended()
            if code is None:
                continue
            del self._children[place]
            child.close()
            if self._signals:
                continue
            if code == output.USAGE:
                failed = code
                self.stop()
                continue
            pause = self._restarts[place].next_pause(time.monotonic() - child.started_at)
            output.message(f"worker process {child.pid} {how_it_ended(code)}; starting another")
            self._due[place] = time.monotonic() + pause
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            for child in self._children.values():
                output.message(f"worker process {child.pid} does not stop; killing it")
                child.kill()
        return failed

    def _start_due(self) -> None:
        for place, due_at in list(self._due.items()):
            if due_at <= time.monotonic():
                del self._due[place]
                self._children[place] = Child(self._arguments, self._environment)

    def _pause(self) -> float | None:
        due = [*self._due.values(), *([self._kill_at] if self._kill_at is not None else [])]
        return max(0.0, min(due) - time.monotonic()) + 0.001 if due else None


def how_it_ended(code: int) -> str:
    """ "was killed by signal 9", or "ended with exit code 1"."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


class Lifeline:
    """The child's end. ``problem`` is asked on a thread of its own, as often as the parent wants to know."""

    def __init__(self, line: socket.socket, kill_after_seconds: float) -> None:
        self.problem: Callable[[], str | None] = lambda: "it is starting"
        self._line = line
        self._kill_after = kill_after_seconds
        threading.Thread(target=self._hold, name="rhythm-lifeline", daemon=True).start()

    @classmethod
    def of_this_process(cls, drain_timeout: float) -> Lifeline | None:
        """The line to the parent that started this process as a Child, once; None for any other process."""
        number = os.environ.pop(VARIABLE, None)  # what tasks start is not ours to look after
        if number is None:
            return None
        line = socket.socket(fileno=int(number))
        line.set_inheritable(False)
        signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN: what tasks start would inherit that
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return cls(line, drain_timeout + KILL_AFTER_SECONDS)

    def _hold(self) -> None:
        with contextlib.suppress(OSError):
            while self._line.recv(1):
                line = " ".join((self.problem() or "ok").split())
                self._line.sendall(line.encode()[: ANSWER_BYTES_MAX - 1] + b"\n")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._kill_after)
        os.kill(os.getpid(), signal.SIGKILL)
