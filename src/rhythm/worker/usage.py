"""What this process and one thread of it have used: what the watchdog judges an activation by.

Linux says it exactly. Elsewhere only the peak of the memory is known, which is as good while it rises.

The files of /proc are kept open and read without letting go of the interpreter: a thread that lets go of it for each
file waits, file by file, for whatever one call of C takes in the thread it is to watch.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import threading
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

_PAGE_BYTES: Final = resource.getpagesize()
_HUGE_PAGES: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FRESH_SECONDS: Final = 0.01  #: see Meter.recent
_READ_BYTES: Final = 1024  #: more than any line that is read here
_pread = ctypes.PyDLL(None).pread
_pread.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_long)
_pread.restype = ctypes.c_ssize_t


class Usage(NamedTuple):
    """Up to now; only differences mean something."""

    resident: int  #: bytes of memory of the process that are in use; the most there ever were where that is unknown
    touched: int | None  #: bytes of memory that the thread was the first to touch; None where that is unknown
    starved: float  #: seconds in which the thread could run and had no processor; 0 where that is unknown


class Meter:
    """Reads the usage of the thread that makes it. Any thread may read, until it is closed; a read takes some 5 µs."""

    def __init__(self) -> None:
        self._closing: list[Callable[[], object]] = []
        self._recent: Usage | None = None
        self._recent_until = 0.0
        self.thread_id = threading.get_ident()  # given again to other threads once this one has ended
        self.native_id = threading.get_native_id()
        task = f"/proc/self/task/{self.native_id}"
        self._statm = self._open("/proc/self/statm")
        self._stat = None if _pages_are_huge() else self._open(f"{task}/stat")
        self._schedstat = self._open(f"{task}/schedstat")

    def read(self) -> Usage:
        resident = _fields(self._statm)
        thread = _fields(self._stat)
        scheduled = _fields(self._schedstat)
        return Usage(
            int(resident[1]) * _PAGE_BYTES if len(resident) > 1 else _peak_bytes(),
            # Minor faults: field 10 of proc(5). A thread has some; none means that they are not counted.
            (int(thread[7]) * _PAGE_BYTES or None) if len(thread) > 7 else None,
            int(scheduled[1]) / 1e9 if len(scheduled) > 1 else 0.0,
        )

    def recent(self, now: float) -> Usage:
        """The usage of at most FRESH_SECONDS before ``now`` (of time.monotonic); for the metered thread only.

        Activations are short and many: a read before each was a tenth of the worker's Python (2026-11).
        """
        if self._recent is None or now > self._recent_until:
            self._recent, self._recent_until = self.read(), now + FRESH_SECONDS
        return self._recent

    def _open(self, path: str) -> int | None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        closing = weakref.finalize(self, os.close, descriptor)
        closing.atexit = False
        self._closing.append(closing)
        return descriptor

    def close(self) -> None:
        for closing in self._closing:
            closing()


def _fields(descriptor: int | None) -> list[bytes]:
    """The words of a file of /proc, from behind the name of the program if it tells that; none if it cannot be read."""
    if descriptor is None:
        return []
    buffer = ctypes.create_string_buffer(_READ_BYTES)
    count = _pread(descriptor, buffer, _READ_BYTES, 0)
    return buffer.raw[: max(count, 0)].rpartition(b")")[2].split()


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


@cache
def _pages_are_huge() -> bool:
    """Whether one fault may stand for any number of pages."""
    try:
        return "[always]" in _HUGE_PAGES.read_text()
    except OSError:
        return os.name != "posix"
