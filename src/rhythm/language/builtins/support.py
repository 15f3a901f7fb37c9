"""What several builtins share: callbacks, index arguments, refusals."""

from __future__ import annotations

from collections.abc import Callable
from inspect import CO_VARARGS
from types import FunctionType
from typing import Any, NoReturn

from rhythm.language.numbers import clamp_index, to_integer
from rhythm.language.operators import describe, to_number
from rhythm.language.values_types import (
    ARRAY_LENGTH_MAX,
    UNDEFINED,
    LimitError,
    NativeFunction,
    UnsupportedError,
    Value,
    throw_type_error,
)


def callback(function: Value) -> Callable[..., Value]:
    """What to call for a callback argument; throws when it is not a function."""
    if function.__class__ is FunctionType:
        return function
    if isinstance(function, NativeFunction):
        return function.call
    throw_type_error(f"{describe(function)} is not a function")


def takes_at_most(function: Value, count: int) -> bool:
    """Whether a flow function cannot tell if it gets more than ``count`` arguments.

    Generated functions name the arguments they drop ``_``; a rest parameter has another name.
    """
    if function.__class__ is not FunctionType:
        return False
    code = function.__code__
    parameters: int = code.co_argcount
    return parameters <= count and (not code.co_flags & CO_VARARGS or code.co_varnames[parameters] == "_")


def check_length(length: int) -> None:
    """Refuses an array that is too long."""
    if length > ARRAY_LENGTH_MAX:
        raise LimitError(f"an array has more than {ARRAY_LENGTH_MAX} elements")


def relative(value: Value, length: int, default: int) -> int:
    """A relative index argument, clamped to 0..length; ``default`` for undefined."""
    if value is UNDEFINED:
        return default
    return clamp_index(value if value.__class__ is float else to_number(value), length)


def integer(value: Value) -> float:
    """ToIntegerOrInfinity of an argument."""
    return to_integer(value if value.__class__ is float else to_number(value))


def unsupported(message: str) -> Callable[..., NoReturn]:
    """A builtin that JavaScript has and flows refuse."""

    def refuse(*_: Any) -> NoReturn:
        raise UnsupportedError(message)

    return refuse
