"""PostgreSQL servers for tests: real ones from the wheel, each in a temporary folder of its own.

Every test process (xdist starts several) has its own server per version. Its folder is named after the process,
so that a run whose predecessor was killed finds the leftovers, stops their servers and removes them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from rhythm.store.embedded import Cluster, account_of, binaries_folder, choose_account, process_start

#: Tests do not survive a power cut; everything else is as in production.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "300", "autovacuum_naptime": "1min"}
_MIGRATE = """
import asyncio, sys
from rhythm.store import Store

async def run():
    store = await Store.connect(sys.argv[1])
    await store.migrate()
    await store.close()

asyncio.run(run())
"""
_ROOT = Path(tempfile.gettempdir(), f"rhythm-tests-{os.geteuid()}")


class TestServer:
    """A server to make databases on. `url` names a database that exists, for a role that may create others."""

    __test__ = False  # not a test class, whatever its name begins with

    def __init__(self, url: str, label: str) -> None:
        self.url = url
        self.label = label  #: for test ids: "18", "16", or the host of an external server
        self._template: str | None = None

    def url_of(self, database: str) -> str:
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=f"/{database}"))

    def execute(self, sql: str) -> str:
        """Runs one statement outside any transaction and returns its values, one per line."""
        command = [
            str(binaries_folder() / "psql"),
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.url,
            "-c",
            sql,
        ]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, f"{sql}\n{result.stderr}"
        return result.stdout.strip()

    @contextlib.contextmanager
    def database(self, template: str | None = None) -> Iterator[str]:
        """A fresh database, dropped at the end; its URL."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"create database {name}" + (f" template {template}" if template else ""))
        try:
            yield self.url_of(name)
        finally:
            self.execute(f"drop database if exists {name} with (force)")

    def migrated_template(self) -> str:
        """The name of a database with the current schema, made at first use, to be copied for each test."""
        if self._template is None:
            name = f"template_{uuid.uuid4().hex[:12]}"
            self.execute(f"create database {name}")
            migrate(self.url_of(name))
            self._template = name
        return self._template

    def drop_template(self) -> None:
        if self._template is not None:
            self.execute(f"drop database if exists {self._template} with (force)")


def migrate(url: str) -> None:
    """Brings the schema up to date, in a process of its own: no event loop of ours is involved."""
    result = subprocess.run([sys.executable, "-c", _MIGRATE, url], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@contextlib.contextmanager
def running_server(version: int) -> Iterator[TestServer]:
    """A server of the wheel's given version, gone with its data at the end."""
    remove_leftovers()
    home = _ROOT / f"{os.getpid()}-{process_start(os.getpid())}-{version}".replace(" ", "_")
    home.mkdir(parents=True)
    cluster = Cluster(home, choose_account(), version=version, settings=SETTINGS)
    try:
        cluster.create()
        cluster.start()
        yield TestServer(cluster.url, str(version))
    finally:
        _remove(home, cluster)


def remove_leftovers() -> None:
    """Stops the servers and removes the folders of test runs that were killed."""
    for home in _ROOT.glob("*-*-*"):
        pid, _, start = home.name.rpartition("-")[0].partition("-")
        if (process_start(int(pid)) or "").replace(" ", "_") != start:
            with contextlib.suppress(FileNotFoundError):  # another test process is removing it too
                account = account_of(home / "postgres") if (home / "postgres").exists() else None
                _remove(home, Cluster(home, account))


def _remove(home: Path, cluster: Cluster) -> None:
    cluster.stop()
    shutil.rmtree(home, ignore_errors=True)
