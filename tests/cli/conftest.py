"""The command in an empty folder: without a database, with a fresh one, and with the embedded one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rhythm.store.embedded import EmbeddedServer
from tests.support.commands import Rhythm


@pytest.fixture
def rhythm(tmp_path: Path) -> Rhythm:
    folder = tmp_path / "project"
    folder.mkdir()
    return Rhythm(folder, {})


@pytest.fixture
def rhythm_db(tmp_path: Path, rhythm_url: str) -> Rhythm:
    folder = tmp_path / "project"
    folder.mkdir()
    return Rhythm(folder, {"RHYTHM_DATABASE_URL": rhythm_url})


@pytest.fixture
def embedded_project(tmp_path: Path) -> Iterator[Rhythm]:
    """An empty folder that may become a project; its embedded server is gone at the end."""
    rhythm = Rhythm(tmp_path / "shop", {})
    rhythm.folder.mkdir()
    yield rhythm
    server = EmbeddedServer(rhythm.folder / ".rhythm")
    server.stop(force=True)
    home = (rhythm.folder / ".rhythm" / "postgres").resolve().parent
    if home.parent.name == "rhythm":  # root's data, outside the project
        shutil.rmtree(home)
