"""Workflow files: check, publish, and eval, which runs one in memory."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rhythm.cli import options, output
from rhythm.errors import CompileError, InvalidInput

if TYPE_CHECKING:
    from rhythm.client.publishing import PublishedWorkflow
    from rhythm.tasks import Task
    from rhythm.testing import Outcome

Paths = Annotated[
    list[str], typer.Argument(metavar="PATH...", help=".flow files, or folders of them.", show_default=False)
]


class Snapshot(StrEnum):
    """When `eval` writes the workflow's state and reads it back."""

    never = "never"
    at_await = "await"


def check(paths: Paths, app: options.App = None, as_json: options.Json = False) -> None:
    """Checks workflow files and prints what is wrong.

    Exit code 1 if there is any error.

    Example: rhythm check workflows
    """
    files = _read(paths)
    options.import_apps(tuple(app or ()))
    from rhythm.engine import check_source

    failed = False
    for path, source in files.items():
        failed = output.show_diagnostics(check_source(source, path), {path: source}, as_json=as_json) or failed
    if app:
        output.message("Calls of tasks are not compared with their signatures in this release.")
    if failed:
        raise typer.Exit(output.FAILED)
    output.message(f"{len(files)} {'file' if len(files) == 1 else 'files'} checked, no errors.")


def publish(paths: Paths, database_url: options.DatabaseUrl = None, as_json: options.Json = False) -> None:
    """Checks workflows and stores their definitions.

    New executions run them from then on; those under way stay on their own definition.
    Nothing is stored when one of the files has an error.

    Example: rhythm publish workflows
    """
    from rhythm.cli.connection import connected, run
    from rhythm.config import load

    config = load({"database_url": database_url})

    async def work() -> Sequence[PublishedWorkflow]:
        async with connected(config) as client:
            return await client.publish(*paths)

    try:
        stored = run(work())
    except CompileError as error:
        if not as_json:
            raise
        output.show_diagnostics(error.diagnostics, {}, as_json=True)
        raise typer.Exit(output.FAILED) from None
    for published in stored:
        for warning in published.warnings:
            output.message(output.diagnostic_text(warning, None))
        if as_json:
            entry = {"name": published.name, "hash": published.hash, "changed": published.changed}
            output.json_line({**entry, "staying": published.staying})
        else:
            what = "published" if published.changed else "unchanged"
            if published.staying:
                what += f"; unfinished executions that stay on another definition: {published.staying}"
            output.line(f"{output.visible(published.name)}  {published.hash[:12]}  {what}")


def evaluate(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .flow file.", show_default=False)],
    inputs: options.Inputs = None,
    app: options.App = None,
    snapshot: Annotated[
        Snapshot, typer.Option(help='"await": write and read back the state at every suspension.')
    ] = Snapshot.never,
    as_json: options.Json = False,
) -> None:
    """Runs one workflow in memory, without a database.

    Time passes at once. Tasks come from the modules of --app, else of the project's configuration.
    Exit code 1 when the workflow ended in an error, 2 when it does not compile.

    Example: rhythm eval workflows/processOrder.flow --app tasks --inputs '{"orderId": "o-1", "amount": 25}'
    """
    given = options.read_inputs(inputs)
    if not Path(file).is_file():
        raise InvalidInput(f"no such file: {file}")
    ((path, source),) = _read([file]).items()
    from rhythm.config import load
    from rhythm.engine import check_source
    from rhythm.tasks import REGISTRY

    if output.show_diagnostics(_errors(check_source(source, path)), {path: source}, as_json=as_json):
        raise typer.Exit(output.USAGE)
    config = load({"app": app})
    options.import_apps(config.app, config.project)
    tasks = {name: _callable(task) for name, task in REGISTRY.as_dict().items()}
    outcome = _evaluate(Path(file).stem, source, given, tasks, snapshot)
    for level, text in outcome.logs:
        output.message(f"{level}: {text}")
    if outcome.error is None:
        value = outcome.result
        if as_json:
            output.json_line({"result": value})
        else:
            output.value_line(value)
        return
    error = outcome.error
    if as_json and error.has_thrown:
        output.json_line({"thrown": error.thrown})
    elif as_json:
        output.json_line({"error": {"name": error.name, "message": error.message}})
    elif error.has_thrown:
        output.message(f"threw {json.dumps(error.thrown)}")
    else:
        output.message(error.stack or f"{error.name}: {error.message}")
    raise typer.Exit(output.FAILED)


def _evaluate(name: str, source: str, inputs: Any, tasks: dict[str, Any], snapshot: Snapshot) -> Outcome:
    from rhythm.testing import evaluate as evaluate_in_memory

    return evaluate_in_memory(source, inputs=inputs, tasks=tasks, snapshot=snapshot.value, ctx={"name": name})


def _callable(task: Task[..., Any]) -> Callable[[Any], Awaitable[Any]]:
    """A task as evaluate() calls it: inputs matched and validated, the output encoded, as a worker would."""
    from rhythm import payloads
    from rhythm.tasks import TaskContext

    async def call(inputs: Any, /) -> Any:
        arguments = task.bind(payloads.encode(inputs, f"inputs of {task.name!r}"))
        if task.context_parameter is not None:
            arguments[task.context_parameter] = TaskContext(name=task.name)
        value = task.function(**arguments)
        return payloads.decode(task.encode(await value if inspect.isawaitable(value) else value))

    return call


def _errors(diagnostics: Sequence[Any]) -> list[Any]:
    return [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]


def _read(paths: Sequence[str]) -> dict[str, str]:
    """The sources behind files and folders, by path."""
    from rhythm.client.publishing import find_workflow_files, read_source

    return {str(path): read_source(path) for path in find_workflow_files(paths)}
