"""Logging of the worker commands: `log_level`, and `log_format` "text" or "json".

Records that belong to an execution carry its id and attempt: those of workers and of `TaskContext.logger` by
themselves, and whatever else is logged while a task runs through `tasks.current_attempt`. In text they stand in front
of the message as key=value unless the message begins with them; in JSON they are keys.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rhythm.config import Config

_FIELDS = ("execution_id", "attempt")
_NAMED = re.compile(r"execution_id=(\S+)(?: attempt=(\d+))?")


class AttemptFilter(logging.Filter):
    """Gives records the id and attempt that their message begins with, or of the task they were logged in."""

    def filter(self, record: logging.LogRecord) -> bool:
        from rhythm.tasks import current_attempt

        if not hasattr(record, "execution_id"):
            attempt = current_attempt.get()
            if record.name == "rhythm.worker":
                if named := _NAMED.match(record.getMessage()):
                    record.execution_id = named[1]
                    if named[2]:
                        record.attempt = int(named[2])
            elif attempt is not None and attempt[0] is not None:
                record.execution_id, record.attempt = str(attempt[0]), attempt[1]
        return True


class TextFormatter(logging.Formatter):
    """Lines for people and grep: time, level, logger, then key=value and the message.

    Control characters are written as escapes, and lines that go on are indented: what a workflow or an error says can
    neither command a terminal nor pass for a line of the worker's.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the standard library's name)
        if hasattr(record, "execution_id") and not record.message.startswith("execution_id="):
            keys = " ".join(f"{name}={getattr(record, name)}" for name in _FIELDS if hasattr(record, name))
            record.message = f"{keys} {record.message}"
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        from rhythm.cli.output import visible

        return visible(super().format(record), lines=True).replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """One JSON object per record; the execution's id and attempt where a record carries them."""

    @staticmethod
    def converter(seconds: float | None) -> time.struct_time:
        """UTC."""
        return time.gmtime(seconds)

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        entry |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        entry["message"] = record.getMessage()
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(config: Config) -> None:
    """Sets up this process's logging, on standard error."""
    handler = logging.StreamHandler()
    handler.addFilter(AttemptFilter())
    handler.setFormatter(JsonFormatter() if config.log_format == "json" else TextFormatter())
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)
