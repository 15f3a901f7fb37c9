"""`rhythm show`: one execution, and where a suspended workflow stands: file, line, what it awaits, its variables."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rhythm.cli import options, output
from rhythm.cli.executions import Id, execution_json
from rhythm.cli.lines import line_json, line_text
from rhythm.errors import SnapshotError

if TYPE_CHECKING:
    from rhythm.client import Client
    from rhythm.config import Config
    from rhythm.model import ExecutionInfo, GateInfo, LogLine

CHILDREN_MAX = 200  #: children of a workflow that are looked up
LOG_LINES_SHOWN = 5  #: the newest of a workflow's log
HASH_SHOWN = 12  #: characters of a definition's hash shown to people


@dataclass(frozen=True, slots=True)
class Place:
    """One async function parked at an await, innermost first."""

    function: str
    line: int
    column: int
    source_line: str
    awaiting: list[dict[str, Any]]  #: operations: {"kind", "name", "since", …}
    variables: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a suspended workflow stands."""

    file: str
    source: str
    since: Any
    places: list[Place]
    awaiting: list[dict[str, Any]]  #: every operation outstanding, from the database
    children: dict[int, ExecutionInfo]  #: the children it waits for, by operation; at most CHILDREN_MAX


def show(
    execution_id: Id,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Print the whole stored state of a workflow as one JSON value instead.")
    ] = False,
    database_url: options.DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Shows an execution and where it stands.

    Of a suspended workflow: file, line, what it awaits, and its variables; of any workflow the end of its log.
    With --snapshot exit code 1 when nothing is stored: it has not begun, or has finished.

    Example: rhythm show 0192f0c1-7e3a-7c55-9a55-2f8c54e0a1b2
    """
    from rhythm.cli.connection import connected, run
    from rhythm.config import load

    config = load({"database_url": database_url})
    if snapshot:
        state = run(_read_snapshot(config, execution_id))
        if isinstance(state, str):
            output.message(f"execution {execution_id} has no snapshot: {state}")
            raise typer.Exit(output.FAILED)
        if as_json:
            output.json_line(state)
        else:
            output.json_lines(state)
        return

    async def work() -> tuple[ExecutionInfo, Standing | None, list[LogLine], GateInfo | None]:
        async with connected(config) as client:
            info = await client.execution(execution_id).refresh()
            log = await client.logs(info.id, newest=LOG_LINES_SHOWN) if info.kind == "workflow" else []
            gate = await client.store.gate(info.id) if info.status == "pending" else None
            try:
                return info, await _standing(client, info), log, gate
            except SnapshotError as error:
                output.message(f"Where it stands cannot be shown: {error}")
                return info, None, log, gate

    info, standing, log, gate = run(work())
    if as_json:
        told = {
            "standing": None if standing is None else _standing_json(standing),
            "log": [line_json(li) for li in log],
            "gate": None if gate is None else dataclasses.asdict(gate),
        }
        output.json_line(execution_json(info) | told)
        return
    _show_fields(info, None if gate is None else gate_text(gate))
    if standing is not None:
        _show_standing(standing)
    if log:
        output.line(f"\nlog{' (its end)' if log[0].number > 1 else ''}:")
        for line in log:
            output.line("  " + line_text(line).replace("\n", "\n  "))


async def _read_snapshot(config: Config, execution_id: str) -> dict[str, Any] | str:
    """The state of a workflow for `--snapshot`, or why there is none. Raises SnapshotError when it cannot be read."""
    from rhythm.cli.connection import connected

    async with connected(config) as client:
        info = await client.execution(execution_id).refresh()
        stored = await client.store.snapshot(info.id)
        definition = None if stored is None else await client.store.definition(stored.definition_id)
    if stored is None or definition is None:
        return _why_no_snapshot(info)
    from rhythm.engine import load_program
    from rhythm.language.snapshot_json import to_json_value

    return to_json_value(load_program(definition.ir, definition.hash), stored.snapshot)


def _why_no_snapshot(info: ExecutionInfo) -> str:
    from rhythm.model import FINISHED

    if info.kind == "task":
        return "it is a task"
    if info.status in FINISHED:
        return f"it is {info.status}, and only what ended by a limit or by lost workers keeps one"
    return "it has not come to an await yet"


async def _standing(client: Client, info: ExecutionInfo) -> Standing | None:
    """What the last snapshot says; None when there is none: tasks, workflows not yet begun or finished."""
    snapshot = await client.store.snapshot(info.id) if info.kind == "workflow" else None
    definition = None if snapshot is None else await client.store.definition(snapshot.definition_id)
    if snapshot is None or definition is None:
        return None
    from rhythm import payloads
    from rhythm.engine import load_program
    from rhythm.inspection import inspect

    lines = definition.source.split("\n")
    places = [
        Place(
            function=view.function,
            line=view.line,
            column=view.column,
            source_line=lines[view.line - 1].strip() if 1 <= view.line <= len(lines) else "",
            awaiting=_as_list(view.awaiting),
            variables=dict(view.variables),
        )
        for view in inspect(load_program(definition.ir, definition.hash), snapshot.snapshot)
    ]
    awaiting = _as_list(payloads.decode(snapshot.standing.awaiting))
    waited_for = [entry["operation"] for entry in awaiting if entry.get("kind") in ("task", "child")]
    found = await client.store.children(info.id, waited_for[:CHILDREN_MAX])
    children = {child.operation: child for child in found if child.operation is not None}
    return Standing(f"{definition.name}.flow", definition.source, snapshot.suspended_since, places, awaiting, children)


def _as_list(awaiting: Any) -> list[dict[str, Any]]:
    if awaiting is None:
        return []
    entries = awaiting if isinstance(awaiting, list | tuple) else [awaiting]
    entries = [entry for entry in entries if not (isinstance(entry, dict) and entry.get("kind") == "more")]
    return [entry if isinstance(entry, dict) else {"kind": str(entry), "name": None} for entry in entries]


def _standing_json(standing: Standing) -> dict[str, Any]:
    return {
        "file": standing.file,
        "since": standing.since,
        "awaiting": [entry | _child_json(standing, entry) for entry in standing.awaiting],
        "frames": [
            {
                "function": place.function,
                "line": place.line,
                "column": place.column,
                "source": place.source_line,
                "awaiting": place.awaiting,
                "variables": place.variables,
            }
            for place in standing.places
        ],
    }


def gate_text(gate: GateInfo) -> str:
    """What an execution waits for at the gate of its queue: "queue mail runs 5 of 5"."""
    from rhythm.durations import format_rate

    found = []
    if gate.paused:
        found.append(f"queue {gate.queue} is paused")
    if gate.concurrency is not None and gate.holding >= gate.concurrency:
        found.append(f"queue {gate.queue} runs {gate.holding} of {gate.concurrency}")
    if gate.key_concurrency is not None and gate.key_holding >= gate.key_concurrency:
        found.append(f"limit key {gate.limit_key} runs {gate.key_holding} of {gate.key_concurrency}")
    for whose, count, seconds, at in (
        (f"queue {gate.queue}", gate.rate, gate.rate_seconds, gate.next_at),
        (f"limit key {gate.limit_key}", gate.key_rate, gate.key_rate_seconds, gate.key_next_at),
    ):
        if at is not None and count is not None and seconds is not None:
            found.append(f"{whose} starts {format_rate(count, seconds)}, the next one at {output.moment(at)}")
    return "; ".join(found) or "there is room for it as soon as it is its turn and a worker takes it"


def _show_fields(info: ExecutionInfo, gate: str | None) -> None:
    fields = execution_json(info)
    rows: list[tuple[str, object]] = [("id", info.id), (info.kind, info.name)]
    if info.definition_hash:
        rows.append(("definition", info.definition_hash[:HASH_SHOWN]))
    reason = info.reason if gate is None else f"{info.reason}: {gate}"
    rows.append(("status", f"{info.status} ({reason})" if reason else info.status))
    rows.append(("queue", info.queue if not info.priority else f"{info.queue}, priority {info.priority}"))
    named = ("key", "limit_key", "parent_id")
    rows += [(name.removesuffix("_id").replace("_", " "), fields[name]) for name in named if fields[name] is not None]
    if info.tags:
        rows.append(("tags", _compact(info.tags)))
    rows.append(("attempts", f"{info.attempts}, {info.lost} lost" if info.lost else info.attempts))
    times = ("created_at", "available_at", "started_at", "finished_at")
    rows += [(name.removesuffix("_at"), output.moment(fields[name])) for name in times if fields[name] is not None]
    rows.append(("inputs", _compact(fields["inputs"])))
    if info.output is not None:
        rows.append(("output", _compact(fields["output"])))
    if info.progress is not None:
        rows.append(("progress", f"{_compact(fields['progress'])} ({output.ago(info.progress_at)} ago)"))
    if info.last_failure is not None:
        rows.append(("last failure", f"{_error_text(fields['last_failure'])} ({output.ago(info.last_failure_at)} ago)"))
    if isinstance(fields["error"], dict):
        rows.append(("error", _error_text(fields["error"])))
        if fields["error"].get("task") and info.kind == "workflow":
            rows.append(("error of", f"task {fields['error']['task']}, {fields['error'].get('executionId')}"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        output.line(f"{name.ljust(width)}  {output.visible(str(value))}")
    error = fields["error"] if isinstance(fields["error"], dict) else {}
    details = error.get("stack") or error.get("traceback")
    if info.last_failure is not None and info.status == "pending":
        details = fields["last_failure"].get("traceback")
    if details and str(details).strip() != _error_text(error):
        output.line("\n" + output.visible(str(details).rstrip(), lines=True))


def _error_text(error: dict[str, Any]) -> str:
    if "thrown" in error:
        return f"threw {_compact(error['thrown'])}"
    return f"{error.get('name', 'Error')}: {error.get('message', '')}"


def _show_standing(standing: Standing) -> None:
    shown = {(entry.get("kind"), entry.get("name")) for place in standing.places for entry in place.awaiting}
    for place in standing.places:
        output.line(f"\nat {standing.file}:{place.line}:{place.column} in {output.visible(place.function)}")
        excerpt = output.source_excerpt(standing.source, place.line, place.column)
        if excerpt:
            output.line(excerpt)
        for entry in place.awaiting:
            output.line(f"  awaits {_operation(entry, standing)}")
        _show_variables(place.variables)
    rest = [entry for entry in standing.awaiting if (entry.get("kind"), entry.get("name")) not in shown]
    if rest:
        output.line("\nunder way besides:" if shown else "\nawaits:")
        for entry in rest:
            output.line(f"  {_operation(entry, standing)}")


def _child_json(standing: Standing, entry: dict[str, Any]) -> dict[str, Any]:
    child = standing.children.get(entry.get("operation", 0))
    if child is None:
        return {}
    names = ("status", "reason", "queue", "attempts", "available_at", "last_failure")
    fields = execution_json(child)
    return {"execution_id": fields["id"], **{name: fields[name] for name in names}}


def _child_text(child: ExecutionInfo) -> str:
    """ "pending (retry) after 2 attempts, until …: ValueError: no", as far as it says more than "it runs"."""
    text = f"{child.status} ({child.reason})" if child.reason else child.status
    if child.attempts and child.status == "pending":
        text += f" after {child.attempts} attempt{'s' if child.attempts > 1 else ''}"
    if child.available_at is not None:
        text += f", until {output.moment(child.available_at)}"
    if child.last_failure is not None:
        text += f"; last failure: {_error_text(execution_json(child)['last_failure'])}"
    return f"{text}; execution {child.id}"


def _operation(entry: dict[str, Any], standing: Standing) -> str:
    """ "task chargeCard since 12:30:01 (3m 10s), running; execution 0192…"."""
    child = standing.children.get(entry.get("operation", 0))
    told = "" if child is None else f", {output.visible(_child_text(child))}"
    same = [one for one in standing.awaiting if one.get("operation") == entry.get("operation")]
    since = entry.get("since") or (same[0].get("since") if same and entry.get("operation") is not None else None)
    text = " ".join(output.short(str(part)) for part in (entry.get("kind"), entry.get("name")) if part)
    moment = _moment(since)
    return (text if moment is None else f"{text} since {output.moment(moment)} ({output.ago(moment)})") + told


def _moment(since: Any) -> Any:
    """A time from the standing: milliseconds since the epoch, or ISO text."""
    from datetime import UTC, datetime

    try:
        if isinstance(since, int | float):
            return datetime.fromtimestamp(since / 1000, UTC)
        return datetime.fromisoformat(since) if isinstance(since, str) else None
    except (ValueError, OverflowError, OSError):
        return None


def _show_variables(variables: dict[str, Any]) -> None:
    width = max((len(name) for name in variables), default=0)
    for name, value in variables.items():
        output.line(f"  {output.visible(name).ljust(width)} = {output.short(_compact(value))}")


def _compact(value: Any) -> str:
    return output.visible(json.dumps(value, ensure_ascii=False, default=str))
