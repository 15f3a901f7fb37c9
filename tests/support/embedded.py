"""Embedded servers that tests leave behind in projects of theirs."""

from __future__ import annotations

import shutil
from pathlib import Path

from rhythm.store.embedded import EmbeddedServer


def remove_embedded(project: Path) -> None:
    """Stops the embedded server of a project and removes its data, where root's lies outside of the project too."""
    EmbeddedServer(project / ".rhythm").stop(force=True)
    home = (project / ".rhythm" / "postgres").resolve().parent
    if home.parent.name == "rhythm":
        shutil.rmtree(home, ignore_errors=True)  # another test process may be removing what looks forgotten
