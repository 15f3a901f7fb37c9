"""The command in an empty folder: without a database, with a fresh one, and with the embedded one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Rhythm
from tests.support.embedded import remove_embedded


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
    remove_embedded(rhythm.folder)
