"""Room for walks of deep trees under the interpreter's recursion limit, which is one for all threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

RECURSION_ROOM_FRAMES: Final = 12_000  #: Python frames that a walk of the deepest tree may use.

_room_lock = threading.Lock()
_room_users = 0
_room_before = 0
_room_set = 0


@contextmanager
def recursion_room(frames: int = RECURSION_ROOM_FRAMES) -> Iterator[None]:
    """Makes sure that `frames` more Python calls fit under the interpreter's recursion limit.

    Calls between Python functions use no C stack, so a higher limit is safe for walks of a bounded tree. The limit is
    shared by all threads: it goes back when the last user leaves, unless someone else has changed it meanwhile.
    """
    global _room_users, _room_before, _room_set
    depth = 0
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        depth += 1
    with _room_lock:
        if _room_users == 0:
            _room_before = _room_set = sys.getrecursionlimit()
        _room_users += 1
        if sys.getrecursionlimit() < depth + frames:
            _room_set = depth + frames
            sys.setrecursionlimit(_room_set)
    try:
        yield
    finally:
        with _room_lock:
            _room_users -= 1
            if _room_users == 0 and _room_set != _room_before and sys.getrecursionlimit() == _room_set:
                sys.setrecursionlimit(_room_before)
