"""Workflow files: check, publish, and eval, which runs one in memory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rhythm.cli import options, output
from rhythm.errors import CompileError, ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from rhythm.client.publishing import PublishedWorkflow
    from rhythm.config import Config
    from rhythm.testing import Outcome

CHILDREN_MAX = 1_000  #: workflow files beside the one that `eval` runs

Paths = Annotated[
    list[str], typer.Argument(metavar="PATH...", help=".flow files, or folders of them.", show_default=False)
]


class Snapshot(StrEnum):
    """When `eval` writes the workflow's state and reads it back."""

    never = "never"
    at_await = "await"


def check(
    paths: Paths,
    app: options.App = None,
    registered: Annotated[
        bool, typer.Option("--registered", help="Compare calls also with what workers have registered.")
    ] = False,
    database_url: options.DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Checks workflow files and prints what is wrong.

    With tasks, from the modules of --app, else of the project's configuration, calls of tasks are compared with their
    Python signatures; with --registered also with what workers, of Python and Node.js, have registered in the database.
    Exit code 1 if there is any error.

    Example: rhythm check workflows --app tasks
    """
    files = _read(paths)
    from rhythm.config import load
    from rhythm.engine import check_source
    from rhythm.language.calls import Callees

    config = load({"app": app, "database_url": database_url})
    options.import_apps(config.app, config.project)
    names = {Path(path).stem for path in files}
    inputs, outputs = _known_tasks(config, registered=registered)
    callees = Callees(inputs, names, outputs=outputs)
    failed = False
    unchecked = 0
    for path, source in files.items():
        found = check_source(source, path, callees)
        failed = output.show_diagnostics(found, {path: source}, as_json=as_json) or failed
        unchecked += sum(diagnostic.severity == "unchecked" for diagnostic in found)
    if inputs is None:
        output.message(
            "Calls of tasks were not compared with their signatures: name their modules with --app, "
            "or give --registered for what workers have registered."
        )
    if unchecked:
        calls = "1 call cannot" if unchecked == 1 else f"{unchecked} calls cannot"
        output.message(f"{calls} be compared, or not wholly, before the workflow runs; --json lists them.")
    if failed:
        raise typer.Exit(output.FAILED)
    output.message(f"{len(files)} {'file' if len(files) == 1 else 'files'} checked, no errors.")


def types(
    paths: Paths,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Default: standard output.", show_default=False),
    ] = None,
    app: options.App = None,
    registered: Annotated[
        bool, typer.Option("--registered", help="Take inputs of tasks also from what workers have registered.")
    ] = False,
    database_url: options.DatabaseUrl = None,
) -> None:
    """Writes TypeScript declarations of workflows' inputs and outputs, for clients in Node.js.

    What is known comes from the sources, and from the tasks they call: of the modules of --app, else of the project's
    configuration, and with --registered of what workers have registered. The rest is `unknown`.
    Exit code 1 when a workflow has an error.

    Example: rhythm types workflows -o workflows.d.ts
    """
    files = _read(paths)
    from rhythm.cli.typescript import declarations
    from rhythm.config import load
    from rhythm.engine import check_source, read_shape

    config = load({"app": app, "database_url": database_url})
    options.import_apps(config.app, config.project)
    inputs, outputs = _known_tasks(config, registered=registered)
    shapes = {}
    failed = False
    for path, source in files.items():
        failed = output.show_diagnostics(_errors(check_source(source, path)), {path: source}, as_json=False) or failed
        shapes[Path(path).stem] = read_shape(source, path, inputs or {}, outputs or {})
    if failed:
        raise typer.Exit(output.FAILED)
    text = declarations(shapes)
    if out is None:
        output.line(text.rstrip())
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write {out}: {error.strerror}") from None
    output.message(f"{out}: {len(shapes)} {'workflow' if len(shapes) == 1 else 'workflows'}")


def publish(paths: Paths, database_url: options.DatabaseUrl = None, as_json: options.Json = False) -> None:
    """Checks workflows and stores their definitions.

    New executions run them from then on; those under way stay on their own definition.
    Nothing is stored when one of the files has an error. Calls that do not fit what workers have registered about a
    task are warned of.

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
        for found in (*published.warnings, *published.mistaken):
            output.message(output.diagnostic_text(found, None))
        if as_json:
            entry = {"name": published.name, "hash": published.hash, "changed": published.changed}
            unchecked = [output.diagnostic_json(diagnostic) for diagnostic in published.unchecked]
            output.json_line({**entry, "staying": published.staying, "unchecked": unchecked})
        else:
            what = "published" if published.changed else "unchanged"
            if published.staying:
                what += f"; unfinished executions that stay on another definition: {published.staying}"
            output.line(f"{output.visible(published.name)}  {published.hash[:12]}  {what}")
    if unknown := sum(found.code == "U104" for published in stored for found in published.unchecked):
        calls = "1 call is" if unknown == 1 else f"{unknown} calls are"
        output.message(f"{calls} of tasks that no worker has registered yet; --json lists them.")


def evaluate(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .flow file.", show_default=False)],
    inputs: options.Inputs = None,
    app: options.App = None,
    snapshot: Annotated[
        Snapshot, typer.Option(help='"await": write and read back the state at every suspension.')
    ] = Snapshot.never,
    signals: Annotated[
        list[str] | None,
        typer.Option(
            "--signal",
            metavar="'AFTER NAME [JSON]'",
            help='A signal, and when it comes after the start, like \'2h approval {"by": "Ada"}\'; may be repeated.',
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Runs one workflow in memory, without a database.

    Time passes at once. Tasks come from the modules of --app, else of the project's configuration; child workflows are
    those beside the file.
    Exit code 1 when the workflow ended in an error, 2 when it does not compile.

    Example: rhythm eval workflows/processOrder.flow --app tasks --inputs '{"orderId": "o-1", "amount": 25}'
    """
    given = options.read_inputs(inputs)
    sent = [_read_signal(text) for text in signals or ()]
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
    outcome = _evaluate(Path(file), source, given, REGISTRY.as_dict(), snapshot, sent)
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


def _read_signal(text: str) -> tuple[str, str, Any]:
    """After what time, the name, and the payload, of ``AFTER NAME [JSON]``."""
    from rhythm.durations import parse_seconds

    words = text.split(None, 2)
    if len(words) < 2:
        raise InvalidInput(f"--signal {text!r} is not like '2h approval' or '2h approval {{\"by\": \"Ada\"}}'")
    parse_seconds(words[0])
    return words[0], words[1], options.read_json(words[2], "--signal") if len(words) > 2 else None


def _evaluate(
    file: Path,
    source: str,
    inputs: Any,
    tasks: Mapping[str, Any],
    snapshot: Snapshot,
    signals: Sequence[tuple[str, str, Any]],
) -> Outcome:
    from rhythm.client.publishing import read_source
    from rhythm.testing import evaluate as evaluate_in_memory

    beside = {}
    for path in sorted(file.parent.glob("*.flow"))[:CHILDREN_MAX]:
        with contextlib.suppress(InvalidInput):  # a file that is not read is a workflow that does not exist
            beside[path.stem] = read_source(path)
    return evaluate_in_memory(
        source,
        inputs=inputs,
        tasks=tasks,
        snapshot=snapshot.value,
        signals=signals,
        ctx={"name": file.stem},
        workflows=beside,
    )


def _schemas() -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON Schemas of the inputs and of the outputs of all tasks of this process, by name."""
    from rhythm.tasks import REGISTRY

    try:
        return {task.name: task.input_schema() for task in REGISTRY}, {t.name: t.output_schema() for t in REGISTRY}
    except TypeError as error:  # it names the task
        raise ConfigurationError(str(error)) from None


def _known_tasks(config: Config, *, registered: bool) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Schemas of tasks' inputs and outputs by name, of the modules and of what workers registered. None: no task."""
    inputs, outputs = _schemas() if config.app else (None, None)
    return (_registered(config) | (inputs or {}) if registered else inputs), outputs


def _registered(config: Config) -> dict[str, Any]:
    """The JSON Schemas of the inputs of all tasks that workers have registered in the database, by name."""
    from rhythm.cli.connection import connected, run

    async def work() -> dict[str, Any]:
        async with connected(config) as client:
            return await client.store.task_schemas(None)

    return run(work())


def _errors(diagnostics: Sequence[Any]) -> list[Any]:
    return [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]


def _read(paths: Sequence[str]) -> dict[str, str]:
    """The sources behind files and folders, by path."""
    from rhythm.client.publishing import find_workflow_files, read_source

    return {str(path): read_source(path) for path in find_workflow_files(paths)}
