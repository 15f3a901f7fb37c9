"""The options of task, child, signal and of a retry policy: their names, and what their values may be.

One table for both sides: the run time checks values against it (``builtins.host``), the front end what the source
shows of them (``arguments``). Neither knows the other; this knows neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from rhythm.model import NAME_LENGTH_MAX, PRIORITY_MAX, PRIORITY_MIN

RETRIES_MAX: Final = 100_000  #: Of one task.
ERROR_NAMES_MAX: Final = 100  #: Names in retryOn and noRetryOn.
ON_CANCEL: Final = ("cancel", "abandon")

Kind = Literal["duration", "moment", "text", "number", "whole", "boolean", "choice", "uuid", "names", "retry"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option."""

    command: str  #: its name in the command
    kind: Kind  #: a moment is a duration or a Date
    low: float = 0.0  #: of numbers
    high: float = 0.0
    choices: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        """What a value must be, to follow "must be"."""
        if self.kind in ("number", "whole"):
            return f"{'a whole number' if self.kind == 'whole' else 'a number'} from {self.low:g} to {self.high:g}"
        if self.kind == "choice":
            return " or ".join(f'"{choice}"' for choice in self.choices)
        return _WANTED[self.kind]


_WANTED: Final[dict[str, str]] = {
    "duration": "a duration: milliseconds, or a string like '30s', '5m', '2h', '3d'",
    "moment": "a duration like '30s' or 30000, or a Date",
    "text": f"a string of 1 to {NAME_LENGTH_MAX} characters",
    "boolean": "true or false",
    "uuid": "a UUID",
    "names": f"an array of at most {ERROR_NAMES_MAX} error names",
    "retry": "an object",
}

Options = dict[str, Option]

RETRY_OPTIONS: Final[Options] = {
    "initial": Option("initial", "duration"),
    "factor": Option("factor", "number", 1, 1000),
    "max": Option("max", "duration"),
    "jitter": Option("jitter", "number", 0, 1),
    "retryOn": Option("retry_on", "names"),
    "noRetryOn": Option("no_retry_on", "names"),
}
TASK_OPTIONS: Final[Options] = {
    "key": Option("key", "text"),
    "retries": Option("retries", "whole", 0, RETRIES_MAX),
    "retry": Option("retry", "retry"),
    "timeout": Option("timeout_seconds", "duration"),
    "deadline": Option("deadline_seconds", "moment"),
    "queue": Option("queue", "text"),
    "priority": Option("priority", "whole", PRIORITY_MIN, PRIORITY_MAX),
    "delay": Option("delay_seconds", "moment"),
    "limitKey": Option("limit_key", "text"),
    "onCancel": Option("on_cancel", "choice", choices=ON_CANCEL),
    "cancellable": Option("cancellable", "boolean"),
}
CHILD_OPTIONS: Final[Options] = {
    "key": Option("key", "text"),
    "id": Option("id", "uuid"),
    "deadline": Option("deadline_seconds", "moment"),
    "limitKey": Option("limit_key", "text"),
    "onCancel": Option("on_cancel", "choice", choices=ON_CANCEL),
}
SIGNAL_OPTIONS: Final[Options] = {"timeout": Option("timeout_seconds", "duration")}
