"""The asynchronous client.

Every method is one call of a SQL function, or a few. Single starts are coalesced: those that arrive while a
flush is in flight go together in the next one, at most FLUSHES_IN_FLIGHT at a time and START_COUNT_MAX in
each; at low load a start leaves at once. Ids are minted here before anything is sent, so a start whose
answer was lost is repeated unchanged and cannot happen twice.
"""

from __future__ import annotations

import asyncio
import builtins
import uuid
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from rhythm import payloads
from rhythm.client.publishing import PublishedWorkflow, publish_definitions, read_definitions
from rhythm.client.starts import (
    Start,
    StartOptions,
    check_name,
    check_not_refused,
    new_execution,
    new_executions,
    started,
)
from rhythm.client.waiting import OutcomeWaits
from rhythm.config import Config, load, resolve_database_url
from rhythm.durations import Duration, parse_seconds
from rhythm.errors import (
    DatabaseUnavailable,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionFinished,
    ExecutionNotFound,
    InvalidInput,
    RhythmError,
    WaitTimeout,
)
from rhythm.model import (
    LOG_LEVELS,
    START_COUNT_MAX,
    ExecutionInfo,
    LogLine,
    NewExecution,
    OutcomeInfo,
    StartResult,
    new_id,
)
from rhythm.store import Store, callers
from rhythm.tasks import Task

FLUSHES_IN_FLIGHT = 2
REPEATS_MAX = 8  #: times a call whose answer was lost is repeated before the error reaches the caller
LIST_LIMIT_MAX = 10_000
LAST_LOOK_SECONDS = 1.0  #: for asking once more when a wait runs into its timeout

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Execution(Generic[R]):
    """One execution, as a handle: cheap to make, and nothing is asked before a method is awaited.

    ``info`` is what was known when the handle came from ``get`` or ``list``, or at the last ``refresh()``.
    """

    __slots__ = ("_client", "_task", "exists", "id", "info")

    def __init__(
        self,
        client: Client,
        execution_id: uuid.UUID,
        info: ExecutionInfo | None = None,
        *,
        exists: bool = False,
        task: Task[..., Any] | None = None,
    ) -> None:
        self._client = client
        self._task = task  # what was started, where the caller gave the function itself
        self.id = execution_id
        self.info = info
        self.exists = exists or info is not None  #: known to exist; otherwise the first wait looks

    def __repr__(self) -> str:
        about = f" {self.info.name} {self.info.status}" if self.info else ""
        return f"<Execution {self.id}{about}>"

    async def result(self, timeout: Duration | None = None) -> R:
        """Waits for the outcome and returns the output.

        ``timeout`` in seconds or as text; default: wait as long as it takes. The output is JSON-shaped, or what the
        return annotation says if the decorated function itself was started. Raises ExecutionFailed,
        ExecutionCancelled, ExecutionNotFound, WaitTimeout (the execution carries on), or OutputInvalid when the output
        is not what the annotation says.
        """
        return cast(R, self._revived(await self._client.wait(self, timeout=timeout)))

    def _revived(self, output: Any) -> Any:
        return output if self._task is None else self._task.revive(output)

    async def signal(
        self, name: str, payload: Any = None, *, send_id: uuid.UUID | None = None, connection: Any = None
    ) -> None:
        """Sends a signal to this execution (see ``Client.signal``)."""
        await self._client.signal(self.id, name, payload, send_id=send_id, connection=connection)

    async def cancel(self, *, force: bool = False) -> None:
        """Asks for this execution to be cancelled, or ends it (see ``Client.cancel``)."""
        await self._client.cancel(self.id, force=force)

    async def retry(self, *, from_start: bool = False) -> Execution[R]:
        """Tries this execution again (see ``Client.retry``)."""
        return await self._client.retry(self.id, from_start=from_start)

    async def logs(self, *, level: str = "debug", after: int = 0) -> builtins.list[LogLine]:
        """The lines that this workflow has logged (see ``Client.logs``)."""
        return await self._client.logs(self.id, level=level, after=after)

    async def refresh(self) -> ExecutionInfo:
        """Asks the database, and returns and keeps what is known now. Raises ExecutionNotFound."""
        self.info = (await self._client.get(self.id)).info
        self.exists = True
        assert self.info is not None, "get() fills in what is known"
        return self.info

    def _known(self) -> ExecutionInfo:
        if self.info is None:
            raise RhythmError("nothing is known of this execution yet: await execution.refresh() first")
        return self.info

    @property
    def status(self) -> str:
        """The status when it was last asked for."""
        return self._known().status

    @property
    def name(self) -> str:
        return self._known().name

    @property
    def inputs(self) -> Any:
        """The inputs, JSON-shaped."""
        return payloads.decode(self._known().inputs)

    @property
    def output(self) -> Any:
        """The output, JSON-shaped; None unless completed."""
        output = self._known().output
        return None if output is None else payloads.decode(output)

    @property
    def progress(self) -> Any:
        """What a task has said last of how far it is, JSON-shaped; None: nothing."""
        progress = self._known().progress
        return None if progress is None else payloads.decode(progress)

    @property
    def error(self) -> dict[str, Any] | None:
        """The stored error ({"name", "message", …}); None unless failed or cancelled."""
        error = self._known().error
        return None if error is None else cast("dict[str, Any]", payloads.decode(error))


class Client:
    """Starts, asks, waits, signals, publishes. Open it with ``async with rhythm.connect() as client``."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._store: Store | None = None
        self._waits: OutcomeWaits | None = None
        self._queued: list[tuple[NewExecution, asyncio.Future[StartResult]]] = []
        self._flushes: set[asyncio.Task[None]] = set()

    async def open(self) -> Client:
        """Connects. Raises NotConfigured or DatabaseUnavailable."""
        if self._store is None:
            url = await asyncio.to_thread(resolve_database_url, self.config)
            self._store = await Store.connect(
                url,
                pool_min=1,
                pool_max=FLUSHES_IN_FLIGHT + 3,
                pooler=self.config.pooler,
                application_name="rhythm client",
            )
            self._waits = OutcomeWaits(self._store)
        return self

    async def close(self) -> None:
        """Sends what is under way and disconnects. Waits that are still under way end with an error."""
        while self._flushes:
            await asyncio.wait(self._flushes)
        if self._waits is not None:
            await self._waits.close()
            self._waits = None
        if self._store is not None:
            await self._store.close()
            self._store = None

    async def __aenter__(self) -> Client:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, Client]:
        return self.open().__await__()

    @property
    def store(self) -> Store:
        """The store this client is connected to. Raises RhythmError when it is not open."""
        if self._store is None:
            raise RhythmError("this client is not open: use `async with rhythm.connect() as client`")
        return self._store

    # --- starting ---------------------------------------------------------------------------------

    @overload
    async def start(
        self,
        name: Task[P, Coroutine[Any, Any, R]],
        inputs: Mapping[str, Any] | None = None,
        *,
        connection: Any = None,
        **options: Unpack[StartOptions],
    ) -> Execution[R]: ...
    @overload
    async def start(
        self,
        name: Task[P, R],
        inputs: Mapping[str, Any] | None = None,
        *,
        connection: Any = None,
        **options: Unpack[StartOptions],
    ) -> Execution[R]: ...
    @overload
    async def start(
        self,
        name: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        connection: Any = None,
        **options: Unpack[StartOptions],
    ) -> Execution[Any]: ...

    async def start(
        self,
        name: str | Task[..., Any],
        inputs: Mapping[str, Any] | None = None,
        *,
        connection: Any = None,
        **options: Unpack[StartOptions],
    ) -> Execution[Any]:
        """Starts a workflow or a task, durably: when this returns, it will run.

        ``name`` is a workflow's or task's name, or a decorated task function. Options: the fields of ``StartOptions``;
        what is not given comes from the registration. With ``key`` the start happens once per
        name and key: a second one with equal inputs answers with the first execution, one with other inputs is
        refused. With ``connection`` (asyncpg, psycopg 3 or SQLAlchemy) the row is written in the caller's own
        transaction: it exists once that is committed, and never if it is rolled back. With ``signal`` (and
        ``signal_payload``) that signal is sent in the same transaction: to the execution that runs under the key, or,
        when there is none or it has finished, to the one started now.
        Raises InvalidInput, PayloadTooLarge, StartRefused, SignalRefused, DatabaseUnavailable.
        """
        record = new_execution(Start(name, inputs, **options), bytes_max=self.config.payload_bytes_max)
        if connection is not None:
            (result,) = await callers.start(connection, [record])
        else:
            result = await self._start_coalesced(record)
        check_not_refused(record, result)
        return Execution(self, result.id, exists=True, task=name if isinstance(name, Task) else None)

    async def start_many(self, starts: Iterable[Start], *, connection: Any = None) -> list[uuid.UUID]:
        """Starts all of them, START_COUNT_MAX in each round trip, and returns the ids in order.

        Raises what ``start`` raises; starts of earlier round trips stand. Repeating the same list is harmless where
        the entries carry ``key`` or ``id``. With ``connection`` all of it happens in the caller's own transaction.
        """
        portions = new_executions(starts, bytes_max=self.config.payload_bytes_max)
        if connection is not None:
            return [id_ for records in portions for id_ in started(records, await callers.start(connection, records))]
        ids: list[uuid.UUID] = []
        before: list[NewExecution] = []
        under_way: asyncio.Task[list[StartResult]] | None = None
        try:
            for records in portions:
                call = self.store.prepare_start(records)  # while the portion before this one is under way
                if under_way is not None:
                    ids += started(before, await under_way)
                before, under_way = records, asyncio.create_task(self._repeat(call), name="rhythm-start-many")
                await asyncio.sleep(0)  # it is sent now
            if under_way is not None:
                ids += started(before, await under_way)
        except BaseException:
            if under_way is not None:
                under_way.cancel()
            raise
        return ids

    async def _start_coalesced(self, record: NewExecution) -> StartResult:
        future: asyncio.Future[StartResult] = asyncio.get_running_loop().create_future()
        self._queued.append((record, future))
        if len(self._flushes) < FLUSHES_IN_FLIGHT:
            flush = asyncio.create_task(self._flush_starts(), name="rhythm-start-flush")
            self._flushes.add(flush)
            flush.add_done_callback(self._flushes.discard)
        return await future

    async def _flush_starts(self) -> None:
        while self._queued:
            batch, self._queued = self._queued[:START_COUNT_MAX], self._queued[START_COUNT_MAX:]
            await self._flush(batch)

    async def _flush(self, batch: list[tuple[NewExecution, asyncio.Future[StartResult]]]) -> None:
        records = [record for record, _ in batch]
        try:
            results = await self._repeat(lambda: self.store.start(records))
        except asyncio.CancelledError:
            _refuse(batch, DatabaseUnavailable("the client was closed while this start was under way"))
            raise
        except DatabaseUnavailable as error:
            _refuse(batch, error)
        except RhythmError as error:
            if len(batch) == 1:
                _refuse(batch, error)
            else:  # one refused start undoes the whole call: the halves go again, so that only the culprit fails
                middle = len(batch) // 2
                await self._flush(batch[:middle])
                await self._flush(batch[middle:])
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _repeat(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Makes an idempotent call, again while the connection fails under it, with growing pauses."""
        for attempt in range(REPEATS_MAX):
            try:
                return await call()
            except DatabaseUnavailable:
                if attempt == REPEATS_MAX - 1:
                    raise
                await asyncio.sleep(0.05 * 2**attempt)
        raise AssertionError("the loop returns or raises")

    # --- asking -----------------------------------------------------------------------------------

    def execution(self, execution_id: uuid.UUID | str) -> Execution[Any]:
        """A handle for an id, without asking the database. Raises InvalidInput when it is not an id."""
        return Execution(self, parse_id(execution_id))

    async def get(self, execution_id: uuid.UUID | str) -> Execution[Any]:
        """The execution, with what is known of it. Raises ExecutionNotFound."""
        wanted = parse_id(execution_id)
        info = await self.store.get(wanted)
        if info is None:
            raise ExecutionNotFound(f"no execution with the id {wanted}")
        return Execution(self, wanted, info)

    async def list(
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
    ) -> builtins.list[Execution[Any]]:
        """Executions that fit all that is given, newest first.

        ``tags`` fits executions that carry at least these; ``before`` is the id after which the next page goes on.
        """
        if not 1 <= limit <= LIST_LIMIT_MAX:
            raise InvalidInput(f"limit {limit!r} is not between 1 and {LIST_LIMIT_MAX:,}")
        statuses = None if status is None else [status] if isinstance(status, str) else [*status]
        found = await self.store.list(
            name=name,
            status=statuses,
            kind=kind,
            queue=queue,
            key=key,
            tags=None if tags is None else dict(tags),
            parent_id=None if parent is None else parse_id(parent),
            limit=limit,
            before=None if before is None else parse_id(before),
        )
        return [Execution(self, info.id, info) for info in found]

    async def wait(self, execution_id: Execution[Any] | uuid.UUID | str, timeout: Duration | None = None) -> Any:
        """The output of an execution, once it has finished (see ``Execution.result``)."""
        execution = execution_id if isinstance(execution_id, Execution) else Execution(self, parse_id(execution_id))
        wanted = execution.id
        seconds = None if timeout is None else parse_seconds(timeout)
        if self._waits is None:
            raise RhythmError("this client is not open: use `async with rhythm.connect() as client`")
        try:
            async with asyncio.timeout(seconds):
                if not execution.exists:
                    await execution.refresh()
                outcome = await self._waits.outcome(wanted)
        except TimeoutError:
            last = await self._last_look(wanted)
            if last is None:
                raise WaitTimeout(f"execution {wanted} has not finished within {seconds:g} s; it carries on") from None
            outcome = last
        return _result(outcome)

    async def _last_look(self, execution_id: uuid.UUID) -> OutcomeInfo | None:
        """The outcome, if it is there: a timeout shorter than one question must not hide it."""
        try:
            async with asyncio.timeout(LAST_LOOK_SECONDS):
                found = await self.store.outcomes([execution_id])
        except (TimeoutError, DatabaseUnavailable):
            return None
        if execution_id not in found:
            raise ExecutionNotFound(f"no execution has the id {execution_id}")
        return found[execution_id]

    async def logs(
        self, execution_id: uuid.UUID | str, *, level: str = "debug", after: int = 0, newest: int | None = None
    ) -> builtins.list[LogLine]:
        """What a workflow has written with ``console``, and warnings of the engine, oldest first.

        ``level``: "debug", "info", "warn" or "error", and what is above it. ``after``: only lines with a higher number,
        to go on where an earlier call ended. ``newest``: at most so many, the last ones. A log keeps its newest 1,000
        lines and 1 MiB, as long as its execution is kept; a first line says how many older ones were dropped. What
        tasks log is in the log of their worker.
        Raises ExecutionNotFound, InvalidInput.
        """
        if level not in LOG_LEVELS:
            raise InvalidInput(f"level {level!r:.100}: the levels are {', '.join(LOG_LEVELS)}")
        if after < 0 or (newest is not None and newest < 1):
            raise InvalidInput(f"after is {after}, newest {newest}: numbers of lines begin at 1")
        return [*await self.store.logs(parse_id(execution_id), after=after, level=level, newest=newest)]

    # --- telling ----------------------------------------------------------------------------------

    async def signal(
        self,
        execution_id: uuid.UUID | str,
        name: str,
        payload: Any = None,
        *,
        send_id: uuid.UUID | None = None,
        connection: Any = None,
    ) -> None:
        """Sends a signal to a workflow: kept until it is read, delivered once, in the order of sending.

        ``send_id`` makes repeating harmless when the caller repeats (each call here already repeats safely).
        With ``connection`` the signal is sent by the commit of the caller's own transaction; until then the workflow
        cannot take a step, so send it last.
        Raises ExecutionNotFound, ExecutionFinished, SignalRefused, InvalidInput, PayloadTooLarge.
        """
        message = new_signal(execution_id, name, payload, send_id, bytes_max=self.config.payload_bytes_max)
        if connection is not None:
            await callers.signal(connection, *message)
        else:
            await self._repeat(lambda: self.store.signal(*message))

    async def cancel(self, execution_id: uuid.UUID | str, *, force: bool = False) -> None:
        """Asks for an execution to be cancelled; asking twice is asking once.

        What has not begun ends here. A workflow's timers, signal waits and unclaimed tasks are rejected with
        CancelledError, its running tasks are asked to stop, and its catch and finally blocks run. A running task is
        interrupted with its worker's next heartbeat; if it completes or fails nevertheless, that counts.

        ``force``: ends it as cancelled at once, wherever it stands, without running any more of it: no catch, no
        finally, nothing is undone. What its worker still reports is refused. The tasks and children that the workflow
        waits for are asked to cancel; those it does not wait for, or would let run on a cancel, carry on.
        Raises ExecutionNotFound, ExecutionFinished.
        """
        target = parse_id(execution_id)
        call = self.store.terminate if force else self.store.cancel
        calls = 0

        async def cancel() -> None:
            nonlocal calls
            calls += 1
            try:
                await call(target)
            except ExecutionFinished:
                if calls == 1:  # otherwise the call whose answer was lost may have ended it
                    raise

        await self._repeat(cancel)

    async def retry(self, execution_id: uuid.UUID | str, *, from_start: bool = False) -> Execution[Any]:
        """Tries again what has failed, or was cancelled; returns the execution to wait for.

        A task gets a new attempt, with its retries renewed. A workflow that ended by a limit, an unsupported construct,
        or because its workers were lost resumes at its last await, with all that has happened since. One that failed by
        an error of its own has nothing to resume. ``from_start``: starts a new execution instead, with the same name,
        inputs and options (and idempotency key, which passes to it); a workflow runs its current definition.
        Raises ExecutionNotFound, and RetryRefused for what has not failed, or whose parent has taken its outcome in.
        """
        target = parse_id(execution_id)
        fresh = new_id()
        if from_start:
            await self._repeat(lambda: self.store.start_again(target, fresh))
            return Execution(self, fresh, exists=True)
        await self._repeat(lambda: self.store.retry(target, fresh))
        return Execution(self, target, exists=True)

    async def publish(self, *paths: str | Path) -> builtins.list[PublishedWorkflow]:
        """Checks and stores the workflows in these files and folders; new executions run them from now on.

        Nothing is stored if one of them does not compile. Calls that do not fit what workers have registered about a
        task are among the ``warnings``; those that cannot be compared with it are ``unchecked``.
        Raises CompileError with all diagnostics, and InvalidInput when a path holds no workflow.
        """
        definitions = await asyncio.to_thread(read_definitions, paths)
        return await publish_definitions(self.store, definitions)

    async def migrate(self) -> builtins.list[str]:
        """Brings the schema up to date; returns the names of the migrations that were applied."""
        return await self.store.migrate()


def connect(url: str | None = None, **options: Any) -> Client:
    """An asynchronous client: ``async with rhythm.connect() as client`` (or ``client = await rhythm.connect()``).

    Without ``url`` the database is the configured one, or the embedded server inside a project. ``options`` are
    configuration keys (``pooler``, ``payload_bytes_max``, …).
    """
    if url is not None:
        options["database_url"] = url
    return Client(load(options, flags=False))


def parse_id(value: uuid.UUID | str) -> uuid.UUID:
    """The id. Raises InvalidInput when the text is not one."""
    if isinstance(value, uuid.UUID):
        return value
    try:
        return uuid.UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise InvalidInput(f"{value!r:.100} is not an execution id") from None


def new_signal(
    execution_id: uuid.UUID | str, name: str, payload: Any, send_id: uuid.UUID | None, *, bytes_max: int
) -> tuple[uuid.UUID, str, bytes, uuid.UUID]:
    """What the store takes to send a signal. Raises InvalidInput, PayloadTooLarge."""
    target = parse_id(execution_id)
    check_name(name, "name of a signal")
    data = payloads.encode(payload, f"payload of signal {name!r}", bytes_max=bytes_max)
    return target, name, data, send_id or new_id()


def _refuse(batch: list[tuple[NewExecution, asyncio.Future[StartResult]]], error: RhythmError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _result(outcome: OutcomeInfo) -> Any:
    if outcome.status == "completed":
        return payloads.decode(outcome.payload)
    error = payloads.decode(outcome.payload) if outcome.payload else {}
    if outcome.status == "cancelled":
        raise ExecutionCancelled(f"execution {outcome.id} was cancelled")
    raise ExecutionFailed(error, execution_id=str(outcome.id))
