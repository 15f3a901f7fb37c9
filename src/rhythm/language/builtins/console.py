"""console: lines for the execution's log. What is logged never affects the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rhythm.language.builtins.formats import format_arguments
from rhythm.language.builtins.support import unsupported
from rhythm.language.names import CONSOLE_OUT
from rhythm.language.values_types import UNDEFINED, Builtin, Namespace, Value, current_realm

#: Method -> level of its lines.
LEVELS: Final = {"log": "info", "info": "info", "warn": "warn", "error": "error", "debug": "debug"}


def _logger(level: str) -> Callable[..., Value]:
    def log(*values: Value) -> Value:
        current_realm().log(level, format_arguments(values))
        return UNDEFINED

    return log


CONSOLE = Namespace(
    "console",
    {
        **{name: Builtin(f"console.{name}", _logger(level)) for name, level in LEVELS.items()},
        **{
            name: Builtin(f"console.{name}", unsupported(f"console.{name} is not available in flows; use console.log"))
            for name in CONSOLE_OUT
        },
    },
)
