"""Executions: start, wait, list, signal, cancel, retry. What `show` prints is in `show.py`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rhythm.cli import options, output
from rhythm.errors import InvalidInput, RhythmError

if TYPE_CHECKING:
    from rhythm.client import Client, Execution
    from rhythm.model import ExecutionInfo

LISTED = 50  #: executions that `list` shows unless told otherwise
NO_WORKER_AFTER_SECONDS = 0.5  #: waiting this long is reason to look whether anybody could run it

Id = Annotated[str, typer.Argument(metavar="ID", help="The execution's id.", show_default=False)]


def start(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A workflow's or a task's name.", show_default=False)],
    inputs: options.Inputs = None,
    key: Annotated[str | None, typer.Option(metavar="K", help="Idempotency key: one start per name and key.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", "-q", metavar="Q", help="Queue to run on.")] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", help="-100 to 100, higher first.")] = None,
    delay: Annotated[
        str | None, typer.Option(metavar="DURATION", help='Not before this has passed, like "5m".')
    ] = None,
    limit_key: Annotated[
        str | None, typer.Option("--limit-key", metavar="K", help="What it counts for in the queue's limits of keys.")
    ] = None,
    wait_for_it: Annotated[bool, typer.Option("--wait", help="Wait for the outcome and print the output.")] = False,
    timeout: options.Timeout = None,
    database_url: options.DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Starts an execution and prints its id.

    With --wait prints its output instead, as JSON.

    Example: rhythm start processOrder --inputs '{"orderId": "o-1", "amount": 25}' --wait --timeout 1m
    """
    from rhythm.cli.connection import connected, run
    from rhythm.config import load

    given = options.read_inputs(inputs)
    if timeout is not None and not wait_for_it:
        raise InvalidInput("--timeout limits the wait: use it together with --wait")
    seconds = _seconds(timeout)
    config = load({"database_url": database_url})

    async def work() -> None:
        async with connected(config) as client:
            execution = await client.start(
                name, given, key=key, queue=queue, priority=priority, delay=delay, limit_key=limit_key
            )
            if wait_for_it:
                output.message(f"started {execution.id}")
                _print_output(await _result(client, execution, seconds), as_json)
            elif as_json:
                output.json_line({"id": str(execution.id)})
            else:
                output.line(str(execution.id))

    run(work())


def wait(
    execution_id: Id,
    timeout: options.Timeout = None,
    database_url: options.DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Waits for an execution and prints its output.

    The output is JSON. Exit code 1 when it failed or was cancelled, 3 when the timeout came first.

    Example: rhythm wait 0192f0c1-7e3a-7c55-9a55-2f8c54e0a1b2 --timeout 30s
    """
    from rhythm.cli.connection import connected, run
    from rhythm.config import load

    seconds = _seconds(timeout)
    config = load({"database_url": database_url})

    async def work() -> None:
        async with connected(config) as client:
            execution = client.execution(execution_id)
            await execution.refresh()
            _print_output(await _result(client, execution, seconds), as_json)

    run(work())


def list_executions(
    status: Annotated[str | None, typer.Option(metavar="STATUS", help="Only these; several with commas.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this workflow or task.")] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help='"workflow" or "task".')] = None,
    queue: Annotated[str | None, typer.Option("--queue", "-q", metavar="Q", help="Only on this queue.")] = None,
    key: Annotated[str | None, typer.Option(metavar="K", help="Only with this idempotency key.")] = None,
    parent: Annotated[str | None, typer.Option(metavar="ID", help="Only children of this execution.")] = None,
    before: Annotated[str | None, typer.Option(metavar="ID", help="The next page: those before this one.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many.")] = LISTED,
    database_url: options.DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Lists executions, newest first.

    Example: rhythm list --status suspended,failed --name processOrder
    """
    from rhythm.cli.connection import connected, run
    from rhythm.config import load
    from rhythm.model import KINDS, STATUSES

    statuses = None if status is None else [part.strip() for part in status.split(",")]
    for part in statuses or ():
        if part not in STATUSES:
            raise InvalidInput(f"--status {part}: the statuses are {', '.join(STATUSES)}")
    if kind is not None and kind not in KINDS:
        raise InvalidInput(f"--kind {kind}: the kinds are {', '.join(KINDS)}")
    config = load({"database_url": database_url})

    async def work() -> list[ExecutionInfo]:
        async with connected(config) as client:
            found = await client.list(
                status=statuses, name=name, kind=kind, queue=queue, key=key, parent=parent, before=before, limit=limit
            )
            return [execution.info for execution in found if execution.info is not None]

    infos = run(work())
    if as_json:
        for info in infos:
            output.json_line(execution_json(info))
        return
    header = ("ID", "NAME", "STATUS", "QUEUE", "ATTEMPTS", "CREATED", "AGE")
    output.table(header, [_row(info) for info in infos])
    if len(infos) == limit:
        output.message(f"{limit} shown; for more: --limit, or --before {infos[-1].id}")


def signal(
    execution_id: Id,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal's name.", show_default=False)],
    payload: Annotated[
        str, typer.Argument(metavar="[JSON|@FILE]", help="Its payload. Default: null.", show_default=False)
    ] = "null",
    database_url: options.DatabaseUrl = None,
) -> None:
    """Sends a signal to a workflow: kept until the workflow reads it.

    Example: rhythm signal 0192f0c1-7e3a-7c55-9a55-2f8c54e0a1b2 approval '{"approved": true}'
    """
    from rhythm.cli.connection import connected, run
    from rhythm.config import load

    value = options.read_json(payload, "the payload")
    config = load({"database_url": database_url})

    async def work() -> None:
        async with connected(config) as client:
            await client.signal(execution_id, name, value)

    run(work())
    output.message(f"sent {name}")


def cancel(
    execution_id: Id,
    force: Annotated[
        bool, typer.Option("--force", help="End it at once: nothing more of it runs, nothing is undone.")
    ] = False,
    database_url: options.DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Asks for an execution to be cancelled. A workflow's catch and finally blocks run.

    What has not begun is cancelled at once; what runs ends as it really ends. With --json prints its id and status.
    Exit code 1 when it has finished already.

    Example: rhythm cancel 0192f0c1-7e3a-7c55-9a55-2f8c54e0a1b2
    """
    from rhythm.cli.connection import connected, run
    from rhythm.config import load

    config = load({"database_url": database_url})

    async def work() -> str:
        async with connected(config) as client:
            await client.cancel(execution_id, force=force)
            return (await client.get(execution_id)).status

    status = run(work())
    if as_json:
        output.json_line({"id": execution_id, "status": status})
    else:
        output.message("cancelled" if status == "cancelled" else f"asked to cancel; it is {status}")


def retry(
    execution_id: Id,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Start a new execution with the same inputs, and print its id.")
    ] = False,
    database_url: options.DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Tries a failed or cancelled execution again.

    A task gets a new attempt. A workflow resumes at its last await if it ended by a limit, an unsupported construct, or
    because its workers were lost; one that failed by an error of its own can only be run from its start.
    Exit code 1 when there is nothing to retry.

    Example: rhythm retry 0192f0c1-7e3a-7c55-9a55-2f8c54e0a1b2 --from-start
    """
    from rhythm.cli.connection import connected, run
    from rhythm.config import load

    config = load({"database_url": database_url})

    async def work() -> str:
        async with connected(config) as client:
            return str((await client.retry(execution_id, from_start=from_start)).id)

    retried = run(work())
    if as_json:
        output.json_line({"id": retried})
    elif from_start:
        output.line(retried)
    else:
        output.message("it is claimable again")


def execution_json(info: ExecutionInfo) -> dict[str, Any]:
    """An execution as the object that `--json` prints."""
    return {
        "id": str(info.id),
        "kind": info.kind,
        "name": info.name,
        "status": info.status,
        "reason": info.reason,
        "queue": info.queue,
        "priority": info.priority,
        "key": info.key,
        "limit_key": info.limit_key,
        "tags": info.tags,
        "inputs": _decoded(info.inputs),
        "output": _decoded(info.output),
        "error": _decoded(info.error),
        "last_failure": _decoded(info.last_failure),
        "progress": _decoded(info.progress),
        "attempts": info.attempts,
        "lost": info.lost,
        "parent_id": None if info.parent_id is None else str(info.parent_id),
        "root_id": str(info.root_id),
        "definition": info.definition_hash,
        "created_at": info.created_at,
        "started_at": info.started_at,
        "finished_at": info.finished_at,
        "available_at": info.available_at,
        "last_failure_at": info.last_failure_at,
        "progress_at": info.progress_at,
    }


def _decoded(data: bytes | None) -> Any:
    from rhythm import payloads

    return None if data is None else payloads.decode(data)


def _row(info: ExecutionInfo) -> tuple[object, ...]:
    status = f"{info.status} ({info.reason})" if info.reason and info.reason != "ready" else info.status
    attempts = f"{info.attempts} ({info.lost} lost)" if info.lost else info.attempts
    return info.id, info.name, status, info.queue, attempts, output.moment(info.created_at), output.ago(info.created_at)


def _seconds(timeout: str | None) -> float | None:
    from rhythm.durations import parse_seconds

    return None if timeout is None else parse_seconds(timeout)


def _print_output(value: Any, as_json: bool) -> None:
    if as_json:
        output.json_line(value)
    else:
        output.value_line(value)


async def _result(client: Client, execution: Execution[Any], seconds: float | None) -> Any:
    """The output; meanwhile says so once when no live worker could run it."""
    watch = asyncio.create_task(_say_when_nobody_can_run(client, execution))
    try:
        return await execution.result(timeout=seconds)
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _say_when_nobody_can_run(client: Client, execution: Execution[Any]) -> None:
    await asyncio.sleep(NO_WORKER_AFTER_SECONDS)
    try:
        if await client.store.can_run(execution.id):
            return
        info = await execution.refresh()
    except RhythmError:
        return  # the wait itself will say what is wrong
    unknown = ""
    if info.reason == "unknown task":
        unknown = " (no workflow of that name is published, and no worker has had such a task: is the name right?)"
    output.message(
        f"No live worker can run {info.name!r} on the queue {info.queue!r}{unknown}; "
        f"it stays {info.status} until one does. "
        "Start one with `rhythm worker`, naming the module of its tasks with --app and its queue with -q. Waiting."
    )
