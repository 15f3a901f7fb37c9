"""Configuration: what is set where, and which database that means.

A key has the same name in `rhythm.toml` (or `[tool.rhythm]` of `pyproject.toml`), in the environment as
`RHYTHM_<NAME>` and as a flag. A flag wins over the environment, that over the file, that over the default. The
file is the nearest one from the working directory upwards; its folder is the project. `rhythm.toml` wins over a
`pyproject.toml` beside it.

A key nobody knows is an error with a suggestion, never ignored: a misspelt `database_url` must not start an
embedded database. In the environment, where other programs have variables too, only near misses are errors.
Everything here is read once and frozen; failures are ConfigurationError, naming where the value came from.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rhythm.durations import parse_rate, parse_seconds
from rhythm.errors import ConfigurationError, InvalidDuration, NotConfigured
from rhythm.model import KEY_WINDOW_SECONDS, NAME_LENGTH_MAX, PAYLOAD_BYTES_MAX, QueueLimits

FILE_NAME = "rhythm.toml"
VARIABLE_PREFIX = "RHYTHM_"
CONCURRENCY_MAX = 10_000
PROCESSES_MAX = 256
PORT_MAX = 65_535  #: port 0 is any free one
PAYLOAD_BYTES_LIMIT = 64 * 1024 * 1024  #: the largest limit that may be set
HEARTBEAT_TIMEOUT_MIN_SECONDS = 1.0
RETENTION_MIN_SECONDS = 60.0
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("text", "json")
_SIMILARITY = 0.75  #: from here on an unknown variable counts as a misspelt one
_OTHER_VARIABLES = frozenset(
    {"env", "test_database_urls", "lifeline", "fail_point"}
)  #: RHYTHM_… variables that are not keys
LIMIT_MAX = 1_000_000  #: of a queue's concurrency


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The configuration in force. Durations are seconds."""

    database_url: str | None = None  #: Any PostgreSQL 15 or newer. Default: the embedded one, in a project.
    embedded: bool = True  #: Whether a project may start the embedded database. Default true.
    pooler: bool = False  #: The URL leads through a pooler in transaction mode. Default false.
    listen_url: str | None = None  #: A direct URL for wakeups, beside a pooler. Default none.
    app: tuple[str, ...] = ()  #: Python modules that declare tasks. Default none.
    workflows: tuple[Path, ...] = ()  #: Folders of .flow files. Default none.
    queues: tuple[str, ...] = ()  #: Queues a worker serves. Default: "default" and those its tasks name.
    concurrency: int | None = None  #: Started tasks per process. Default: 100 async ones, 16 in threads.
    processes: int = 1  #: Worker processes. Default 1.
    task_processes: int | None = None  #: Child processes for process=True tasks, per process. Default: one per CPU.
    health_port: int | None = None  #: TCP port that says over HTTP whether a worker is well. Default none.
    heartbeat_timeout: float = 30.0  #: A worker not heard of for so long is dead. Default 30 s, at least 1 s.
    stall_timeout: float = 60.0  #: A worker whose exchange stands for so long stops beating. Default 60 s.
    drain_timeout: float = 30.0  #: Time that running tasks get when a worker stops. Default 30 s.
    poll_interval: float = 1.0  #: Longest time between two looks for work. Default 1 s.
    payload_bytes_max: int = PAYLOAD_BYTES_MAX  #: Largest inputs, output or signal, bytes of JSON. Default 1 MiB.
    retention: float | None = None  #: Finished executions are kept for so long. Default: for ever.
    key_window: float = KEY_WINDOW_SECONDS  #: An idempotency key is kept at least so long. Default 30 d.
    queue: Mapping[str, QueueLimits] = field(default_factory=dict)  #: Limits of queues, by name. Default none.
    log_level: str = "info"  #: One of LOG_LEVELS. Default "info".
    log_format: str = "text"  #: One of LOG_FORMATS. Default "text".

    project: Path | None = None  #: Folder of the configuration file; None outside a project.
    file: Path | None = None  #: The configuration file.
    production: bool = False  #: RHYTHM_ENV is "production": never an embedded database.
    sources: Mapping[str, str] = field(default_factory=dict)  #: Key -> where it was set, for those that were.


# --- reading -------------------------------------------------------------------------------------


def load(
    overrides: Mapping[str, object] | None = None,
    *,
    cwd: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: bool = True,
) -> Config:
    """The configuration seen from `cwd` (default: the working directory).

    `overrides` are flags (or, without `flags`, arguments of a function): keys to values, None or an empty list
    meaning "not given"; relative folders in them and in the environment count from `cwd`, those in the file from the
    file. Raises ConfigurationError.
    """
    here = Path(cwd) if cwd is not None else Path.cwd()
    environ = os.environ if environ is None else environ
    file, table = _find_file(here)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def take(key: str, raw: object, where: str, folder: Path) -> None:
        parse = _KEYS.get(key)
        if parse is None:
            raise ConfigurationError(f"{where} {_unknown(key)}")
        try:
            values[key] = parse(raw, folder)
        except (ValueError, InvalidDuration) as error:
            raise ConfigurationError(f"{where}: {key}: {error}") from None
        sources[key] = where

    for key, raw in table.items():
        assert file is not None, "a table comes from a file"
        take(key, raw, str(file), file.parent)
    for name, text in environ.items():
        variable = _variable_key(name)
        if variable is not None and text:
            take(variable, text, name, here)
    for key, given in (overrides or {}).items():
        if given is not None and given not in ((), []):
            take(key, given, f"--{key.replace('_', '-')}" if flags else f"the argument {key}", here)
    return Config(
        **values,
        project=file.parent if file else None,
        file=file,
        production=environ.get("RHYTHM_ENV", "").strip().lower() == "production",
        sources=sources,
    )


def _find_file(start: Path) -> tuple[Path | None, dict[str, Any]]:
    """The nearest configuration file from here upwards, and its keys."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME, _read_toml(folder / FILE_NAME)
        if (folder / "pyproject.toml").is_file():
            tools = _read_toml(folder / "pyproject.toml").get("tool")
            table = tools.get("rhythm") if isinstance(tools, dict) else None
            if isinstance(table, dict):
                return folder / "pyproject.toml", table
    return None, {}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"Cannot read {path}: {error}") from error


def _variable_key(name: str) -> str | None:
    """The key an environment variable sets, None for other programs' variables. Raises for a near miss."""
    if not name.startswith(VARIABLE_PREFIX):
        return None
    key = name.removeprefix(VARIABLE_PREFIX).lower()
    if key in _KEYS:
        return key
    if key not in _OTHER_VARIABLES and difflib.get_close_matches(key, _KEYS, n=1, cutoff=_SIMILARITY):
        raise ConfigurationError(f"{name} {_unknown(key, VARIABLE_PREFIX)}")
    return None


def _unknown(key: str, prefix: str = "") -> str:
    close = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
    if close:
        name = (prefix + close[0]).upper() if prefix else repr(close[0])
        suggestion = f"did you mean {name}?"
    else:
        suggestion = "the keys are " + ", ".join(sorted(_KEYS))
    return f"sets {key!r}, which is not a configuration key; {suggestion}"


# --- one parser per kind of value: (raw value, folder that relative paths count from) -> value -----


def _text(raw: object, folder: Path) -> str:
    if not isinstance(raw, str) or not raw:
        raise ValueError(f"{raw!r} is not text")
    return raw


def _url(raw: object, folder: Path) -> str:
    text = _text(raw, folder)
    if urlsplit(text).scheme not in ("postgresql", "postgres"):
        raise ValueError(f"{mask_passwords(text)!r} is not a URL like postgresql://user@host:5432/database")
    return text


def _flag(raw: object, folder: Path) -> bool:
    if isinstance(raw, bool):
        return raw
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if isinstance(raw, str) and raw.strip().lower() in words:
        return words[raw.strip().lower()]
    raise ValueError(f"{raw!r} is neither true nor false")


def _texts(raw: object, folder: Path) -> tuple[str, ...]:
    if isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",")]
    if not isinstance(raw, list | tuple) or not all(isinstance(part, str) and part for part in raw):
        raise ValueError(f"{raw!r} is not a list of names")
    return tuple(dict.fromkeys(raw))


def _folders(raw: object, folder: Path) -> tuple[Path, ...]:
    if isinstance(raw, list | tuple):
        raw = [str(part) for part in raw]
    return tuple(Path(os.path.normpath(folder / part)) for part in _texts(raw, folder))


def _whole(low: int, high: int) -> Callable[[object, Path], int]:
    def parse(raw: object, folder: Path) -> int:
        if isinstance(raw, str) and re.fullmatch(r"[0-9_]{1,12}", raw.strip()):
            raw = int(raw)
        if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
            raise ValueError(f"{raw!r} is not a whole number from {low} to {high}")
        return raw

    return parse


def _duration(low: float) -> Callable[[object, Path], float]:
    def parse(raw: object, folder: Path) -> float:
        if isinstance(raw, bool) or not isinstance(raw, str | int | float):
            raise ValueError(f"{raw!r} is not a duration; write for example 30, '30s' or '5m'")
        seconds = parse_seconds(raw)
        if seconds < low:
            raise ValueError(f"{raw!r} is shorter than {low:g} s")
        return seconds

    return parse


def _retention(raw: object, folder: Path) -> float:
    """The table [retention], or what its one key says."""
    if isinstance(raw, dict):
        unknown = raw.keys() - {"finished"}
        if unknown:
            raise ValueError(f"{min(unknown)!r} is not a key of the table; its key is 'finished'")
        if "finished" not in raw:
            raise ValueError("the table is empty; write for example finished = '30d'")
        raw = raw["finished"]
    return _duration(RETENTION_MIN_SECONDS)(raw, folder)


def _queues(raw: object, folder: Path) -> Mapping[str, QueueLimits]:
    """The tables [queue.NAME]."""
    if not isinstance(raw, Mapping):
        raise ValueError(
            f"{raw!r:.100} is no table: limits stand in a file, as [queue.NAME]; those to serve are `queues`"
        )
    limits = {}
    for name, table in raw.items():
        if not 1 <= len(name) <= NAME_LENGTH_MAX:
            raise ValueError(
                f"{name!r:.100} is not the name of a queue: it must have 1 to {NAME_LENGTH_MAX} characters"
            )
        if not isinstance(table, Mapping):
            raise ValueError(f"{name!r} is no table: write [queue.{name}] and its limits below")
        limits[name] = _limits(name, table)
    return limits


def _limits(name: str, table: Mapping[str, object]) -> QueueLimits:
    values: dict[str, Any] = {}
    for key, raw in table.items():
        if key not in _LIMITS:
            close = difflib.get_close_matches(key, _LIMITS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else "they are " + ", ".join(_LIMITS)
            raise ValueError(f"[queue.{name}] has no limit {key!r}; {hint}")
        try:
            values[key] = _LIMITS[key](raw)
        except (ValueError, InvalidDuration) as error:
            raise ValueError(f"[queue.{name}] {key}: {error}") from None
    return QueueLimits(**values)


def _concurrency(raw: object) -> int:
    return _whole(1, LIMIT_MAX)(raw, Path())


def _rate(raw: object) -> tuple[int, float]:
    if not isinstance(raw, str):
        raise ValueError(f"{raw!r} is not a rate; write for example '100/1m' or '5/s'")
    return parse_rate(raw)


#: Limit of a queue, as in QueueLimits -> what reads it.
_LIMITS: Mapping[str, Callable[[object], Any]] = {
    "concurrency": _concurrency,
    "rate": _rate,
    "key_concurrency": _concurrency,
    "key_rate": _rate,
}


def _one_of(choices: tuple[str, ...]) -> Callable[[object, Path], str]:
    def parse(raw: object, folder: Path) -> str:
        if isinstance(raw, str) and raw.lower() in choices:
            return raw.lower()
        raise ValueError(f"{raw!r} is none of {', '.join(choices)}")

    return parse


_KEYS: Mapping[str, Callable[[object, Path], Any]] = {
    "database_url": _url,
    "embedded": _flag,
    "pooler": _flag,
    "listen_url": _url,
    "app": _texts,
    "workflows": _folders,
    "queues": _texts,
    "concurrency": _whole(1, CONCURRENCY_MAX),
    "processes": _whole(1, PROCESSES_MAX),
    "task_processes": _whole(1, PROCESSES_MAX),
    "health_port": _whole(0, PORT_MAX),
    "heartbeat_timeout": _duration(HEARTBEAT_TIMEOUT_MIN_SECONDS),
    "stall_timeout": _duration(1.0),
    "drain_timeout": _duration(0.0),
    "poll_interval": _duration(0.01),
    "payload_bytes_max": _whole(1, PAYLOAD_BYTES_LIMIT),
    "retention": _retention,
    "key_window": _duration(RETENTION_MIN_SECONDS),
    "queue": _queues,
    "log_level": _one_of(LOG_LEVELS),
    "log_format": _one_of(LOG_FORMATS),
}
assert set(_KEYS) <= {entry.name for entry in fields(Config)}, "every key is a field of Config"

KEYS = tuple(_KEYS)  #: names of all keys, in the order in which people should see them


# --- the database --------------------------------------------------------------------------------


def resolve_database_url(config: Config) -> str:
    """The URL of the database to use; starts the embedded one where that is allowed.

    Blocks for a second or a few when a server must be started. Raises NotConfigured when nothing is configured
    and an embedded database is out of the question, DatabaseUnavailable when it does not start.
    """
    if config.database_url is not None:
        return config.database_url
    if config.production:
        raise NotConfigured(
            "No database is configured: set RHYTHM_DATABASE_URL (RHYTHM_ENV is production, so none is started)."
        )
    if config.project is None:
        raise NotConfigured(
            "No database is configured: set RHYTHM_DATABASE_URL, "
            f"or make this folder a project with an embedded database: `rhythm init` (it writes {FILE_NAME})."
        )
    if not config.embedded:
        where = config.sources.get("embedded", str(config.file))
        raise NotConfigured(
            f"No database is configured: set RHYTHM_DATABASE_URL ({where} says embedded = false). "
            "`rhythm init` makes a project with an embedded database."
        )
    from rhythm.store.embedded import EmbeddedServer  # only where it is needed: most installations set a URL

    return EmbeddedServer(config.project / ".rhythm").ensure_running()


def database_url(url: str | None = None) -> str:
    """The URL of the database Rhythm uses here, for code that talks to it beside Rhythm (a ledger, psql, Node).

    Starts the embedded server where that is allowed; this process counts as its user until it ends.
    Raises NotConfigured, ConfigurationError, DatabaseUnavailable.
    """
    return resolve_database_url(load({"database_url": url}))


_USER_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+]*://[^\s:/@]*:)[^\s]*@", re.IGNORECASE)
_PARAMETER_PASSWORD = re.compile(r"(\b(?:pass|password|sslpassword)=)('[^']*'|[^\s&'\"]+)", re.IGNORECASE)


def mask_passwords(text: str) -> str:
    """The text with the password of every URL and connection string in it replaced by stars."""
    return _PARAMETER_PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1***@", text))
