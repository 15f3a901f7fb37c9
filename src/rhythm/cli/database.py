"""The database: migrate, and the embedded server's own commands (`rhythm db ...`)."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Annotated

import typer

from rhythm.cli import options, output
from rhythm.errors import ConfigurationError, NotConfigured

if TYPE_CHECKING:
    from rhythm.config import Config
    from rhythm.store.embedded import EmbeddedServer, Status

Force = Annotated[bool, typer.Option("--force", help="Even while other processes use it.")]

_HELP = "The embedded database of this project.\n\nExample: rhythm db psql"
database = typer.Typer(name="db", help=_HELP, no_args_is_help=True)


def migrate(
    status: Annotated[
        bool, typer.Option("--status", help="Only say what would be done; exit code 1 if anything.")
    ] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the schema's SQL and change nothing.")] = False,
    roles: Annotated[
        bool, typer.Option("--roles", help="Print the SQL that makes the role rhythm_worker, and change nothing.")
    ] = False,
    database_url: options.DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Brings the database's schema up to date.

    Example: rhythm migrate
    """
    from rhythm.cli.connection import run, unmigrated
    from rhythm.config import load
    from rhythm.store import migrations

    if sql:
        text = migrations.schema_sql().rstrip()
        if as_json:
            output.json_line({"sql": text})
        else:
            output.line(text)
        return
    config = load({"database_url": database_url})

    async def work() -> list[str]:
        async with unmigrated(config) as client:
            if not status:
                return await client.migrate()
            return list((await client.store.schema_status()).pending)

    names = run(work())
    for name in names:
        if as_json:
            output.json_line({"migration": name, "applied": not status})
        else:
            output.line(f"{'pending' if status else 'applied'}  {name}")
    if not names:
        output.message("The schema is up to date.")
    elif status:
        raise typer.Exit(output.FAILED)


@database.command()
def start() -> None:
    """Starts the embedded database and keeps it running until `rhythm db stop`; prints its URL.

    Example: rhythm db start
    """
    output.line(_server().start_pinned())


@database.command()
def stop(force: Force = False) -> None:
    """Stops the embedded database; while processes use it, only with --force.

    Example: rhythm db stop
    """
    _say_stopped(_server().stop(force=force), "It stops with the last of them; --force stops it now.")


@database.command()
def url() -> None:
    """Prints the URL of the database in use, for psql, Node and other programs; an embedded one is started for them.

    Example: psql "$(rhythm db url)"
    """
    from rhythm.config import load

    config = load()
    if config.database_url is not None:
        output.line(config.database_url)
        return
    server = _server(config)
    status = server.status()
    if status.url is not None:
        output.line(status.url)
    else:
        output.line(server.start_pinned())
        output.message("It runs until `rhythm db stop`.")


@database.command()
def psql(arguments: Annotated[list[str] | None, typer.Argument(metavar="[-- PSQL-OPTIONS]")] = None) -> None:
    """Opens psql on the database in use.

    Example: rhythm db psql -- -c 'select count(*) from rhythm.executions'
    """
    from rhythm.config import load, resolve_database_url
    from rhythm.store.embedded import binaries_folder

    config = load()
    target = resolve_database_url(config)
    program = shutil.which("psql") if config.database_url is not None else None
    command = [program or str(binaries_folder() / "psql"), "-d", target, *(arguments or ())]
    # A child, not exec: this process is what keeps an embedded server running meanwhile.
    raise typer.Exit(subprocess.run(command, check=False, env={**os.environ, "PSQLRC": os.devnull}).returncode)


@database.command()
def reset(
    force: Force = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Deletes the embedded database with everything in it.

    Example: rhythm db reset --yes
    """
    server = _server()
    status = server.status()
    if not yes:
        typer.confirm(f"Delete all data in {status.data}?", abort=True, err=True)
    _say_stopped(server.reset(force=force), "Nothing was deleted; --force stops it first.")
    output.message(f"Deleted {status.data}.")


def _server(config: Config | None = None) -> EmbeddedServer:
    """The embedded server of this project. Raises where another database is configured, or none is allowed."""
    from rhythm.config import load
    from rhythm.store.embedded import EmbeddedServer

    config = config or load()
    if config.database_url is not None:
        where = config.sources["database_url"]
        raise ConfigurationError(f"{where} sets database_url, so this project has no embedded database.")
    if config.production or config.project is None or not config.embedded:
        raise NotConfigured(
            "There is no embedded database here: that needs a project (`rhythm init`), embedded not set to false, "
            "and RHYTHM_ENV other than production. Set RHYTHM_DATABASE_URL to use a database of your own."
        )
    return EmbeddedServer(config.project / ".rhythm", notice=output.message)


def _say_stopped(status: Status, otherwise: str) -> None:
    if status.running:
        users = ", ".join(str(pid) for pid in status.users)
        output.message(f"The embedded database is in use (process numbers: {users}). {otherwise}")
        raise typer.Exit(output.FAILED)
