"""Fail points: named places where a test can make this process die, stop, or lose its connection.

    RHYTHM_FAIL_POINT="exchange.during:3:kill"     the third time this place is passed: SIGKILL
                       name:count:kill | stall | drop

Places in the worker have a name of their own (PLACES). Every call of a SQL function has three: ``FUNCTION.before``,
nothing is sent yet; ``FUNCTION.during``, the call is on its way and the server goes on with it, through its COMMIT;
``FUNCTION.after``, it is committed and nobody has looked at the answer (CALLS, MOMENTS).

``stall`` is SIGSTOP (a test continues the process). ``drop`` at a call closes the socket of its connection, for good,
while the server goes on; at a place in the worker it raises DatabaseUnavailable. A fail point acts once.
Without the variable each place costs one comparison with None.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
from collections.abc import Iterator
from typing import Final

from rhythm.errors import ConfigurationError, DatabaseUnavailable

VARIABLE: Final = "RHYTHM_FAIL_POINT"
#: In the order in which one task passes them.
PLACES: Final = (
    "claimed",  # claims have come, nothing has begun
    "task_begun",  # a task is about to be called
    "task_done",  # its effect has happened, nothing is reported
    "activated",  # a workflow was advanced, nothing is committed
    "committing",  # a transactional task has recorded its outcome, COMMIT is not sent yet
)
#: SQL functions, by their names in schema rhythm.
CALLS: Final = (
    "exchange", "step", "held", "heartbeat", "maintain", "register_worker", "unregister_worker",
    "start_many", "signal", "cancel", "terminate", "complete", "retry", "start_again",
)  # fmt: skip
MOMENTS: Final = ("before", "during", "after")
POINTS: Final = (*PLACES, *(f"{call}.{moment}" for call in CALLS for moment in MOMENTS))
ACTIONS: Final = ("kill", "stall", "drop")

_FUNCTION: Final = re.compile(r"rhythm\.(\w+)\(")
logger = logging.getLogger("rhythm.faults")


class FailPoint:
    """One fail point: ``name:count:action``. Raises ConfigurationError for a text that is none."""

    def __init__(self, text: str) -> None:
        name, _, rest = text.partition(":")
        count, _, action = rest.partition(":")
        if name not in POINTS or action not in ACTIONS or not count.isdigit() or int(count) < 1:
            raise ConfigurationError(
                f"{VARIABLE}={text!r} is not name:count:{'|'.join(ACTIONS)} with a count from 1 and a name of {POINTS}"
            )
        self.text = text
        self.name = name
        self.left = int(count)
        self.action = action

    @property
    def acted(self) -> bool:
        """Whether the place was passed often enough."""
        return self.left <= 0

    def passed(self, name: str) -> None:
        """Acts if this is the place and the time: ``drop`` raises DatabaseUnavailable."""
        if self.reached(name):
            raise DatabaseUnavailable("the connection was dropped by a fail point")

    def reached(self, name: str) -> bool:
        """The same, but for ``drop`` it returns True, and the caller closes its connection."""
        if name != self.name or self.acted:
            return False
        self.left -= 1
        if self.left > 0:
            return False
        logger.warning("fail point %s acts", self.text)
        if self.action == "drop":
            return True
        os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)
        return False

    def watches(self, name: str) -> bool:
        """Whether this is the place, and it has not acted yet."""
        return name == self.name and not self.acted


def function_of(query: str) -> str:
    """The SQL function a query calls; empty when it calls none of Rhythm's."""
    found = _FUNCTION.search(query)
    return found[1] if found else ""


def from_environment() -> FailPoint | None:
    """The fail point that the environment names, or None."""
    text = os.environ.get(VARIABLE)
    return FailPoint(text) if text else None


def current() -> FailPoint | None:
    """The one fail point of this process, or None. Who counts passings shares it."""
    return _current


@contextlib.contextmanager
def active(text: str) -> Iterator[FailPoint]:
    """For tests in one process: what connects or begins inside the block has this fail point."""
    global _current
    before, point = _current, FailPoint(text)
    _current = point
    try:
        yield point
    finally:
        _current = before


_current = from_environment()
