"""Lanes: the tasks of one kind, how many of them run at a time, and how many are claimed ahead.

Each kind of task has a lane of its own (see ``runner``): those that wait in one hold up nobody in another. Within a
lane they begin in the order in which they were claimed.

Claimed ahead is only what will begin soon, within BUFFER_SECONDS by what tasks take on average: so the lane never runs
dry for want of an answer, and nothing waits here that another worker could run. Nothing is known at first, so nothing
is claimed ahead. When what waits would have to wait for longer than PATIENCE_SECONDS nevertheless, because tasks take
longer than those before, it goes back uncharged.

What a queue with limits lets pass counts from its claim on: of that no more is claimed than would begin at once, or
within AT_ONCE_SECONDS (``free``). Where others wait already, at least one: a lane that always has something to do must
not keep the queue waiting for ever, and what waits there begins within BUFFER_SECONDS or so.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from rhythm.worker.held import Held

WAITING_MAX: Final = 1_000  #: tasks claimed and not begun, in a lane
BUFFER_SECONDS: Final = 0.1  #: what is claimed ahead should begin within so long
AT_ONCE_SECONDS: Final = 0.01  #: what begins within so long begins at once
PATIENCE_SECONDS: Final = 1.0  #: what will not begin within so long is given back
SHARE: Final = 0.2  #: of the newest measurement in the moving average


class Lane:
    """Tasks of one kind, ``width`` at a time; ``ahead`` are claimed ahead before it is known how long they take."""

    __slots__ = (
        "ahead",
        "arrived",
        "asked",
        "average",
        "moved_at",
        "name_ids",
        "names",
        "under_way",
        "waiting",
        "width",
    )

    def __init__(self, names: Iterable[str], width: int, *, ahead: int = 0) -> None:
        self.names = frozenset(names)
        self.name_ids: list[int] = []  #: the same, as claims name them
        self.width = width
        self.ahead = ahead
        self.waiting: deque[Held] = deque()  #: claimed, not begun
        self.under_way: set[Held] = set()
        self.asked = 0  #: of exchanges under way
        self.arrived = 0  #: claimed, and not handed to the runner yet
        self.average = 0.0  #: seconds that one task takes; 0: not known
        self.moved_at = 0.0  #: when the last one began or ended

    @property
    def has_room(self) -> bool:
        """Whether another task may begin."""
        return len(self.under_way) < self.width

    def room(self) -> int:
        """How many more to claim; 0 or less: none."""
        ahead = min(WAITING_MAX, int(self.width * BUFFER_SECONDS / self._seconds())) if self.average else self.ahead
        return self.width - len(self.under_way) + ahead - len(self.waiting) - self.asked - self.arrived

    def free(self) -> int:
        """How many of those that `room` allows would begin at once."""
        room = self.room()
        seconds = self._seconds()
        soon = int(self.width * AT_ONCE_SECONDS / seconds) if seconds else 0
        return min(room, max(self.width - len(self.under_way) - self.asked - self.arrived, soon, 1))

    def began(self, held: Held, now: float) -> None:
        """A task begins, and occupies one place until ``ended``."""
        held.began_at = self.moved_at = now
        self.under_way.add(held)

    def ended(self, held: Held, now: float) -> None:
        """Its place is free again."""
        self.moved_at = now
        self.under_way.discard(held)
        self.took(now - held.began_at)

    def took(self, seconds: float) -> None:
        """Takes note of what one task took."""
        self.average = self.average + (seconds - self.average) * SHARE if self.average else seconds

    def take_surplus(self) -> list[Held]:
        """Takes out what will not begin soon, the youngest first."""
        seconds = self._seconds()
        keep = int(self.width * PATIENCE_SECONDS / seconds) if seconds else len(self.waiting)
        return [self.waiting.pop() for _ in range(len(self.waiting) - keep)]

    def _seconds(self) -> float:
        """What one task takes: the average, or how long none has begun or ended, if that is longer already."""
        if self.has_room:
            return self.average
        return max(self.average, time.monotonic() - self.moved_at)
