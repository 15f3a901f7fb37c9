"""What task, child, signal, sleep and cancel are given besides inputs, as far as the source shows it.

    check(function, arguments, report)     problems that are certain: the call would throw a TypeError
                                           -> where something is known only when the workflow runs

The run time makes the same checks of the values themselves (``builtins.host``), from the same table (``options``).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Final

from rhythm.durations import parse_milliseconds
from rhythm.errors import InvalidDuration
from rhythm.language.diagnostics import closest
from rhythm.language.literals import Known
from rhythm.language.options import (
    CHILD_OPTIONS,
    ERROR_NAMES_MAX,
    RETRY_OPTIONS,
    SIGNAL_OPTIONS,
    TASK_OPTIONS,
    Option,
    Options,
)
from rhythm.model import NAME_LENGTH_MAX

#: Function -> (which argument holds its options, what they are).
_OPTIONS: Final[dict[str, tuple[int, Options]]] = {
    "task": (2, TASK_OPTIONS),
    "child": (2, CHILD_OPTIONS),
    "signal": (1, SIGNAL_OPTIONS),
}
_NEEDED: Final = {"sleep": "a duration", "signal": "a name", "cancel": "a promise"}
_EXAMPLES: Final = {"sleep": '"30s"', "signal": '"approval"', "cancel": "promise"}
_PROMISES: Final = frozenset({"unknown", "function"})  # a function is no promise, but the run time says so better

#: Reports a problem: code, message, the value or name it is about, hint.
Say = Callable[[str, str, int, int, str], None]


def check(function: str, arguments: Sequence[Known], callee: tuple[int, int], say: Say) -> Known | None:
    """Reports what surely is wrong. Gives the first part that is known only when the workflow runs, or None.

    ``callee`` is the span of the function's name.
    """
    first = arguments[0] if arguments else None
    if first is None and function in _NEEDED:
        say("F506", f"`{function}` needs {_NEEDED[function]}", *callee, f"write `{function}({_EXAMPLES[function]})`")
        return None
    if function == "sleep" and first is not None:
        return _value(first, Option("", "moment"), "`sleep`", say)
    if function == "cancel":
        if first is not None and first.kind not in _PROMISES:
            hint = "keep the promise: `const nap = sleep(…)`"
            say("F506", "`cancel` takes the promise of an operation", first.start, first.end, hint)
        return None
    if function == "signal" and first is not None:
        undecided = _value(first, Option("", "text"), "the name of a signal", say)
    else:
        undecided = None
    position, options = _OPTIONS[function]
    if len(arguments) <= position:
        return undecided
    return _options(arguments[position], options, f"`{function}`", say) or undecided


def _options(known: Known, options: Options, what: str, say: Say) -> Known | None:
    if known.kind == "undefined":
        return None
    if known.kind == "unknown":
        return known
    if known.kind != "object":
        say("F506", f"the options of {what} must be an object", known.start, known.end, _example(options))
        return None
    undecided = known if known.is_open else None
    for name, member in known.members.items():
        option = options.get(name)
        if option is None:
            meant = closest(name, options)
            hint = f"did you mean `{meant}`?" if meant else f"there is {', '.join(f'`{other}`' for other in options)}"
            say("F505", f"{what} has no option `{name}`", member.start, member.end, hint)
        elif member.value.kind != "undefined":
            undecided = undecided or _value(member.value, option, f"`{name}` of {what}", say)
    if options is TASK_OPTIONS and {"deadline", "cancellable"} <= known.members.keys():
        cancellable, deadline = known.members["cancellable"].value, known.members["deadline"]
        if cancellable.exact and cancellable.value is False and deadline.value.kind not in ("unknown", "undefined"):
            text = "a task with `cancellable: false` cannot have a deadline"
            say(
                "F506", text, deadline.start, deadline.end, "leave out one of them: at its deadline a task is cancelled"
            )
    return undecided


def _example(options: Options) -> str:
    name = next((name for name, option in options.items() if option.kind in ("duration", "moment")), "key")
    return f'write for example `{{ {name}: "30s" }}`'


def _value(known: Known, option: Option, what: str, say: Say) -> Known | None:
    """Reports a value that is not what the option wants. Gives it when that cannot be decided."""
    if known.kind == "unknown":
        return known
    if option.kind == "retry" and known.kind == "object":
        return _options(known, RETRY_OPTIONS, what, say)
    if option.kind == "names" and known.kind == "array":
        return _names(known, what, say)
    fits = _FITS[option.kind](known, option)
    if fits is None:
        return known
    if not fits:
        say("F506", f"{what} must be {option.wanted}", known.start, known.end, _hint(known, option))
    return None


def _hint(known: Known, option: Option) -> str:
    if option.kind in ("duration", "moment"):
        return 'write for example "500ms", "30s", "5m", "2h", "7d", or milliseconds'
    if option.kind == "choice" and isinstance(known.value, str):
        meant = closest(known.value, option.choices)
        return f'did you mean "{meant}"?' if meant else f"write {option.wanted}"
    return {
        "retry": 'write for example `{ initial: "1s", factor: 2 }`',
        "names": 'write for example `["CardDeclined"]`',
        "uuid": "leave it out, and a new one is made",
        "boolean": "write `true` or `false`",
        "text": "write a name in quotes",
    }.get(option.kind, "write it without quotes" if known.kind == "string" else "choose one within these bounds")


def _names(known: Known, what: str, say: Say) -> Known | None:
    if len(known.items) > ERROR_NAMES_MAX:
        say("F506", f"{what} has more than {ERROR_NAMES_MAX} names", known.start, known.end, "name fewer errors")
    undecided = known if known.is_open else None
    for item in known.items:
        undecided = undecided or _value(item, Option("", "text"), f"a name in {what}", say)
    return undecided


# --- one value: True, False, or None for undecided --------------------------------------------------------------------


def _duration(known: Known, _: Option) -> bool | None:
    if known.kind not in ("number", "string"):
        return False
    if not known.exact:
        return None
    if isinstance(known.value, float) and known.value < 0:
        return True  # counts as zero
    try:
        parse_milliseconds(known.value)  # type: ignore[arg-type]  # a number or a string
    except InvalidDuration:
        return False
    return True


def _text(known: Known, _: Option) -> bool | None:
    if known.kind != "string":
        return False
    if not known.exact:
        return None
    return isinstance(known.value, str) and 1 <= len(known.value) <= NAME_LENGTH_MAX and known.value.isprintable()


def _number(known: Known, option: Option) -> bool | None:
    if known.kind != "number":
        return False
    if not isinstance(known.value, float):
        return None
    return option.low <= known.value <= option.high and (option.kind == "number" or known.value.is_integer())


def _boolean(known: Known, _: Option) -> bool:
    return known.kind == "boolean"


def _choice(known: Known, option: Option) -> bool | None:
    return None if known.kind == "string" and not known.exact else known.value in option.choices


def _uuid(known: Known, _: Option) -> bool | None:
    if known.kind != "string":
        return False
    if not isinstance(known.value, str):
        return None
    try:
        uuid.UUID(known.value)
    except ValueError:
        return False
    return True


def _never(known: Known, _: Option) -> bool:
    return False


_FITS: Final[dict[str, Callable[[Known, Option], bool | None]]] = {
    "duration": _duration,
    "moment": _duration,
    "text": _text,
    "number": _number,
    "whole": _number,
    "boolean": _boolean,
    "choice": _choice,
    "uuid": _uuid,
    "names": _never,
    "retry": _never,
}
