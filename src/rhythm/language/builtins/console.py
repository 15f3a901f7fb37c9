"""console: lines for the execution's log. What is logged never affects the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rhythm.language.builtins.json import quote
from rhythm.language.members import own_keys, own_value
from rhythm.language.operators import describe
from rhythm.language.values_map import JSMap, JSSet
from rhythm.language.values_types import UNDEFINED, Builtin, JSError, Namespace, Value, current_realm

LINE_LENGTH_MAX: Final = 8 * 1024  #: Characters of one line; the rest is cut.
DEPTH_MAX: Final = 4  #: Levels of objects shown.
ITEMS_MAX: Final = 100  #: Entries of one object or array shown.


def show(value: Value, depth: int = 0) -> str:
    """A value for people; runs no flow code."""
    kind = value.__class__
    if kind is str:
        return value if depth == 0 else quote(value)
    if kind is JSError:
        return str(value.props.get("stack", "")) if depth == 0 else describe(value)
    if kind not in (list, dict, JSMap, JSSet):
        return describe(value)
    if depth > DEPTH_MAX:
        return "[Array]" if kind is list else "[Object]"
    if kind is list:
        parts = [show(item, depth + 1) for item in value[:ITEMS_MAX]]
    elif kind is JSMap:
        parts = [f"{show(k, depth + 1)} => {show(v, depth + 1)}" for k, v in value.entries()[:ITEMS_MAX]]
    elif kind is JSSet:
        parts = [show(k, depth + 1) for k, _ in value.entries()[:ITEMS_MAX]]
    else:
        parts = [f"{key}: {show(own_value(value, key), depth + 1)}" for key in own_keys(value)[:ITEMS_MAX]]
    inside = ", ".join(parts)
    if kind is list:
        return f"[{inside}]"
    name = {JSMap: "Map ", JSSet: "Set "}.get(kind, "")
    return f"{name}{{{inside}}}"


def _logger(level: str) -> Callable[..., Value]:
    def log(*values: Value) -> Value:
        text = " ".join([show(value) for value in values])
        current_realm().log(level, text[:LINE_LENGTH_MAX])
        return UNDEFINED

    return log


CONSOLE = Namespace(
    "console",
    {
        name: Builtin(f"console.{name}", _logger("info" if name == "log" else name))
        for name in ("log", "info", "warn", "error", "debug")
    },
)
