"""The `rhythm` command: one file per group of commands, over the client and the engine.

`rhythm --help` must answer within 0.3 s, so the modules here import at their top only what is cheap (Typer, the
exception tree); commands import what they need when they run.

    application.py    the Typer application and its commands in the order people meet them
    output.py         everything printed: values, tables, diagnostics, messages, exit codes
    options.py        options several commands share, and reading what was typed
    connection.py     from the options to a connected client
    ...               the commands

Data goes to standard output, messages to standard error. Exit codes: 0 done, 1 the thing asked about failed,
2 wrong usage or input, 3 not reachable. Every RhythmError becomes a message and one of these here, in `main`.
"""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Runs the command line of this process and exits."""
    from rhythm.cli.application import application
    from rhythm.cli.output import exit_code_of, report
    from rhythm.errors import RhythmError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 still shows every name
    try:
        application(prog_name="rhythm")
    except RhythmError as error:
        report(error)
        sys.exit(exit_code_of(error))
    except BrokenPipeError:  # the reader went away, as `head` does; that is not our failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
