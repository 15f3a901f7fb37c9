"""Error and its kinds."""

from __future__ import annotations

from rhythm.language.members import get_member, has_property, iterate
from rhythm.language.names import ERROR_KINDS
from rhythm.language.operators import DEFAULT_TEXT, error_text, is_object, to_string
from rhythm.language.values_types import (
    OBJECT_TAGS,
    UNDEFINED,
    Builtin,
    JSError,
    Value,
    is_callable,
    register_methods,
)


def _text(error: JSError, *_: Value) -> str:
    name = error.props.get("name", error.kind)
    message = error.props.get("message", "")
    return error_text(
        "Error" if name is UNDEFINED else to_string(name), "" if message is UNDEFINED else to_string(message)
    )


register_methods(JSError, "Error", {"toString": _text})
OBJECT_TAGS[JSError] = "Error"
DEFAULT_TEXT[JSError] = _text


def _cause(error: JSError, options: Value) -> JSError:
    if is_object(options) and not is_callable(options) and has_property("cause", options):
        error.props["cause"] = get_member(options, "cause", None)
    return error


def _constructor(kind: str) -> Builtin:
    def make(message: Value = UNDEFINED, options: Value = UNDEFINED, *_: Value) -> JSError:
        return _cause(JSError(kind, None if message is UNDEFINED else to_string(message)), options)

    def is_instance(value: Value) -> bool:
        return value.__class__ is JSError and (kind == "Error" or value.kind == kind)

    return Builtin(kind, make, construct=make, is_instance=is_instance)


def _aggregate(errors: Value = UNDEFINED, message: Value = UNDEFINED, options: Value = UNDEFINED, *_: Value) -> JSError:
    error = JSError("AggregateError", None if message is UNDEFINED else to_string(message))
    _cause(error, options)
    error.props["errors"] = list(iterate(errors, None))
    return error


ERRORS: dict[str, Builtin] = {kind: _constructor(kind) for kind in sorted(ERROR_KINDS - {"AggregateError"})}
ERRORS["AggregateError"] = Builtin(
    "AggregateError",
    _aggregate,
    construct=_aggregate,
    is_instance=lambda value: value.__class__ is JSError and value.kind == "AggregateError",
)
