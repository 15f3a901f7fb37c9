"""Child processes for tasks that can be killed (``process=True``); what runs in them is ``child``.

A child is started when a task needs one and none is idle, runs one task at a time, and is kept for the next, but idle
for no longer than IDLE_SECONDS_MAX; the caller sees to how many there are. It starts as a new interpreter and inherits
nothing but its standard streams, so no connection of the worker is ever shared. Each call is made in a thread of the
worker, which waits for the answer.

``Call.kill`` ends a call at once, by SIGKILL to the child and all that its task has started. A child that ends by
itself in the middle of a task (a crash in C, ``os._exit``, the kernel out of memory) is a failure of that attempt,
TaskProcessDied, retried by its policy as any other: this worker is alive and knows what happened, so the attempt is not
"lost", and nobody else is held up by it.

Not multiprocessing: its children inherit a tracker process, its pools answer a dead child by breaking for all, and it
sends everything as pickles.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from rhythm.errors import TaskProcessDied
from rhythm.worker.child import ANSWER, BEGUN, LOG, PROGRESS, READY

START_SECONDS: Final = 60.0  #: for a child to be ready, and for it to import the module of a task
END_SECONDS: Final = 2.0  #: for a killed child to be gone
IDLE_SECONDS_MAX: Final = 60.0  #: a child is kept without a task
MESSAGE_BYTES_MAX: Final = 4 << 20  #: of all that is no output
_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from rhythm.worker.child import main; main(*map(int, sys.argv[2:]))"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a task, as its child reports it."""

    completed: bool
    payload: bytes  #: output or error
    retryable: bool = False
    retry_after: float | None = None  #: seconds
    error: str = ""  #: for the log


class Children:
    """The child processes of one incarnation."""

    def __init__(self, *, payload_bytes_max: int) -> None:
        self._payload_bytes_max = payload_bytes_max
        self._lock = threading.Lock()
        self._all: set[_Child] = set()
        self._idle: list[_Child] = []  # the one that was used last is the last
        self._reaping: threading.Timer | None = None
        self._closed = False

    def call(
        self, function: Callable[..., Any], inputs: bytes, job: Mapping[str, Any], note: Callable[[bytes], None]
    ) -> Call:
        """A call of a task, to be made with ``run``. ``job``: bytes_max, policy and attempt, as in ``child``.

        ``note`` gets the progress that the task tells, from the thread of ``run``.
        """
        where = {"module": function.__module__, "qualname": function.__qualname__, "main": _main_module()}
        return Call(self, json.dumps({**where, **job, "bytes_max": self._payload_bytes_max}).encode(), inputs, note)

    def close(self) -> None:
        """Kills all of them."""
        with self._lock:
            self._closed = True
            children = list(self._all)
            if self._reaping is not None:
                self._reaping.cancel()
        for child in children:
            child.kill()

    def join(self) -> None:
        """After ``close``: waits until they are gone."""
        if self._reaping is not None:
            self._reaping.join()
        for child in list(self._all):
            self._discard(child)

    def take(self) -> _Child:
        """An idle child, or a new one. Raises TaskProcessDied when it does not start."""
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.status() is None:
                    return child
                self._all.discard(child)
        child = _Child(self._payload_bytes_max + MESSAGE_BYTES_MAX)
        with self._lock:
            self._all.add(child)
            if self._closed:
                child.kill()
        if not child.is_ready():
            raise self.ended(child, "before it was ready")
        return child

    def give_back(self, child: _Child) -> None:
        """Keeps it for the next task."""
        child.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(child)
            if self._reaping is None and not self._closed:
                self._reap_after(IDLE_SECONDS_MAX)

    def _reap_after(self, seconds: float) -> None:
        self._reaping = threading.Timer(seconds, self._reap)
        self._reaping.daemon = True
        self._reaping.start()

    def _reap(self) -> None:
        """Ends the children that have been idle for too long, and looks again when the next one may have been."""
        with self._lock:
            before = time.monotonic() - IDLE_SECONDS_MAX
            ended = [child for child in self._idle if child.idle_since <= before]
            self._idle = self._idle[len(ended) :]
            self._reaping = None
            if self._idle and not self._closed:
                self._reap_after(self._idle[0].idle_since - before + 0.01)
        for child in ended:
            child.kill()
            self._discard(child)

    def ended(self, child: _Child, when: str) -> TaskProcessDied:
        """Takes a child out that is not to be used any more; what became of it."""
        child.kill()
        status = self._discard(child)
        if status is None:
            return TaskProcessDied(f"the process of the task could not be ended {when}")
        if status >= 0:
            return TaskProcessDied(f"the process of the task ended {when}, with exit status {status}", status=status)
        name = _signal_name(-status)
        hint = ": perhaps it has used too much memory" if name == "SIGKILL" else ""
        return TaskProcessDied(f"the process of the task was ended {when} by {name}{hint}", status=status)

    def _discard(self, child: _Child) -> int | None:
        with self._lock:
            self._all.discard(child)
        return child.wait()


class Call:
    """One call of a task in a child."""

    def __init__(self, children: Children, job: bytes, inputs: bytes, note: Callable[[bytes], None]) -> None:
        self._children = children
        self._note = note
        self._job = job
        self._inputs = inputs
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self.killed = False  #: by whoever has made it

    def kill(self) -> None:
        """Ends it, now or as soon as it begins."""
        with self._lock:
            self.killed = True
            if self._child is not None:
                self._child.kill()

    def run(self, begun: Callable[[], None]) -> Answer:
        """Makes the call; ``begun()`` is called when the task is about to begin. Raises TaskProcessDied."""
        child = self._children.take()
        with self._lock:
            self._child = child
            if self.killed:
                child.kill()
        try:
            child.send(self._job)
            answer = child.begun()
            if answer is None:
                begun()
                child.send(self._inputs)
                answer = child.answer(self._note)
        except (EOFError, OSError) as error:
            with self._lock:
                self._child = None
            died = self._children.ended(child, "in the middle of it")
            raise TaskProcessDied(str(error)) if isinstance(error, TimeoutError) else died from None
        with self._lock:
            self._child = None  # from now on it is killed for nobody's sake
        self._children.give_back(child)
        return answer


class _Child:
    """One child process, from its start."""

    def __init__(self, message_bytes_max: int) -> None:
        self._message_bytes_max = message_bytes_max
        self.idle_since = 0.0
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            numbers = (theirs.fileno(), os.getpid(), logging.getLogger().getEffectiveLevel())
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(sys.path), *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            self._connection = Connection(ours.detach())

    def is_ready(self) -> bool:
        """Waits until it can take a task."""
        with contextlib.suppress(EOFError, OSError):
            return self._connection.poll(START_SECONDS) and self._connection.recv_bytes(1) == READY
        return False

    def send(self, message: bytes) -> None:
        self._connection.send_bytes(message)

    def begun(self) -> Answer | None:
        """Waits until the task can begin: None; or for the answer, if it cannot. Raises as ``answer`` does."""
        return self._receive(START_SECONDS)

    def answer(self, note: Callable[[bytes], None]) -> Answer:
        """Waits for the answer; writes what is logged meanwhile, and notes the progress that the task tells.

        Raises EOFError, OSError when the child has ended.
        """
        answer = self._receive(None, note)
        assert answer is not None, "a task begins once"
        return answer

    def _receive(self, seconds: float | None, note: Callable[[bytes], None] | None = None) -> Answer | None:
        while True:
            if not self._connection.poll(seconds):
                raise TimeoutError(f"the process of the task did not import its module within {seconds} s")
            message = self._connection.recv_bytes(self._message_bytes_max)
            if message == BEGUN:
                return None
            if message[:1] == ANSWER:
                told = json.loads(message[1:])
                payload = self._connection.recv_bytes(self._message_bytes_max)
                if told["status"] == "completed":
                    return Answer(True, payload)
                return Answer(False, payload, told["retryable"], told["retry_after"], told["error"])
            if message[:1] == LOG:
                _log(json.loads(message[1:]))
            if message[:1] == PROGRESS and note is not None:
                note(message[1:])

    def kill(self) -> None:
        """SIGKILL to it and all that it has started."""
        with self._lock:  # once its status is known, its number may be somebody else's
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        with self._lock:
            return self._process.poll()

    def wait(self) -> int | None:
        """The same, after it was killed; None when it does not end."""
        deadline = time.monotonic() + END_SECONDS
        while (status := self.status()) is None and time.monotonic() < deadline:
            time.sleep(0.001)
        if status is not None:
            self._connection.close()
        return status


def _log(entry: Mapping[str, Any]) -> None:
    logger = logging.getLogger(entry["name"])
    if logger.isEnabledFor(entry["levelno"]):
        logger.handle(logging.makeLogRecord(dict(entry)))


def _main_module() -> dict[str, str | None]:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return {"name": None if spec is None else spec.name, "path": getattr(main, "__file__", None)}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
