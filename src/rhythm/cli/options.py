"""Options that several commands share, and reading what was typed."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from rhythm.errors import ConfigurationError, InvalidInput

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url", metavar="URL", help="PostgreSQL to use. Default: the configured one.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON value per line on standard output.")]
App = Annotated[
    list[str] | None,
    typer.Option(
        "--app", metavar="MODULE", help="Python module that declares tasks; may be repeated.", show_default=False
    ),
]
Workflows = Annotated[
    list[str] | None,
    typer.Option(
        "--workflows",
        metavar="DIR",
        help='Folder of .flow files to publish; may be repeated. Default: "workflows".',
        show_default=False,
    ),
]
Queues = Annotated[
    list[str] | None,
    typer.Option(
        "--queue",
        "-q",
        metavar="NAME",
        help='Queue to serve; may be repeated. Default: "default" and those its tasks name.',
        show_default=False,
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        metavar="N",
        help="Tasks at a time per process. Default: 100 async, 16 in threads.",
        show_default=False,
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        metavar="LEVEL",
        help="debug, info, warning, error or critical. Default: info.",
        show_default=False,
    ),
]
LogFormat = Annotated[
    str | None,
    typer.Option("--log-format", metavar="FORMAT", help="text or json. Default: text.", show_default=False),
]
Inputs = Annotated[
    str | None,
    typer.Option(
        "--inputs", "-i", metavar="JSON|@FILE", help="Inputs as a JSON object, or @FILE (@- reads standard input)."
    ),
]
Timeout = Annotated[
    str | None,
    typer.Option(
        "--timeout", metavar="DURATION", help='Longest wait, like "30s". Default: no limit.', show_default=False
    ),
]


def read_json(text: str, what: str) -> Any:
    """The value of JSON text, or of the file behind `@FILE`. Raises InvalidInput naming `what`."""
    if text.startswith("@"):
        try:
            text = sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{what}: cannot read {text[1:]}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{what} is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except ValueError as error:
        raise InvalidInput(f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise InvalidInput(f"{what} is nested too deeply") from None


def read_inputs(text: str | None) -> dict[str, Any]:
    """The inputs given with `--inputs`; an empty object when none were."""
    if text is None:
        return {}
    value = read_json(text, "--inputs")
    if not isinstance(value, dict):
        raise InvalidInput(f'--inputs must be a JSON object like {{"orderId": "o-1"}}, not {_kind(value)}')
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds: dict[type, str] = {list: "an array", str: "a string", bool: "a boolean"}
    return kinds.get(type(value), "a number")


def import_apps(modules: tuple[str, ...], project: Path | None = None) -> None:
    """Imports the modules that declare tasks, the working directory being on the path, then the project's folder.

    Raises ConfigurationError when one cannot be imported; the traceback of its own mistakes is kept as the cause.
    """
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if project is not None and str(project) not in sys.path:
        sys.path.insert(1, str(project))
    for name in modules:
        if name.endswith(".py") or "/" in name:
            suggestion = name.removesuffix(".py").strip("./").replace("/", ".")
            raise ConfigurationError(f"--app takes the name of a module, not a file: try --app {suggestion}")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                raise ConfigurationError(
                    f"There is no module {name!r} here (looked in {folder} and the installation)."
                ) from None
            raise ConfigurationError(f"Cannot import {name!r}: {error}") from error
        except Exception as error:
            raise ConfigurationError(
                f"Cannot import {name!r}: {_where(error)}{type(error).__name__}: {error}"
            ) from error


def _where(error: BaseException) -> str:
    """ "file:line: " of where users' code went wrong."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: "
    trace = error.__traceback__
    place = ""
    while trace is not None:
        if "importlib" not in trace.tb_frame.f_code.co_filename:
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return place
