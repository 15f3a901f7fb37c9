"""Fixtures for everybody: servers, databases, processes.

postgres_server     the wheel's PostgreSQL 18, one per test process
postgres_url        a fresh, empty database on it
rhythm_url          a fresh database on it with Rhythm's current schema
any_postgres_url    as the two above, but the test runs on PostgreSQL 18, on the wheel's 16,
any_rhythm_url      and on each server of RHYTHM_TEST_DATABASE_URLS (separated by spaces)
processes           starts real workers and commands; none is left at the end
embedded_project    the command in an empty folder with an embedded server of its own
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.commands import Rhythm
from tests.support.embedded import remove_embedded
from tests.support.processes import Processes
from tests.support.servers import TestServer, running_server

EXTERNAL_URLS = os.environ.get("RHYTHM_TEST_DATABASE_URLS", "").split()
SERVERS = ["18", "16", *EXTERNAL_URLS]


class Servers:
    """The servers of this test process, each started when a test first needs it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[str, TestServer] = {}

    def get(self, which: str) -> TestServer:
        """ "18" or "16" for the wheel's, or the URL of an external server."""
        if which not in self._running:
            if which.isdigit():
                server = self._stack.enter_context(running_server(int(which)))
            else:
                server = TestServer(which, urlsplit(which).hostname or "external")
                self._stack.callback(server.drop_template)
            self._running[which] = server
        return self._running[which]


@pytest.fixture(scope="session", autouse=True)
def _own_environment() -> Iterator[None]:
    """Hides the developer's own configuration from code under test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("RHYTHM_", "PG")):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(stack)


@pytest.fixture(scope="session")
def postgres_server(postgres_servers: Servers) -> TestServer:
    return postgres_servers.get("18")


@pytest.fixture
def postgres_url(postgres_server: TestServer) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def rhythm_url(postgres_server: TestServer) -> Iterator[str]:
    with postgres_server.database(postgres_server.migrated_template()) as url:
        yield url


@pytest.fixture(params=SERVERS, ids=lambda which: which if which.isdigit() else urlsplit(which).hostname or "external")
def any_postgres_server(request: pytest.FixtureRequest, postgres_servers: Servers) -> TestServer:
    return postgres_servers.get(request.param)


@pytest.fixture
def any_postgres_url(any_postgres_server: TestServer) -> Iterator[str]:
    with any_postgres_server.database() as url:
        yield url


@pytest.fixture
def any_rhythm_url(any_postgres_server: TestServer) -> Iterator[str]:
    with any_postgres_server.database(any_postgres_server.migrated_template()) as url:
        yield url


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture
def embedded_project(tmp_path: Path) -> Iterator[Rhythm]:
    """An empty folder that may become a project; its embedded server is gone at the end."""
    rhythm = Rhythm(tmp_path / "shop", {})
    rhythm.folder.mkdir()
    yield rhythm
    remove_embedded(rhythm.folder)


@pytest.fixture
def unraisable_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the watchdog, whose strike may hit a callback of the garbage collector, which reports and drops it.

    The watchdog then repeats it. What reports is a function of C here, which cannot be struck itself.
    """
    monkeypatch.setattr(sys, "unraisablehook", bool)
