"""The child process that tasks declared with ``process=True`` run in; its parent's side is ``children``.

    parent -> child   job (JSON)                                 one after the other, until the parent hangs up
                      inputs (bytes)                             after B
    child -> parent   R  ready                                   once
                      L  log record (JSON)                       any number, while it has a job
                      P  its task's progress (JSON)              any number, after B
                      B  its task is found and can begin         for each job; not if it cannot be found
                      A  answer (JSON), then payload (bytes)     exactly one for each job

    job     = module, qualname, main, bytes_max, policy, attempt: what TaskContext and the error policy need
    answer  = status "completed" | "failed", and for failures: retryable, retry_after, error (text for the log)

The child imports the task by its name and never unpickles anything. It was started with nothing but the socket to its
parent and its standard streams: it inherits no connection. It is the leader of a session of its own: its parent kills
it together with what its tasks have started.

It never outlives its parent: the kernel kills it (Linux), and a thread waits for the parent's end of the socket to
close. Signals meant for the worker, which service managers send to whole groups, leave it alone: the worker decides.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import json
import logging
import os
import runpy
import select
import signal
import sys
import threading
import traceback
import uuid
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any, Final

from rhythm.errors import TaskRetryAfter
from rhythm.failures import failure_payload
from rhythm.tasks import Task, TaskContext, current_attempt

READY: Final = b"R"
BEGUN: Final = b"B"
LOG: Final = b"L"
PROGRESS: Final = b"P"
ANSWER: Final = b"A"
LOG_MESSAGE_LENGTH_MAX: Final = 64 * 1024
_PR_SET_PDEATHSIG: Final = 1


def main(file_number: int, parent: int, log_level: int) -> None:
    """Runs one task after the other until the parent hangs up."""
    _die_with(parent)
    connection = Connection(file_number)
    threading.Thread(target=_wait_for_the_end, args=(file_number,), name="rhythm-lifeline", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave_alone)  # not SIG_IGN: what tasks start would inherit that
    faulthandler.enable()
    child = _Child(connection)
    logging.basicConfig(level=log_level, handlers=[_Forwarder(child)], force=True)
    child.send(READY)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            child.run(json.loads(connection.recv_bytes()))


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os._exit(1)


def _wait_for_the_end(file_number: int) -> None:
    poll = select.poll()
    poll.register(file_number, 0)  # the end of the other side is always told
    poll.poll()
    os.killpg(0, signal.SIGKILL)


def _leave_alone(number: int, frame: Any) -> None:
    pass


class _Child:
    """What the process knows between two jobs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()  # tasks may log from threads
        self._tasks: dict[tuple[str, str], Task[..., Any]] = {}

    def send(self, *messages: bytes) -> None:
        with self._sending:
            for message in messages:
                self._connection.send_bytes(message)

    def run(self, job: Mapping[str, Any]) -> None:
        attempt = job["attempt"]
        execution_id = uuid.UUID(attempt["execution_id"])
        current_attempt.set((execution_id, attempt["attempt"]))
        task: Task[..., Any] | None = None
        answer: dict[str, Any] = {"status": "completed"}
        try:
            task = self._find(job)
            self.send(BEGUN)
            inputs = self._connection.recv_bytes()
            payload = task.invoke(inputs, self._context(execution_id, attempt), bytes_max=job["bytes_max"])
        except BaseException as error:  # noqa: BLE001  (whatever a task raises is its outcome)
            retryable = task is None or task.is_retryable(error, job["policy"])
            payload = failure_payload(error, attempts=attempt["attempt"], retryable=retryable)
            answer = {
                "status": "failed",
                "retryable": retryable,
                "retry_after": error.seconds if isinstance(error, TaskRetryAfter) else None,
                "error": f"{type(error).__name__}: {error}"[:LOG_MESSAGE_LENGTH_MAX],
            }
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        self.send(ANSWER + json.dumps(answer).encode(), payload)

    def _context(self, execution_id: uuid.UUID, attempt: Mapping[str, Any]) -> TaskContext:
        parent_id = attempt["parent_id"]
        return TaskContext(
            execution_id,
            attempt=attempt["attempt"],
            parent_id=None if parent_id is None else uuid.UUID(parent_id),
            idempotency_key=attempt["idempotency_key"],
            name=attempt["name"],
            # Whoever gives it up kills it; all that can be seen from here is a parent that has gone.
            abandoned=lambda: "its worker has gone" if self._connection.poll(0) else None,
            note=lambda progress: self.send(PROGRESS + progress),
        )

    def _find(self, job: Mapping[str, Any]) -> Task[..., Any]:
        module, qualname = job["module"], job["qualname"]
        task = self._tasks.get((module, qualname))
        if task is None:
            found: Any = _main_module(job["main"]) if module == "__main__" else importlib.import_module(module)
            for part in qualname.split("."):
                found = found[part] if isinstance(found, dict) else getattr(found, part)
            if not isinstance(found, Task):
                raise TypeError(f"{module}.{qualname} is not the task itself; process=True needs it by that name")
            task = self._tasks[module, qualname] = found
        return task


def _main_module(main: Mapping[str, Any]) -> Any:
    """The parent's main module, run under another name so that `if __name__ == "__main__"` does nothing."""
    if main["name"] is not None:
        return importlib.import_module(main["name"])
    return runpy.run_path(main["path"], run_name="__mp_main__")


class _Forwarder(logging.Handler):
    """Sends log records to the parent, whose handlers write them."""

    def __init__(self, child: _Child) -> None:
        super().__init__()
        self._child = child

    def emit(self, record: logging.LogRecord) -> None:
        try:
            entry = {
                "name": record.name,
                "levelno": record.levelno,
                "levelname": record.levelname,
                "msg": record.getMessage()[:LOG_MESSAGE_LENGTH_MAX],
                "created": record.created,
                "msecs": record.msecs,
                "pathname": record.pathname,
                "filename": record.filename,
                "module": record.module,
                "lineno": record.lineno,
                "funcName": record.funcName,
            }
            if record.exc_info:
                entry["exc_text"] = "".join(traceback.format_exception(*record.exc_info))[:LOG_MESSAGE_LENGTH_MAX]
            self._child.send(LOG + json.dumps(entry).encode())
        except Exception:  # noqa: BLE001  (as every handler of the standard library)
            self.handleError(record)
