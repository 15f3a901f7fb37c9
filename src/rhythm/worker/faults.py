"""Fail points: named places where a test can make this process die, stop, or lose its connection.

    RHYTHM_FAIL_POINT="reports_ready:3:kill"     the third time this place is passed: SIGKILL
                       name:count:kill | stall | drop

``stall`` is SIGSTOP (a test continues the process), ``drop`` raises DatabaseUnavailable as if the connection were gone.
Without the variable the places cost one comparison with None.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from rhythm.errors import ConfigurationError, DatabaseUnavailable

VARIABLE: Final = "RHYTHM_FAIL_POINT"
#: In the order in which one task passes them.
POINTS: Final = (
    "claimed",  # claims have come, nothing has begun
    "task_begun",  # a task is about to be called
    "task_done",  # its effect has happened, nothing is reported
    "activated",  # a workflow was advanced, nothing is committed
    "exchange_begun",  # the reports are on their way
    "exchange_done",  # committed, the answer not yet looked at
)
ACTIONS: Final = ("kill", "stall", "drop")


class FailPoint:
    """The one fail point of this process."""

    def __init__(self, text: str) -> None:
        name, _, rest = text.partition(":")
        count, _, action = rest.partition(":")
        if name not in POINTS or action not in ACTIONS or not count.isdigit():
            raise ConfigurationError(
                f"{VARIABLE}={text!r} is not name:count:{'|'.join(ACTIONS)} with a name of {POINTS}"
            )
        self.name = name
        self.left = int(count)
        self.action = action

    def passed(self, name: str) -> None:
        """Acts if this is the place and the time."""
        if name != self.name:
            return
        self.left -= 1
        if self.left != 0:
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "stall":
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            raise DatabaseUnavailable("the connection was dropped by a fail point")


def from_environment() -> FailPoint | None:
    """The fail point this process was started with, or None."""
    text = os.environ.get(VARIABLE)
    return FailPoint(text) if text else None
