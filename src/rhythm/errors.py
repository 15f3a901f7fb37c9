"""Every exception Rhythm raises on purpose, as one tree.

RhythmError
├── NotConfigured            no database is configured here
├── ConfigurationError       a configuration file, variable or option is wrong
├── DatabaseUnavailable      the database cannot be reached, or stopped answering
├── SchemaMismatch           the database's schema is older or newer than this release
├── CompileError             a workflow does not compile (carries the diagnostics)
├── InvalidInput             what was passed in cannot be used
│   ├── InvalidDuration
│   ├── PayloadTooLarge      inputs or a signal's payload over the limit
│   ├── OutputTooLarge       a task's output over the limit
│   ├── OutputInvalid        a task's output that JSON cannot hold
│   └── TaskInputInvalid     inputs that do not match a task's parameters
├── StartRefused             a start was refused (``code`` says why)
├── SignalRefused            too many unread signals
├── RetryRefused             an execution cannot be retried (``code`` says why)
├── ExecutionNotFound        no execution with this id
├── ExecutionFinished        the execution has finished already
├── ExecutionFailed          raised by ``result()``: carries the remote error
├── ExecutionCancelled       raised by ``result()``
├── WaitTimeout              ``result(timeout=…)`` ran out; the execution carries on
├── TaskNotRetryable         raise it in a task: this failure is final
├── TaskRetryAfter           raise it in a task: try again after a given delay
├── TaskProcessDied          a task's own process ended in the middle of it
├── IncarnationDead          this worker was declared dead; nothing it holds counts any more
└── SnapshotError            a stored snapshot cannot be read

Nothing here imports anything of Rhythm, so that every layer may raise these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class RhythmError(Exception):
    """Base of every error that Rhythm raises on purpose."""


class NotConfigured(RhythmError):
    """No database is configured here, and an embedded one is not allowed."""


class ConfigurationError(RhythmError):
    """The configuration holds something that cannot be used."""


class DatabaseUnavailable(RhythmError):
    """The database cannot be reached, or it stopped answering."""


class SchemaMismatch(RhythmError):
    """The schema in the database does not fit this release of Rhythm."""


class DiagnosticLike(Protocol):
    """What a diagnostic offers to those who print it (see ``rhythm.language.diagnostics``)."""

    @property
    def severity(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def hint(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...
    @property
    def file(self) -> str: ...


class CompileError(RhythmError):
    """The workflow does not compile.

    ``diagnostics`` holds every problem found, each with severity, code, message, hint, line and column.
    """

    def __init__(self, diagnostics: Sequence[DiagnosticLike]) -> None:
        self.diagnostics = list(diagnostics)
        errors = [d for d in self.diagnostics if d.severity == "error"] or self.diagnostics
        text = "; ".join(f"{d.file}:{d.line}:{d.column}: error[{d.code}]: {d.message}" for d in errors[:5])
        if len(errors) > 5:
            text += f"; and {len(errors) - 5} more"
        super().__init__(text)


class InvalidInput(RhythmError):
    """What was passed in cannot be used."""


class InvalidDuration(InvalidInput):
    """This is not a duration."""


class PayloadTooLarge(InvalidInput):
    """The payload is larger than the limit."""


class OutputTooLarge(InvalidInput):
    """The task's output is larger than the limit."""


class OutputInvalid(InvalidInput):
    """The task's output holds something that JSON cannot."""


class TaskInputInvalid(InvalidInput):
    """The inputs do not match the task's parameters."""


class StartRefused(RhythmError):
    """The start was refused; ``code`` says why (``key_conflict``, ``key_taken``, ``invalid_name``, …)."""

    def __init__(self, message: str, *, code: str) -> None:
        self.code = code
        super().__init__(message)


class SignalRefused(RhythmError):
    """The execution has too many unread signals."""


class RetryRefused(RhythmError):
    """The execution cannot be retried.

    ``code`` says why: ``not_finished``, ``completed``, ``consumed`` (its parent has its outcome), ``key_taken``
    (another execution has its key), ``nothing_kept`` (a workflow that ended by an error of its own, or was cancelled),
    or ``name_unknown``. The last two can still be started anew (``from_start``).
    """

    def __init__(self, message: str, *, code: str) -> None:
        self.code = code
        super().__init__(message)


class ExecutionNotFound(RhythmError):
    """No execution with this id."""


class ExecutionFinished(RhythmError):
    """The execution has finished already."""


class ExecutionFailed(RhythmError):
    """The execution failed; the fields say what its error was.

    ``name`` is the remote exception's type name, ``type`` is "failed", "timeout", "cancelled" or "lost",
    ``traceback`` the remote traceback's text or None, ``thrown`` what a workflow threw when that was not an Error.
    """

    def __init__(self, payload: dict[str, Any], *, execution_id: str | None = None) -> None:
        self.payload = payload
        self.execution_id = execution_id
        self.name: str = str(payload.get("name", "Error"))
        self.remote_message: str = str(payload.get("message", ""))
        self.type: str = str(payload.get("type", "failed"))
        self.traceback: str | None = payload.get("traceback") or payload.get("stack")
        self.thrown: Any = payload.get("thrown")
        self.data: Any = payload.get("data")
        text = f"threw {self.thrown!r}" if "thrown" in payload else f"{self.name}: {self.remote_message}"
        super().__init__(f"execution {execution_id} failed: {text}" if execution_id else text)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_failed, (self.payload, self.execution_id)


def _rebuild_failed(payload: dict[str, Any], execution_id: str | None) -> ExecutionFailed:
    return ExecutionFailed(payload, execution_id=execution_id)


class ExecutionCancelled(RhythmError):
    """The execution was cancelled."""


class WaitTimeout(RhythmError, TimeoutError):
    """The wait ran out of time; the execution carries on."""


class TaskNotRetryable(RhythmError):
    """Raised by a task: this failure is final, whatever its retry policy says."""


class TaskRetryAfter(RhythmError):
    """Raised by a task: make the next attempt after this many seconds, if attempts are left.

    It counts as a failure like any other, but waits so long instead of by the retry policy, and whatever that says of
    errors. Raises ValueError for a negative or endless time.
    """

    def __init__(self, message: str, *, seconds: float) -> None:
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"TaskRetryAfter: seconds {seconds!r} is not a number from 0 on")
        self.seconds = float(seconds)
        super().__init__(message)


class TaskProcessDied(RhythmError):
    """The process of a task ended in the middle of it.

    ``data`` is {"exit_status": number}, {"signal": number}, or None where neither is known.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        self.status = status  #: negative: the number of a signal; None: unknown
        self.data: dict[str, int] | None = None
        if status is not None:
            self.data = {"exit_status": status} if status >= 0 else {"signal": -status}
        super().__init__(message)


class IncarnationDead(RhythmError):
    """This worker incarnation was declared dead; what it held has been taken over."""


class SnapshotError(RhythmError):
    """The snapshot cannot be read."""
