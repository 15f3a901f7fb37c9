"""The Typer application: which commands there are."""

from __future__ import annotations

from typing import Annotated

import typer

from rhythm.cli import bench, database, dev, executions, lines, output, project, queues, show, worker, workflows

application = typer.Typer(
    help="Durable workflows and a task queue on Postgres.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and those hold inputs and passwords
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from rhythm import __version__

        output.line(f"rhythm {__version__}")
        raise typer.Exit


@application.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the release and exit.")
    ] = False,
) -> None:
    """Durable workflows and a task queue on Postgres."""


application.command()(project.init)
application.command()(dev.dev)
application.command()(worker.worker)
application.command()(executions.start)
application.command()(executions.wait)
application.command()(show.show)
application.command()(lines.logs)
application.command(name="list")(executions.list_executions)
application.command()(executions.signal)
application.command()(executions.cancel)
application.command()(executions.retry)
application.add_typer(queues.queues)
application.command()(queues.workers)
application.command()(workflows.check)
application.command()(workflows.types)
application.command()(workflows.publish)
application.command(name="eval")(workflows.evaluate)
application.command()(database.migrate)
application.add_typer(database.database)
application.command()(bench.bench)
application.command()(project.config)
