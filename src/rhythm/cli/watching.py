"""Noticing changed files, by looking: the times, sizes and numbers of all files of a kind below some folders.

Looking is done here and not by the operating system's notifications: those do not reach into containers' mounts and
WSL's drives, run out of watches in large trees, and miss what was written before they were set up. A look at 1,000
files takes some 10 ms; after a longer one there is a longer pause, so that it never costs more than a twentieth of
one core.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path

ENTRIES_MAX = 100_000  #: files and folders looked at below one root; what lies beyond is not noticed
PAUSE_SECONDS = 0.2  #: between two looks, at least
PAUSE_FACTOR = 20  #: the pause is at least so many times as long as the look before
SETTLED_SECONDS = 0.05  #: files that did not change for so long have been written
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist"})

Mark = tuple[int, int, int]


class Watch:
    """Remembers what files looked like. ``roots``: folder or file -> the ending of the files that count."""

    def __init__(self, roots: Mapping[Path, tuple[str, ...]]) -> None:
        self.pause = PAUSE_SECONDS  #: seconds until the next look
        self.overflow: Path | None = None  #: a root with too many entries
        self._roots = dict(roots)
        self._marks = self._look()

    def changes(self) -> set[Path]:
        """Files that were written, made or removed since the last call (or since this object was made)."""
        marks = self._look()
        before, self._marks = self._marks, marks
        if marks == before:
            return set()
        return {path for path in marks.keys() | before.keys() if marks.get(path) != before.get(path)}

    def _look(self) -> dict[Path, Mark]:
        began = time.monotonic()
        marks: dict[Path, Mark] = {}
        for root, endings in self._roots.items():
            self._look_below(root, endings, marks)
        self.pause = max(PAUSE_SECONDS, PAUSE_FACTOR * (time.monotonic() - began))
        return marks

    def _look_below(self, root: Path, endings: tuple[str, ...], marks: dict[Path, Mark]) -> None:
        if root.is_file():
            _mark(root, marks)
            return
        folders = [str(root)]
        entries = 0
        while folders:
            try:
                with os.scandir(folders.pop()) as found:
                    for entry in found:
                        entries += 1
                        if entries > ENTRIES_MAX:
                            self.overflow = root
                            return
                        if entry.is_dir(follow_symlinks=False):
                            if not entry.name.startswith(".") and entry.name not in _SKIPPED:
                                folders.append(entry.path)
                        elif entry.name.endswith(endings):
                            _mark(Path(entry.path), marks)
            except OSError:
                continue  # gone, or not ours to read


def _mark(path: Path, marks: dict[Path, Mark]) -> None:
    try:
        found = path.stat()
    except OSError:
        return
    if stat.S_ISREG(found.st_mode):
        marks[path] = (found.st_mtime_ns, found.st_size, found.st_ino)
