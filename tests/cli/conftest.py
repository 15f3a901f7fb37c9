"""The command in an empty folder: without a database, and with a fresh one."""

from __future__ import annotations

from pathlib import Path

import pytest

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
