"""`rhythm worker`: imports tasks, publishes workflow files, and runs a worker, or several as processes.

SIGTERM and SIGINT drain: running tasks get `drain_timeout` to finish. A second one hands everything back at once, and
ends the process after GIVE_UP_SECONDS even if a task blocks its event loop; a third ends it on the spot. Before the
worker runs there is nothing to drain: the first one ends it, with the exit code of a drain.
With `--processes N` this process only looks after N children: it passes signals on, starts a child anew that was
killed, and ends with the first child that ends with an error of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rhythm.cli import options, output
from rhythm.errors import ConfigurationError

if TYPE_CHECKING:
    from rhythm.config import Config

DEFAULT_FOLDER = "workflows"
PARENT_CHECK_SECONDS = 1.0  #: between two looks of a child process whether its parent still lives
GIVE_UP_SECONDS = 7.0  #: between the second signal and the end of a process that does not hand back
RESTART_PAUSE_SECONDS = 1.0  #: between the death of a child process and its successor
_CHILD_VARIABLE = "RHYTHM_WORKER_CHILD"  # for the children of --processes: the number of their parent

Stops = (signal.SIGTERM, signal.SIGINT)


def worker(
    app: options.App = None,
    workflows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help='Folder of .flow files to publish; may be repeated. Default: "workflows".',
            show_default=False,
        ),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            "-q",
            metavar="NAME",
            help='Queue to serve; may be repeated. Default: "default" and those its tasks name.',
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Tasks at a time per process. Default: 100 async, 16 in threads.", show_default=False
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="Worker processes. Default: 1.", show_default=False)
    ] = None,
    heartbeat_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Not heard of for so long, it is dead. Default: 30s.", show_default=False
        ),
    ] = None,
    drain_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Time for running tasks when it stops. Default: 30s.", show_default=False
        ),
    ] = None,
    poll_interval: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Longest time between two looks for work. Default: 1s.", show_default=False
        ),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="debug, info, warning, error. Default: info.", show_default=False),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="text or json. Default: text.", show_default=False)
    ] = None,
    database_url: options.DatabaseUrl = None,
) -> None:
    """Runs a worker: tasks of the given modules, and workflows. SIGTERM lets it finish what it has in hand.

    Example: rhythm worker --app tasks --workflows workflows -q orders
    """
    from rhythm.config import load

    config = load(
        {
            "app": app,
            "workflows": workflows,
            "queues": queue,
            "concurrency": concurrency,
            "processes": processes,
            "heartbeat_timeout": heartbeat_timeout,
            "drain_timeout": drain_timeout,
            "poll_interval": poll_interval,
            "log_level": log_level,
            "log_format": log_format,
            "database_url": database_url,
        }
    )
    _configure_logging(config)
    for number in Stops:
        signal.signal(number, _end_before_running)
    options.import_apps(config.app)
    is_child = _CHILD_VARIABLE in os.environ  # then migrating and publishing has been done
    folders = _workflow_folders(config)
    _check_registered(config, folders)
    url = _prepare(config, () if is_child else folders)
    if config.processes > 1 and not is_child:
        raise typer.Exit(_run_processes(config, url))
    _run_worker(config, url)


def _workflow_folders(config: Config) -> tuple[Path, ...]:
    """The folders whose files are published: those configured, else `workflows` if there is one."""
    if config.workflows:
        return config.workflows
    default = (config.project or Path.cwd()) / DEFAULT_FOLDER
    return (default,) if default.is_dir() and any(default.rglob("*.flow")) else ()


def _check_registered(config: Config, folders: Sequence[Path]) -> None:
    from rhythm.tasks import REGISTRY

    if not folders and not REGISTRY.as_dict():
        named = f"the modules {', '.join(config.app)} declare no task" if config.app else "no module was named"
        raise ConfigurationError(
            f"This worker would have nothing to run: {named}, and there is no folder of workflows. "
            "Name the module of your tasks with --app MODULE, or a folder of .flow files with --workflows DIR."
        )


def _prepare(config: Config, folders: Sequence[Path]) -> str:
    """Publishes the workflow files; the URL of the database. Nothing is published when one has an error."""
    from rhythm.cli.connection import connected, run
    from rhythm.client.publishing import read_definitions
    from rhythm.config import resolve_database_url

    if folders:
        read_definitions(folders)  # mistakes in files are said before a database is needed

    async def work() -> None:
        async with connected(config) as client:
            for published in await client.publish(*folders) if folders else ():
                for warning in published.warnings:
                    output.message(output.diagnostic_text(warning, None))
                if published.changed:
                    logging.getLogger("rhythm.worker").info(
                        "published workflow=%s hash=%s", published.name, published.hash[:12]
                    )

    run(work())
    return resolve_database_url(config)


# --- one worker -------------------------------------------------------------------------------------


def _run_worker(config: Config, url: str) -> None:
    work = _work(config, url)
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def _end_before_running(number: int, frame: Any) -> None:
    raise SystemExit(0)


async def _work(config: Config, url: str) -> None:
    from rhythm.worker import Worker

    worker = Worker(config=config, database_url=url)
    running = asyncio.create_task(worker.run())
    stopping: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    asked = 0

    def drain() -> None:
        stopping.append(asyncio.create_task(worker.stop()))

    # Not the loop's own handlers: those wait for a loop that a task may be blocking.
    def stop(number: int, frame: Any) -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            os._exit(128 + signal.SIGTERM)
        if asked == 2:
            last = threading.Timer(GIVE_UP_SECONDS, os._exit, (128 + signal.SIGTERM,))
            last.daemon = True
            last.start()
        with contextlib.suppress(RuntimeError):  # the loop has just ended
            loop.call_soon_threadsafe(running.cancel if asked == 2 else drain)

    for number in Stops:
        signal.signal(number, stop)
    watch = asyncio.create_task(_stop_without_parent(drain))
    try:
        await running
    except asyncio.CancelledError:
        if asked < 2:
            raise
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        watch.cancel()


async def _stop_without_parent(stop: Callable[[], None]) -> None:
    """Drains a child of --processes whose parent was killed; nobody would ever stop it otherwise."""
    parent = os.environ.get(_CHILD_VARIABLE)
    while parent is not None and os.getppid() == int(parent):  # noqa: ASYNC110  (no event tells of this)
        await asyncio.sleep(PARENT_CHECK_SECONDS)
    if parent is not None:
        stop()


# --- several processes ------------------------------------------------------------------------------


def _run_processes(config: Config, url: str) -> int:
    """Starts the children and waits for all of them; the exit code."""
    # By the environment, not by arguments: everybody on the machine can read a process's arguments.
    environment = {**os.environ, "RHYTHM_DATABASE_URL": url, _CHILD_VARIABLE: str(os.getpid())}
    arguments = _arguments_without_url(sys.argv[1:])
    command = [sys.executable, "-m", "rhythm", *arguments]

    def start() -> subprocess.Popen[bytes]:
        # A group of its own: Ctrl-C reaches us only, and we pass on one signal, not two.
        return subprocess.Popen(command, env=environment, process_group=0)

    children = [start() for _ in range(config.processes)]
    asked = 0

    def pass_on(number: int, frame: Any) -> None:
        nonlocal asked
        asked += 1
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    for number in Stops:
        signal.signal(number, pass_on)
    result = 0
    while children:
        pid, status = os.wait()
        ended = [child for child in children if child.pid == pid]
        code = os.waitstatus_to_exitcode(status)
        for child in ended:
            child.returncode = code
            children.remove(child)
            if code < 0 and not asked:
                output.message(f"worker process {pid} was killed by signal {-code}; starting another")
                time.sleep(RESTART_PAUSE_SECONDS)
                if not asked:  # a signal may have come meanwhile
                    children.append(start())
            elif code > 0 and not asked:
                result = code
                pass_on(signal.SIGTERM, None)
    return result


def _arguments_without_url(arguments: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--database-url":
            skip = True
        elif not argument.startswith("--database-url="):
            kept.append(argument)
    return kept


# --- logging ----------------------------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    """One JSON object per record; the execution's id and attempt where a record carries them."""

    def format(self, record: logging.LogRecord) -> str:
        import json

        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        for name in ("execution_id", "attempt"):
            if hasattr(record, name):
                entry[name] = getattr(record, name)
        entry["message"] = record.getMessage()
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _configure_logging(config: Config) -> None:
    handler = logging.StreamHandler()
    formatter: logging.Formatter
    if config.log_format == "json":
        formatter = JsonFormatter()
        formatter.converter = time.gmtime
    else:
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(formatter)
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)
