"""`rhythm dev`: everything one needs while writing: database, migrations, published workflows, a worker, all kept up.

This process migrates, publishes and watches; the worker is a child (see `supervision`: it ends with this process,
whatever ends that). The child looks up the embedded database by itself, so it counts as one of its users: the last one
out stops the server, also after a `kill -9` of this process.

A changed .py file restarts the child. One that ends with a mistake of its own, such as a module that cannot be
imported, has said so, and is started again after the next change. A changed .flow file is checked and published; the
worker needs no restart for that. What cannot be published now, the database being away, is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rhythm.cli import logs, options, output
from rhythm.cli.supervision import STOP_SIGNALS, Child, Restarts, how_it_ended
from rhythm.cli.watching import SETTLED_SECONDS, Watch
from rhythm.cli.worker import DEFAULT_FOLDER, workflow_folders
from rhythm.errors import CompileError, ConfigurationError, DatabaseUnavailable, RhythmError

if TYPE_CHECKING:
    from rhythm.client.publishing import PublishedWorkflow
    from rhythm.config import Config

DRAIN_SECONDS = 5.0  #: for running tasks before a restart, and at the end
KILL_AFTER_SECONDS = 7.0  #: beyond that: the last reports, and the way out
PUBLISH_AGAIN_SECONDS = 5.0  #: after the database was away
SETTLING_ROUNDS_MAX = 40  #: looks at files that keep changing before they are taken as they are


def dev(
    app: options.App = None,
    workflows: options.Workflows = None,
    queue: options.Queues = None,
    concurrency: options.Concurrency = None,
    log_level: options.LogLevel = None,
    log_format: options.LogFormat = None,
    database_url: options.DatabaseUrl = None,
) -> None:
    """Runs a worker for development: starts the database, migrates, publishes, and follows changes of files.

    A changed .py file restarts the worker, which gets 5 s to finish what it has in hand.
    A changed .flow file is checked and published. Ctrl-C stops everything.

    Example: rhythm dev --app tasks
    """
    from rhythm.config import load

    given = {
        "app": app,
        "workflows": workflows,
        "queues": queue,
        "concurrency": concurrency,
        "log_level": log_level,
        "log_format": log_format,
        "database_url": database_url,
    }
    config = load(given)
    if config.production:
        raise ConfigurationError("`rhythm dev` migrates and restarts at will, and RHYTHM_ENV is production.")
    if not config.app and not workflow_folders(config):
        raise ConfigurationError(
            "There is nothing to run: no module was named, and there is no folder of workflows. "
            "Name the module of your tasks with --app MODULE, or a folder of .flow files with --workflows DIR."
        )
    logs.configure(config)
    asyncio.run(Development(config).run())


class Development:
    """One run of `rhythm dev`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._here = Path.cwd()
        self._folders = config.workflows or ((config.project or self._here) / DEFAULT_FOLDER,)
        self._child: Child | None = None
        self._draining: Child | None = None
        self._restarts = Restarts()
        self._start_at: float | None = 0.0  # when to start the worker; None: after the next change
        self._unpublished: set[Path] = set()
        self._publish_at = 0.0  # not before
        self._stopping = False
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Runs until a stop signal. Raises what reaching or migrating the database does."""
        from rhythm.cli.connection import unmigrated

        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGCHLD, self._news.set)
        async with unmigrated(self._config) as client:
            for name in await client.migrate():
                output.message(f"dev: applied the migration {name}")
        watch = Watch(self._roots())
        if watch.overflow is not None:
            output.message(f"dev: too many files below {watch.overflow}; changes of some will not be noticed")
        self._unpublished = {path for folder in self._folders for path in _flow_files(folder)}
        try:
            while not self._stopping:
                await self._publish()
                self._look_after_worker()
                await self._wait(watch.pause)
                await self._take(await self._changes(watch))
        finally:
            await self._stop_worker()

    def _roots(self) -> dict[Path, tuple[str, ...]]:
        roots: dict[Path, tuple[str, ...]] = {}
        for folder in {self._here, self._config.project or self._here}:
            roots[folder] = (".py",)
        for folder in self._folders:
            roots[folder] = (*roots.get(folder, ()), ".flow")
        if self._config.file is not None:
            roots[self._config.file] = ("",)
        return roots

    async def _wait(self, seconds: float) -> None:
        """Until the next look, or until the worker ended or a signal came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    async def _changes(self, watch: Watch) -> set[Path]:
        """What has changed, once nobody is writing any more."""
        changed = await asyncio.to_thread(watch.changes)
        if changed:
            for _ in range(SETTLING_ROUNDS_MAX):
                await asyncio.sleep(SETTLED_SECONDS)
                more = await asyncio.to_thread(watch.changes)
                if not more:
                    break
                changed |= more
        return changed

    async def _take(self, changed: set[Path]) -> None:
        if not changed or self._stopping:
            return
        if self._config.file in changed:
            output.message(f"dev: {self._shown(self._config.file)} changed: start `rhythm dev` again to use it")
        flows = {path for path in changed if path.suffix == ".flow"}
        self._unpublished |= flows
        modules = sorted(path for path in changed if path.suffix == ".py")
        if modules:
            _forget_compiled(modules)
            names = ", ".join(self._shown(path) for path in modules[:3]) + (", …" if len(modules) > 3 else "")
            output.message(f"dev: {names} changed; restarting the worker")
            await self._stop_worker()
            self._restarts = Restarts()
            self._start_at = 0.0
        elif flows and self._start_at is None and self._child is None:
            self._start_at = 0.0

    # --- workflows ---

    async def _publish(self) -> None:
        """Publishes what has changed; mistakes are shown, and wait for the next change."""
        if not self._unpublished or time.monotonic() < self._publish_at:
            return
        from rhythm.cli.connection import connected
        from rhythm.client.publishing import publish_definitions, read_definitions

        definitions = []
        for path in sorted(self._unpublished):
            if not path.exists():  # what runs on it goes on; it can still be started
                self._unpublished.discard(path)
                continue
            try:
                self._check_name(path)
                definitions += read_definitions([path])
            except CompileError as error:
                output.report(error)
                self._unpublished.discard(path)
            except RhythmError as error:
                output.message(f"dev: {error}")
                self._unpublished.discard(path)
        if definitions:
            try:
                async with connected(self._config) as client:
                    for published in await publish_definitions(client.store, definitions):
                        _say_published(published)
            except DatabaseUnavailable as error:
                output.message(f"dev: not published yet: {error}")
                self._publish_at = time.monotonic() + PUBLISH_AGAIN_SECONDS
                return
        self._unpublished.clear()

    def _check_name(self, path: Path) -> None:
        for folder in self._folders:
            for other in _flow_files(folder):
                if other.stem == path.stem and other.resolve() != path.resolve():
                    raise ConfigurationError(f"two files are the workflow {path.stem!r}: {other} and {path}")

    # --- the worker ---

    def _look_after_worker(self) -> None:
        """Takes note of a worker that ended, and starts one that is due."""
        if self._child is not None and (code := self._child.ended()) is not None:
            child, self._child = self._child, None
            child.close()
            if code == output.USAGE:
                self._start_at = None
                output.message("dev: waiting for a change")
            else:
                pause = self._restarts.next_pause(time.monotonic() - child.started_at)
                self._start_at = time.monotonic() + pause
                output.message(f"dev: the worker {how_it_ended(code)}; starting another")
        if self._child is None and self._start_at is not None and self._start_at <= time.monotonic():
            self._start_at = None
            self._child = Child(self._arguments(), self._environment())

    def _arguments(self) -> list[str]:
        config = self._config
        arguments = ["--drain-timeout", f"{min(config.drain_timeout, DRAIN_SECONDS):g}"]
        arguments += [part for module in config.app for part in ("--app", module)]
        arguments += [part for folder in config.workflows for part in ("--workflows", str(folder))]
        arguments += [part for queue in config.queues for part in ("--queue", queue)]
        if config.concurrency is not None:
            arguments += ["--concurrency", str(config.concurrency)]
        return [*arguments, "--log-level", config.log_level, "--log-format", config.log_format]

    def _environment(self) -> dict[str, str]:
        url = self._config.database_url
        return {} if url is None else {"RHYTHM_DATABASE_URL": url}

    async def _stop_worker(self) -> None:
        """Drains the worker; kills it when it takes too long."""
        child, self._child = self._child, None
        if child is None:
            return
        self._draining = child
        deadline = time.monotonic() + DRAIN_SECONDS + KILL_AFTER_SECONDS
        child.terminate()
        while child.ended() is None and time.monotonic() < deadline:
            await self._wait(deadline - time.monotonic())
        self._draining = None
        child.kill()
        child.close()

    def _stop(self) -> None:
        if self._draining is not None:
            self._draining.terminate()  # the second signal: it lets go
        self._stopping = True
        self._news.set()

    def _shown(self, path: Path | None) -> str:
        assert path is not None, "only files are shown"
        return str(path.relative_to(self._here)) if path.is_relative_to(self._here) else str(path)


def _flow_files(folder: Path) -> Iterable[Path]:
    return sorted(folder.rglob("*.flow")) if folder.is_dir() else [folder] if folder.is_file() else []


def _forget_compiled(modules: Iterable[Path]) -> None:
    """Drops bytecode: Python goes by whole seconds and would not notice a second change within one."""
    for path in modules:
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def _say_published(published: PublishedWorkflow) -> None:
    for found in (*published.warnings, *published.mistaken):
        output.message(output.diagnostic_text(found, None))
    if not published.changed:
        output.message(f"dev: {published.name} {published.hash[:12]} is published as it is")
        return
    stay = f"{published.staying} {'execution stays' if published.staying == 1 else 'executions stay'}"
    output.message(f"dev: published {published.name} {published.hash[:12]}; {stay} on the old definition")
