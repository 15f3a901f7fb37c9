"""The blocking twin of the client, for threads, scripts and web applications without an event loop.

The methods here hand their calls over to the client's portal (see ``portal``) and wait. It is made at the first use,
and made anew in a forked child (gunicorn preload, multiprocessing): the parent's connections are never touched there.

What is given a ``connection`` never goes through the portal: it runs on that connection in the calling thread, which
is where the connection's transaction is being used.
"""

from __future__ import annotations

import builtins
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from rhythm.client.client import Client, Execution, new_signal
from rhythm.client.portal import Portal
from rhythm.client.publishing import PublishedWorkflow
from rhythm.client.starts import Start, StartOptions, check_not_refused, new_execution, new_executions, started
from rhythm.config import Config, load
from rhythm.durations import Duration
from rhythm.errors import RhythmError
from rhythm.model import ExecutionInfo, LogLine
from rhythm.store import callers
from rhythm.tasks import Task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class BlockingExecution(Generic[R]):
    """One execution, as a handle of the blocking client; see ``Execution``."""

    __slots__ = ("_client", "_execution", "id")

    def __init__(self, client: BlockingClient, execution: Execution[R]) -> None:
        self._client = client
        self._execution = execution
        self.id = execution.id

    def __repr__(self) -> str:
        return repr(self._execution)

    def result(self, timeout: Duration | None = None) -> R:
        """Waits for the outcome and returns the output; raises as ``Execution.result``."""
        return cast(R, self._execution._revived(self._client.wait(self.id, timeout=timeout)))

    def signal(
        self, name: str, payload: Any = None, *, send_id: uuid.UUID | None = None, connection: Any = None
    ) -> None:
        """Sends a signal to this execution; see ``BlockingClient.signal``."""
        self._client.signal(self.id, name, payload, send_id=send_id, connection=connection)

    def cancel(self, *, force: bool = False) -> None:
        """Asks for this execution to be cancelled, or ends it; see ``Client.cancel``."""
        self._client.cancel(self.id, force=force)

    def retry(self, *, from_start: bool = False) -> BlockingExecution[Any]:
        """Tries this execution again (see ``Client.retry``)."""
        return self._client.retry(self.id, from_start=from_start)

    def logs(self, *, level: str = "debug", after: int = 0) -> builtins.list[LogLine]:
        """The lines that this workflow has logged (see ``Client.logs``)."""
        return self._client.logs(self.id, level=level, after=after)

    def refresh(self) -> ExecutionInfo:
        """Asks the database, and returns and keeps what is known now."""
        self._execution = self._client.get(self.id)._execution
        return self._execution._known()

    @property
    def info(self) -> ExecutionInfo | None:
        return self._execution.info

    @property
    def status(self) -> str:
        return self._execution.status

    @property
    def name(self) -> str:
        return self._execution.name

    @property
    def inputs(self) -> Any:
        return self._execution.inputs

    @property
    def output(self) -> Any:
        return self._execution.output

    @property
    def progress(self) -> Any:
        return self._execution.progress

    @property
    def error(self) -> dict[str, Any] | None:
        return self._execution.error


class BlockingClient:
    """The client's methods, each waiting for its answer. Safe to share between threads.

    Use it as a context manager, or call ``close()`` at the end. Options are those of ``Client``.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._handles = Client(config)  # never opened: what handles refer to that were made without the portal
        self._lock = threading.Lock()
        self._portal: Portal | None = None
        self._closed = False
        _clients.add(self)

    def __enter__(self) -> BlockingClient:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnects and ends the portal thread; calls under way in other threads end with RhythmError."""
        with self._lock:
            portal, self._portal, self._closed = self._portal, None, True
        if portal is not None:
            portal.close()

    def _open(self) -> Portal:
        with self._lock:
            if self._closed:
                raise RhythmError("this client was closed")
            if self._portal is None:
                self._portal = Portal(self.config)
            return self._portal

    def _forked(self) -> None:
        """In a forked child: the portal is the parent's, and whoever held the lock does not exist."""
        self._lock = threading.Lock()
        self._portal = None

    def _call(self, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        portal = self._open()
        return portal.call(work(portal.client))

    @overload
    def start(
        self,
        name: Task[P, Coroutine[Any, Any, R]],
        inputs: Mapping[str, Any] | None = None,
        *,
        connection: Any = None,
        **options: Unpack[StartOptions],
    ) -> BlockingExecution[R]: ...
    @overload
    def start(
        self,
        name: Task[P, R],
        inputs: Mapping[str, Any] | None = None,
        *,
        connection: Any = None,
        **options: Unpack[StartOptions],
    ) -> BlockingExecution[R]: ...
    @overload
    def start(
        self,
        name: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        connection: Any = None,
        **options: Unpack[StartOptions],
    ) -> BlockingExecution[Any]: ...

    def start(
        self,
        name: str | Task[..., Any],
        inputs: Mapping[str, Any] | None = None,
        *,
        connection: Any = None,
        **options: Unpack[StartOptions],
    ) -> BlockingExecution[Any]:
        """Starts a workflow or task; see ``Client.start``. ``connection``: of psycopg or SQLAlchemy, a blocking one."""
        if connection is None:
            return BlockingExecution(self, self._call(lambda client: client.start(name, inputs, **options)))
        record = new_execution(Start(name, inputs, **options), bytes_max=self.config.payload_bytes_max)
        (result,) = callers.start_blocking(connection, [record])
        check_not_refused(record, result)
        task = name if isinstance(name, Task) else None
        return BlockingExecution(self, Execution(self._handles, result.id, exists=True, task=task))

    def start_many(self, starts: Iterable[Start], *, connection: Any = None) -> builtins.list[uuid.UUID]:
        """Starts all of them; see ``Client.start_many``, and ``start`` for ``connection``."""
        if connection is None:
            return self._call(lambda client: client.start_many(starts))
        ids = []
        for records in new_executions(starts, bytes_max=self.config.payload_bytes_max):
            ids += started(records, callers.start_blocking(connection, records))
        return ids

    def execution(self, execution_id: uuid.UUID | str) -> BlockingExecution[Any]:
        """A handle for an id, without asking the database."""
        return BlockingExecution(self, self._handles.execution(execution_id))

    def get(self, execution_id: uuid.UUID | str) -> BlockingExecution[Any]:
        """The execution, with what is known of it."""
        return BlockingExecution(self, self._call(lambda client: client.get(execution_id)))

    def list(
        self,
        *,
        name: str | None = None,
        status: str | Sequence[str] | None = None,
        kind: str | None = None,
        queue: str | None = None,
        key: str | None = None,
        tags: Mapping[str, Any] | None = None,
        parent: uuid.UUID | str | None = None,
        limit: int = 100,
        before: uuid.UUID | str | None = None,
    ) -> builtins.list[BlockingExecution[Any]]:
        """Executions that fit, newest first; see ``Client.list``."""
        found = self._call(
            lambda client: client.list(
                name=name,
                status=status,
                kind=kind,
                queue=queue,
                key=key,
                tags=tags,
                parent=parent,
                limit=limit,
                before=before,
            )
        )
        return [BlockingExecution(self, execution) for execution in found]

    def wait(self, execution_id: BlockingExecution[Any] | uuid.UUID | str, timeout: Duration | None = None) -> Any:
        """The output, once the execution has finished."""
        wanted = execution_id.id if isinstance(execution_id, BlockingExecution) else execution_id
        return self._call(lambda client: client.wait(wanted, timeout))

    def logs(
        self, execution_id: uuid.UUID | str, *, level: str = "debug", after: int = 0, newest: int | None = None
    ) -> builtins.list[LogLine]:
        """What a workflow has logged; see ``Client.logs``."""
        return self._call(lambda client: client.logs(execution_id, level=level, after=after, newest=newest))

    def signal(
        self,
        execution_id: uuid.UUID | str,
        name: str,
        payload: Any = None,
        *,
        send_id: uuid.UUID | None = None,
        connection: Any = None,
    ) -> None:
        """Sends a signal; see ``Client.signal``, and ``start`` for ``connection``."""
        if connection is None:
            self._call(lambda client: client.signal(execution_id, name, payload, send_id=send_id))
        else:
            bytes_max = self.config.payload_bytes_max
            callers.signal_blocking(connection, *new_signal(execution_id, name, payload, send_id, bytes_max=bytes_max))

    def cancel(self, execution_id: uuid.UUID | str, *, force: bool = False) -> None:
        """Asks for an execution to be cancelled, or ends it; see ``Client.cancel``."""
        self._call(lambda client: client.cancel(execution_id, force=force))

    def retry(self, execution_id: uuid.UUID | str, *, from_start: bool = False) -> BlockingExecution[Any]:
        """Tries again what has failed; see ``Client.retry``."""
        return BlockingExecution(self, self._call(lambda client: client.retry(execution_id, from_start=from_start)))

    def publish(self, *paths: str | Path) -> builtins.list[PublishedWorkflow]:
        """Checks and stores workflows; see ``Client.publish``."""
        return self._call(lambda client: client.publish(*paths))

    def migrate(self) -> builtins.list[str]:
        """Brings the schema up to date."""
        return self._call(lambda client: client.migrate())


_clients: weakref.WeakSet[BlockingClient] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._forked()


os.register_at_fork(after_in_child=_after_fork)


def connect_sync(url: str | None = None, **options: Any) -> BlockingClient:
    """A blocking client; the same options as ``connect``."""
    if url is not None:
        options["database_url"] = url
    return BlockingClient(load(options, flags=False))
