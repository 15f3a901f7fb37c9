"""`rhythm db` and commands on the embedded database of a project."""

from __future__ import annotations

from pathlib import Path

import pytest

from rhythm.store.embedded import EmbeddedServer
from tests.support.commands import Rhythm
from tests.support.processes import Processes


@pytest.fixture
def project(embedded_project: Rhythm) -> Rhythm:
    embedded_project("init", code=0)
    return embedded_project


def test_a_command_starts_the_server_says_so_once_and_stops_it(project: Rhythm) -> None:
    first = project("start", "greet", code=0)
    second = project("list", "--json", code=0)

    assert first.err.splitlines() == [
        "Started the embedded PostgreSQL 18 in .rhythm/postgres (set RHYTHM_DATABASE_URL to use your own)."
    ]
    assert second.json["id"] == first.out.strip()
    assert EmbeddedServer(project.folder / ".rhythm").status().running is False


def test_url_leaves_the_server_running_for_other_programs_until_stop(project: Rhythm) -> None:
    url = project("db", "url", code=0).out.strip()

    assert project("db", "url", code=0).out.strip() == url
    elsewhere = Rhythm(project.folder.parent, {"RHYTHM_DATABASE_URL": url})
    elsewhere("migrate", code=0)
    elsewhere("list", code=0)
    project("db", "stop", code=0)
    elsewhere("list", code=3)


def test_psql_runs_on_the_database(project: Rhythm) -> None:
    project("list", code=0)

    result = project("db", "psql", "--", "-X", "-A", "-t", "-c", "select count(*) from rhythm.executions", code=0)

    assert result.out.strip() == "0"
    assert project("db", "psql", "--", "-c", "select wrong").code == 1


def test_stop_and_reset_name_the_processes_that_use_it(project: Rhythm, processes: Processes) -> None:
    user = processes.rhythm("db", "psql", "--", "-c", "select pg_sleep(60)", cwd=project.folder)
    user.wait_for_output("Started the embedded")
    server = EmbeddedServer(project.folder / ".rhythm")
    assert server.status().users == (user.pid,)

    assert str(user.pid) in project("db", "stop", code=1).err
    assert str(user.pid) in project("db", "reset", "--yes", code=1).err
    assert server.status().running is True
    project("db", "stop", "--force", code=0)
    assert server.status().running is False


def test_reset_asks_and_then_deletes(project: Rhythm) -> None:
    project("start", "greet", code=0)

    project("db", "reset", stdin="n\n", code=1)
    assert len(project("list", "--json", code=0).json_lines) == 1
    project("db", "reset", stdin="y\n", code=0)
    assert project("list", "--json", code=0).json_lines == []


def test_with_a_database_of_ones_own_there_is_no_embedded_one(project: Rhythm) -> None:
    env = {"RHYTHM_DATABASE_URL": "postgresql://app@db/x"}

    assert project("db", "url", env=env, code=0).out == "postgresql://app@db/x\n"
    for command in ("start", "stop", "reset"):
        assert "RHYTHM_DATABASE_URL sets database_url" in project("db", command, env=env, code=2).err


def test_outside_a_project_there_is_no_embedded_database(tmp_path: Path) -> None:
    assert "rhythm init" in Rhythm(tmp_path, {})("db", "start", code=3).err
