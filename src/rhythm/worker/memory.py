"""How much memory this process takes, and whether one of its threads has taken it: what the watchdog judges by.

Linux says it exactly. Elsewhere only the peak is known, which is as good while it rises.
"""

from __future__ import annotations

import os
import resource
import sys
from functools import cache
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = resource.getpagesize()
_STATM: Final = "/proc/self/statm"
_HUGE_PAGES: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def resident_bytes() -> int:
    """Memory of this process that is in use now; the most it ever was where that cannot be known."""
    try:
        with open(_STATM, "rb", buffering=0) as file:
            return int(file.read(200).split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10


def touched_bytes(native_id: int) -> int | None:
    """Memory that a thread has been the first to touch since it began; None where that cannot be known."""
    if _pages_are_huge():
        return None
    try:
        with open(f"/proc/self/task/{native_id}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
        return int(fields[7]) * _PAGE_BYTES  # minor faults; the fields begin with the third of proc(5)
    except (OSError, IndexError, ValueError):
        return None


@cache
def _pages_are_huge() -> bool:
    """Whether one fault may stand for any number of pages."""
    try:
        return "[always]" in _HUGE_PAGES.read_text()
    except OSError:
        return os.name != "posix"
