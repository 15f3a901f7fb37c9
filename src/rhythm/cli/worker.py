"""`rhythm worker`: imports tasks, publishes workflow files, and runs a worker, or several as processes.

SIGTERM and SIGINT drain: running tasks get `drain_timeout` to finish. A second one hands everything back at once, and
ends the process after GIVE_UP_SECONDS even if a task blocks its event loop; a third ends it on the spot. Before the
worker runs there is nothing to drain: the first one ends it, with the exit code of a drain.
With `--processes N` this process only looks after N children (see `supervision`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rhythm.cli import logs, options, output
from rhythm.cli.supervision import STOP_SIGNALS, Fleet, Lifeline
from rhythm.errors import ConfigurationError

if TYPE_CHECKING:
    from rhythm.config import Config

DEFAULT_FOLDER = "workflows"
GIVE_UP_SECONDS = 7.0  #: between the second signal and the end of a process that does not hand back


def worker(
    app: options.App = None,
    workflows: options.Workflows = None,
    queue: options.Queues = None,
    concurrency: options.Concurrency = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="Worker processes. Default: 1.", show_default=False)
    ] = None,
    task_processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Child processes for tasks with process=True, per process. Default: one per CPU.",
            show_default=False,
        ),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="Answer HTTP there: 200 while all is well, else 503 and the reason. Default: none.",
            show_default=False,
        ),
    ] = None,
    heartbeat_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Not heard of for so long, it is dead. Default: 30s.", show_default=False
        ),
    ] = None,
    stall_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Stuck for so long, it gives up its work. Default: 60s.", show_default=False
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
    payload_bytes_max: Annotated[
        int | None,
        typer.Option(metavar="BYTES", help="Largest output or signal. Default: 1048576.", show_default=False),
    ] = None,
    pooler: Annotated[
        bool | None,
        typer.Option(
            "--pooler/--no-pooler",
            help="The URL leads through a pooler in transaction mode. Default: no.",
            show_default=False,
        ),
    ] = None,
    listen_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Direct URL for wake-ups, beside a pooler. Default: none.", show_default=False
        ),
    ] = None,
    log_level: options.LogLevel = None,
    log_format: options.LogFormat = None,
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
            "task_processes": task_processes,
            "health_port": health_port,
            "heartbeat_timeout": heartbeat_timeout,
            "stall_timeout": stall_timeout,
            "drain_timeout": drain_timeout,
            "poll_interval": poll_interval,
            "payload_bytes_max": payload_bytes_max,
            "pooler": pooler,
            "listen_url": listen_url,
            "log_level": log_level,
            "log_format": log_format,
            "database_url": database_url,
        }
    )
    lifeline = Lifeline.of_this_process(config.drain_timeout)
    for number in _stop_signals(lifeline):
        signal.signal(number, _end_before_running)
    logs.configure(config)
    options.import_apps(config.app)
    folders = workflow_folders(config)
    _check_registered(config, folders)
    if lifeline is None:
        _prepare(config, folders)  # the parent has, for its children
    if config.processes > 1 and lifeline is None:
        raise typer.Exit(_run_processes(config))
    _run(_work(config, lifeline))


def workflow_folders(config: Config) -> tuple[Path, ...]:
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


def _prepare(config: Config, folders: Sequence[Path]) -> None:
    """Publishes the workflow files. Nothing is published when one has an error."""
    from rhythm.cli.connection import connected, run
    from rhythm.client.publishing import read_definitions

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


def _run(work: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


# --- one worker -------------------------------------------------------------------------------------


def _stop_signals(lifeline: Lifeline | None) -> tuple[signal.Signals, ...]:
    return STOP_SIGNALS if lifeline is None else (signal.SIGTERM,)


def _end_before_running(number: int, frame: Any) -> None:
    raise SystemExit(0)


async def _work(config: Config, lifeline: Lifeline | None) -> int:
    from rhythm.worker import Worker
    from rhythm.worker.health import serving

    worker = Worker(config=config)
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

    with contextlib.ExitStack() as stack:
        if lifeline is not None:
            lifeline.problem = worker.health
        elif config.health_port is not None:
            _say_port(stack.enter_context(serving(config.health_port, worker.health)))
        for number in _stop_signals(lifeline):
            signal.signal(number, stop)
        try:
            await running
        except asyncio.CancelledError:
            if asked < 2:
                raise
            raise SystemExit(128 + signal.SIGTERM) from None
    return 0


# --- several processes ------------------------------------------------------------------------------


def _run_processes(config: Config) -> int:
    """Runs the children until they have been stopped; the exit code."""
    # By the environment, not by arguments: everybody on the machine can read a process's arguments. An embedded
    # database is found by the children themselves: each counts as one of its users.
    environment = {} if config.database_url is None else {"RHYTHM_DATABASE_URL": config.database_url}
    arguments = _arguments_without_url(sys.argv[sys.argv.index("worker") + 1 :])

    async def supervise() -> int:
        from rhythm.worker.health import HealthServer

        fleet = Fleet(config.processes, arguments, environment, config.drain_timeout)
        if config.health_port is None:
            return await fleet.run()
        server = HealthServer(config.health_port, fleet.problem)
        await server.start()
        _say_port(server.port)
        try:
            return await fleet.run()
        finally:
            await server.close()

    return asyncio.run(supervise())


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


def _say_port(port: int) -> None:
    logging.getLogger("rhythm.worker").info("health port=%d", port)
