"""The recipes of docs/recipes.md run as they stand there."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psycopg
import pytest

import rhythm
from rhythm.config import Config
from rhythm.durations import parse_seconds
from rhythm.tasks import REGISTRY
from tests.support.commands import Rhythm
from tests.support.embedded import remove_embedded
from tests.support.processes import Process, Processes, clean_environment

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
RECIPES = PAGE.parent / "recipes"


@pytest.fixture
def recipe(rhythm_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a recipe, with the test's database as the configured one; what it registers is forgotten afterwards."""
    monkeypatch.setenv("RHYTHM_DATABASE_URL", rhythm_url)
    before = set(REGISTRY.as_dict())

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"recipe_{name}", RECIPES / f"{name}.py")
        assert spec is not None and spec.loader is not None  # noqa: PT018  (one fact for two readers)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in set(REGISTRY.as_dict()) - before:
        REGISTRY.remove(name)


def test_the_page_shows_the_files_as_they_are() -> None:
    page = PAGE.read_text()
    files = sorted(path for path in RECIPES.iterdir() if path.is_file())

    assert len(files) == 6
    for path in files:
        assert f"\n{path.read_text()}```\n" in page, path.name


async def test_fastapi_runs_a_worker_for_as_long_as_it_lives(recipe: Callable[[str], Any], rhythm_url: str) -> None:
    module = recipe("fastapi_app")
    transport = httpx.ASGITransport(module.app)
    async with module.lifespan(module.app), httpx.AsyncClient(transport=transport, base_url="http://shop") as browser:
        assert (await browser.get("/health")).json() == {"worker": "ok"}
        first = await browser.post("/orders/o-1")
        again = await browser.post("/orders/o-1")
        execution = module.app.state.rhythm.execution(first.json()["execution"])

        assert (first.status_code, first.json()) == (202, again.json())
        assert await execution.result(timeout=30) == {"sent": "o-1"}
    async with rhythm.connect(rhythm_url) as client:
        assert await client.store.workers() == []


def test_django_starts_in_its_transaction_or_after_it(recipe: Callable[[str], Any], rhythm_url: str) -> None:
    import django
    from django.conf import settings
    from django.db import connection, transaction

    parameters = psycopg.conninfo.conninfo_to_dict(rhythm_url)
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": parameters["dbname"], "USER": parameters["user"]}
    settings.configure(
        DATABASES={"default": database | {"HOST": parameters["host"], "PORT": parameters.get("port", "")}}
    )
    django.setup()
    with connection.cursor() as cursor:
        cursor.execute("create table orders (id text primary key, amount float8)")
    module = recipe("django_orders")

    def rolled_back(function: Callable[..., object], *arguments: object) -> None:
        with transaction.atomic():
            function(*arguments)
            raise ZeroDivisionError

    try:
        started = module.place_order("o-1", 25.0)
        with pytest.raises(ZeroDivisionError):
            rolled_back(module.place_order, "o-2", 10.0)
        with transaction.atomic():
            module.cancel_order("o-1")
            assert module.client.list(name="sendApology") == []
        with pytest.raises(ZeroDivisionError):
            rolled_back(module.cancel_order, "o-3")

        (order,) = module.client.list(name="processOrder")
        (apology,) = module.client.list(name="sendApology")
        assert (str(order.id), order.inputs) == (started, {"orderId": "o-1", "amount": 25.0})
        assert apology.inputs == {"orderId": "o-1"}
    finally:
        module.client.close()
        connection.close()


def test_the_pytest_fixture_runs_a_project_of_init(tmp_path: Path) -> None:
    Rhythm(tmp_path, {})("init", code=0)
    for name in ("conftest.py", "test_orders.py"):
        shutil.copy(RECIPES / name, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\npythonpath = .\n")
    temporary = tmp_path / "temporary"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={temporary}"]
    try:
        result = subprocess.run(
            command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=120
        )

        assert "1 passed" in result.stdout, result.stdout + result.stderr
    finally:
        for project in temporary.glob("rhythm*"):
            remove_embedded(project)


SLOW = """
import asyncio, pathlib
import rhythm

@rhythm.task
async def slow() -> str:
    pathlib.Path("begun").touch()
    while not pathlib.Path("release").exists():
        await asyncio.sleep(0.01)
    return "ended"
"""


def drained(worker: Process, folder: Path, url: str) -> None:
    """SIGTERM while a task runs: it ends, the worker too, with exit code 0."""
    worker.wait_for_output("worker ready")
    with rhythm.connect_sync(url) as client:
        execution = client.start("slow")
        while not (folder / "begun").exists():
            assert worker.alive, worker.output
        worker.terminate()
        worker.wait_for_output("draining")
        (folder / "release").touch()

        assert worker.wait() == 0
        assert execution.result(timeout=5) == "ended"
        assert client.list(status="running") == []


def test_the_systemd_unit_gives_a_worker_time_to_drain(tmp_path: Path, rhythm_url: str, processes: Processes) -> None:
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((RECIPES / "rhythm-worker.service").read_text())
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    (tmp_path / "tasks.py").write_text(SLOW)

    assert Path(program).name == "rhythm"
    assert (service["KillSignal"], service["KillMode"]) == ("SIGTERM", "mixed")
    assert parse_seconds(int(service["TimeoutStopSec"])) >= Config().drain_timeout + 20
    drained(processes.rhythm(*arguments, cwd=tmp_path, env={"RHYTHM_DATABASE_URL": rhythm_url}), tmp_path, rhythm_url)


def test_the_containers_command_drains_as_process_number_one(
    tmp_path: Path, rhythm_url: str, processes: Processes
) -> None:
    text = (RECIPES / "Dockerfile").read_text()
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    (variables,) = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    program, *arguments = json.loads(command)
    arguments[arguments.index("8080")] = "0"
    env = dict(pair.split("=") for pair in variables.split()) | {"RHYTHM_DATABASE_URL": rhythm_url}
    (tmp_path / "tasks.py").write_text(SLOW)
    refused = Rhythm(tmp_path, dict(pair.split("=") for pair in variables.split()))(*arguments, code=3)

    assert program == "rhythm"
    assert "RHYTHM_DATABASE_URL" in refused.err
    worker = processes.start([*AS_FIRST_PROCESS, sys.executable, "-m", "rhythm", *arguments], cwd=tmp_path, env=env)
    worker.wait_for_output("health port=")
    drained(worker, tmp_path, rhythm_url)


#: Makes a program the first process of a namespace, as in a container, and hands SIGTERM to it; only root may.
_INIT = """
import os, signal, sys
child = os.fork()
if child == 0:
    os.execvp("unshare", ["unshare", "--pid", "--fork", "--kill-child=SIGKILL", *sys.argv[1:]])
signal.signal(signal.SIGTERM, lambda *_: os.kill(first(), signal.SIGTERM))
def first():
    children = open(f"/proc/{child}/task/{child}/children").read().split()
    return int(children[0])
while True:
    pid, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
"""
AS_FIRST_PROCESS = [sys.executable, "-c", _INIT] if os.geteuid() == 0 and shutil.which("unshare") else []
