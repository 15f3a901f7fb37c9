"""Tasks: named application functions that executions call.

``@task`` turns a function into a Task: still callable as before, and known by name to the workers of this
process. What happens around one attempt is here too, because it depends on the function's signature only:

    inputs  (JSON object) --bind-->  keyword arguments      matched by name, validated by pydantic
    return value          --encode--> output (JSON)         by the return annotation, or by value
    exception             --failures--> error (JSON)

Annotations are resolved at first use and not at decoration, so that they may name what is defined further
down; a worker resolves all of them before it claims anything. A task never sees inputs that do not fit,
and what it returns is either stored exactly as JSON can hold it or refused loudly: bytes, NaN and sets
are never turned into something similar.

Speed: binding and encoding are a few tenths of a microsecond each for small payloads. Both run in C; the
Python paths below exist for what JSON readers disagree on (lone surrogates, deep nesting) and for messages.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import math
import threading
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, overload

from rhythm.durations import Duration, parse_seconds
from rhythm.errors import (
    InvalidInput,
    OutputInvalid,
    OutputTooLarge,
    PayloadTooLarge,
    TaskInputInvalid,
    TaskNotRetryable,
    TaskRetryAfter,
)
from rhythm.model import NAME_LENGTH_MAX, PAYLOAD_BYTES_MAX, PRIORITY_MAX, PRIORITY_MIN
from rhythm.payloads import DEPTH_MAX, to_text
from rhythm.payloads import decode as decode_payload
from rhythm.payloads import encode as encode_payload

if typing.TYPE_CHECKING:
    from pydantic import TypeAdapter

RETRIES_MAX = 1_000_000  #: largest number of retries one can ask for
#: Another attempt would end the same way, or the effect has happened.
NEVER_RETRIED = (TaskInputInvalid, OutputInvalid, OutputTooLarge, TaskNotRetryable)
PROGRESS_BYTES_MAX = 4 * 1024  #: bytes of JSON that a task may say of its progress
PROBLEMS_SHOWN_MAX = 8  #: problems listed in one message about unfitting inputs

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to wait before the next attempt, and which errors deserve one.

    The wait before retry n is ``initial * factor ** (n - 1)``, at most ``max``, moved at random by up to
    ``jitter`` of itself either way. Durations: a number is seconds, or "500ms", "5m", a timedelta.
    Raises InvalidDuration or ValueError when a field cannot be used.
    """

    initial: Duration = "1s"  #: Wait before the first retry. Default 1 s.
    factor: float = 2.0  #: Growth from one wait to the next, at least 1. Default 2.
    max: Duration = "5m"  #: Longest wait. Default 5 minutes.
    jitter: float = 0.2  #: Share of the wait that is random, 0 to 1. Default 0.2.
    retry_on: tuple[type[BaseException] | str, ...] = ()  #: If given, only these errors are retried.
    no_retry_on: tuple[type[BaseException] | str, ...] = ()  #: These errors are never retried.

    def __post_init__(self) -> None:
        parse_seconds(self.initial)
        parse_seconds(self.max)
        if not (math.isfinite(self.factor) and 1.0 <= self.factor <= 1000.0):
            raise ValueError(f"retry factor {self.factor!r} is not between 1 and 1000")
        if not 0.0 <= self.jitter <= 1.0:
            raise ValueError(f"retry jitter {self.jitter!r} is not between 0 and 1")
        kinds: Any
        for kinds in (self.retry_on, self.no_retry_on):
            if isinstance(kinds, str) or not all(isinstance(kind, str | type) for kind in kinds):
                raise ValueError("retry_on and no_retry_on take a tuple of exception classes or of their names")

    def as_dict(self) -> dict[str, Any]:
        """The policy as JSON-shaped data, durations in seconds, errors by name."""
        return {
            "initial": parse_seconds(self.initial),
            "factor": float(self.factor),
            "max": parse_seconds(self.max),
            "jitter": float(self.jitter),
            "retry_on": [_kind_name(kind) for kind in self.retry_on],
            "no_retry_on": [_kind_name(kind) for kind in self.no_retry_on],
        }


def _kind_name(kind: type[BaseException] | str) -> str:
    return kind if isinstance(kind, str) else kind.__name__


#: Id and attempt of the execution whose task runs in this context, for logging; None outside of tasks.
current_attempt: ContextVar[Sequence[Any] | None] = ContextVar("rhythm_attempt", default=None)


class TaskContext:
    """What a task may know of the attempt it runs in; ask for it with a parameter annotated ``TaskContext``.

    In plain calls and tests pass one yourself: every field has a default.
    """

    __slots__ = (
        "_abandoned",
        "_connection",
        "_key",
        "_logger",
        "_note",
        "attempt",
        "execution_id",
        "name",
        "parent_id",
    )

    def __init__(
        self,
        execution_id: uuid.UUID | None = None,
        *,
        attempt: int = 1,
        parent_id: uuid.UUID | None = None,
        idempotency_key: str | None = None,
        name: str = "task",
        abandoned: Callable[[], str | None] | None = None,
        connection: Any = None,
        note: Callable[[bytes], None] | None = None,
    ) -> None:
        self.execution_id: uuid.UUID = execution_id or uuid.UUID(int=0)  #: this execution
        self.attempt = attempt  #: counted from 1
        self.parent_id = parent_id  #: the workflow that called it, or None
        self.name = name  #: the task's name
        self._key = idempotency_key
        self._abandoned = abandoned
        self._connection = connection
        self._note = note
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt, different for every call: hand it to services that remember requests."""
        return self._key or str(self.execution_id)

    @property
    def connection(self) -> Any:
        """Of a transactional task: the connection whose transaction is committed together with the task's output.

        asyncpg for ``async def`` tasks, psycopg 3 for ``def`` tasks. Leave that transaction open; savepoints are fine.
        Raises RuntimeError in other tasks.
        """
        if self._connection is None:
            raise RuntimeError(
                f"task {self.name!r} has no connection: declare it with @rhythm.task(transactional=True)"
            )
        return self._connection

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logger ``rhythm.task.<name>``, whose records carry ``execution_id`` and ``attempt``."""
        if self._logger is None:
            extra = {"execution_id": str(self.execution_id), "attempt": self.attempt}
            self._logger = logging.LoggerAdapter(logging.getLogger(f"rhythm.task.{self.name}"), extra)
        return self._logger

    def progress(self, value: Any) -> None:
        """Says how far the task is, for whoever looks at the execution: any JSON of at most PROGRESS_BYTES_MAX bytes.

        The newest counts. It is written with the worker's next heartbeat (every sixth of ``heartbeat_timeout``, 5 s by
        default), so saying it often costs next to nothing. Raises InvalidInput or PayloadTooLarge.
        """
        data = encode_payload(value, f"progress of task {self.name!r}", bytes_max=PROGRESS_BYTES_MAX)
        if self._note is not None:
            self._note(data)

    def heartbeat(self) -> None:
        """Says that the task is still at it, and asks whether anybody still wants the result.

        Raises TaskAbandoned when the attempt has timed out, was cancelled, or has been taken over by another
        worker. Call it now and then in a long ``def`` task, which nothing else can stop.
        """
        if self._abandoned is not None and (why := self._abandoned()):
            raise TaskAbandoned(f"{self.name}: {why}")


class TaskAbandoned(Exception):
    """Nobody waits for this attempt any more; raised by ``TaskContext.heartbeat``."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a worker publishes about a task, so that starts elsewhere get its options."""

    name: str
    queue: str
    retries: int
    retry: dict[str, Any]
    timeout_seconds: float | None
    priority: int
    input_schema: dict[str, Any]


class Task(Generic[P, R]):
    """A task: the decorated function with its name and options. Calling it calls the function.

    Made by ``@task``. ``name``, ``queue``, ``retries``, ``retry``, ``timeout_seconds`` (None: no limit) and
    ``priority``, ``transactional`` and ``process`` are what was given there; ``is_async`` tells whether the function is
    ``async def``.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str,
        queue: str,
        retries: int,
        retry: Retry,
        timeout_seconds: float | None,
        priority: int,
        transactional: bool = False,
        process: bool = False,
    ) -> None:
        self.function = function
        self.name = name
        self.queue = queue
        self.retries = retries
        self.retry = retry
        self.timeout_seconds = timeout_seconds
        self.priority = priority
        self.transactional = transactional
        self.process = process
        self.is_async = inspect.iscoroutinefunction(function)
        self.signature = inspect.signature(function)
        self.context_parameter: str | None = None  #: the parameter that takes the TaskContext, once prepared
        self._prepared = False
        self._lock = threading.Lock()
        self._takes_any_name = False
        self._required: frozenset[str] = frozenset()
        self._accepted: frozenset[str] = frozenset()
        self._inputs: TypeAdapter[Any] | None = None
        self._validate: Callable[[bytes], dict[str, Any]] = self._prepare_and_validate
        self._output: TypeAdapter[Any] | None = None
        self._check_parameters()
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(self, attribute, getattr(function, attribute, None))
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name!r}, queue {self.queue!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _find_task, (self.function.__module__, self.function.__qualname__)

    # --- inputs ----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Resolves the annotations and builds the validators. Raises TypeError naming what is wrong with them."""
        with self._lock:
            if not self._prepared:
                self._prepare()
                self._prepared = True

    def bind(self, inputs: bytes) -> dict[str, Any]:
        """The keyword arguments for these inputs, without the context. Raises TaskInputInvalid."""
        try:
            return self._validate(inputs)
        except ValueError as error:  # what pydantic raises; the second look also writes the message
            return self._bind_slowly(inputs, error)

    def registration(self) -> Registration:
        """What workers publish about this task. Raises TypeError when its annotations cannot be resolved."""
        self.prepare()
        return Registration(
            name=self.name,
            queue=self.queue,
            retries=self.retries,
            retry=self.retry.as_dict(),
            timeout_seconds=self.timeout_seconds,
            priority=self.priority,
            input_schema=self.input_schema(),
        )

    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of the inputs. An annotation without one is described as "anything"."""
        from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

        self.prepare()
        assert self._inputs is not None, "prepare() builds the validator"
        try:
            schema = self._inputs.json_schema()
        except (PydanticInvalidForJsonSchema, PydanticUserError):
            names = sorted(self._accepted)
            schema = {"type": "object", "properties": {n: {} for n in names}, "required": sorted(self._required)}
        schema["title"] = self.name
        for name, parameter in self.signature.parameters.items():
            if name in schema.get("properties", {}) and parameter.default is not parameter.empty:
                try:
                    schema["properties"][name]["default"] = json.loads(encode_payload(parameter.default, name))
                except InvalidInput:
                    continue  # a default that JSON cannot hold goes unmentioned
        return schema

    def output_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the output, by the return annotation; None when that says nothing."""
        from rhythm.output_schema import output_schema

        self.prepare()
        return None if self._output is None else output_schema(self._output)

    def _check_parameters(self) -> None:
        where = f"task {self.name!r}"
        if self.process and self.is_async:
            raise TypeError(f"{where}: process=True is for def functions; an async one does not block its worker")
        if self.process and "<locals>" in self.function.__qualname__:
            raise TypeError(f"{where}: with process=True it must stand at the top of a module, to be found by its name")
        if inspect.isgeneratorfunction(self.function) or inspect.isasyncgenfunction(self.function):
            raise TypeError(f"{where}: a generator cannot be a task; return a list")
        for parameter in self.signature.parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise TypeError(f"{where}: inputs are matched by name, so the parameter {parameter} cannot be filled")

    def _prepare(self) -> None:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError
        from typing_extensions import TypedDict  # pydantic refuses the standard one before 3.12

        where = f"task {self.name!r}"
        try:
            hints = typing.get_type_hints(self.function, include_extras=True)
        except (NameError, TypeError, AttributeError) as error:
            raise TypeError(f"{where}: its annotations cannot be resolved: {error}") from error
        fields: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            annotation = hints.get(name, Any)
            if annotation is TaskContext or _is_optional_context(annotation):
                if self.context_parameter is not None:
                    raise TypeError(f"{where}: only one parameter can take the TaskContext")
                self.context_parameter = name
            elif parameter.kind is parameter.VAR_KEYWORD:
                self._takes_any_name = True
            else:
                fields[name] = annotation if parameter.default is parameter.empty else typing.NotRequired[annotation]
        if self.transactional and self.context_parameter is None:
            raise TypeError(
                f"{where}: a transactional task writes through its context's connection; "
                "give it a parameter annotated rhythm.TaskContext"
            )
        self._accepted = frozenset(fields)
        self._required = frozenset(n for n in fields if self.signature.parameters[n].default is inspect.Parameter.empty)
        make_type: Any = TypedDict
        shape = make_type("Inputs", fields)
        shape.__pydantic_config__ = {
            "extra": "allow" if self._takes_any_name else "forbid",
            "arbitrary_types_allowed": True,
            "title": self.name,
        }
        try:
            self._inputs = TypeAdapter(shape)
            self._output = _output_adapter(hints)
        except PydanticUserError as error:
            raise TypeError(f"{where}: its annotations cannot be used: {error.message}") from error
        self._validate = self._inputs.validator.validate_json

    def _prepare_and_validate(self, inputs: bytes) -> dict[str, Any]:
        self.prepare()
        return self._validate(inputs)

    def _bind_slowly(self, inputs: bytes, first: ValueError) -> dict[str, Any]:
        """Second look at inputs that were refused: tells other readings of JSON from inputs that do not fit."""
        from pydantic import ValidationError

        assert self._inputs is not None, "prepare() builds the validator"
        try:
            value = decode_payload(inputs)
        except (ValueError, RecursionError):
            raise TaskInputInvalid(f"inputs of task {self.name!r} are not JSON that can be read: {first}") from None
        if value is None:
            value = {}  # a call without inputs
        if not isinstance(value, dict):
            raise TaskInputInvalid(
                f"inputs of task {self.name!r} must be an object with one field per parameter "
                f"({self._parameters_shown()}), not {_json_kind(value)}"
            )
        try:
            bound: dict[str, Any] = self._inputs.validator.validate_python(value)
        except ValidationError as error:
            raise TaskInputInvalid(self._explain(error)) from None
        return bound

    def _explain(self, error: Any) -> str:
        problems = []
        for problem in error.errors(include_url=False, include_input=False):
            at = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "missing" and len(problem["loc"]) == 1:
                problems.append(f"{at!r} is missing")
            elif problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
                problems.append(f"{at!r} is not one of its parameters")
            else:
                problems.append(f"{at!r}: {problem['msg']}")
        shown = "; ".join(problems[:PROBLEMS_SHOWN_MAX])
        if len(problems) > PROBLEMS_SHOWN_MAX:
            shown += f"; and {len(problems) - PROBLEMS_SHOWN_MAX} more"
        return f"inputs of task {self.name!r} do not match its parameters ({self._parameters_shown()}): {shown}"

    def _parameters_shown(self) -> str:
        shown = [str(p) for n, p in self.signature.parameters.items() if n != self.context_parameter]
        return ", ".join(shown) if shown else "none"

    # --- output ----------------------------------------------------------------------------------

    def encode(self, output: object, *, bytes_max: int = PAYLOAD_BYTES_MAX) -> bytes:
        """The returned value as JSON bytes.

        Raises OutputInvalid with the path of what JSON cannot hold, OutputTooLarge over ``bytes_max``. The
        effect has happened by then, so neither is ever retried.
        """
        if output is None:
            return b"null"
        text: str | None = None
        if self._output is None and type(output) in _PLAIN_TYPES:
            try:
                text = to_text(output)
            except (TypeError, ValueError, RecursionError):
                text = None  # the slow path finds out what it was
        if text is None:
            return self._encode_slowly(output, bytes_max)
        if len(text) > bytes_max:
            raise OutputTooLarge(self._too_large(len(text), bytes_max))
        if len(text) > DEPTH_MAX and _depth(text) > DEPTH_MAX:
            raise OutputInvalid(f"output of task {self.name!r} is nested deeper than {DEPTH_MAX} levels")
        return text.encode("ascii")

    def revive(self, output: Any) -> Any:
        """A JSON-shaped output as what the return annotation says. Raises OutputInvalid when it is something else."""
        self.prepare()
        if self._output is None:
            return output
        try:
            return self._output.validate_python(output)
        except ValueError as error:
            why = " ".join(str(error).split())
            raise OutputInvalid(f"output of task {self.name!r} is not what its annotation says: {why}") from None

    def _encode_slowly(self, output: object, bytes_max: int) -> bytes:
        from pydantic_core import to_jsonable_python

        what = f"output of task {self.name!r}"
        try:
            _refuse_unsafe(output, what, "$", 0)
            if self._output is not None:
                plain = self._output.dump_python(output, mode="json", warnings=False)
            else:
                plain = to_jsonable_python(output)
            return encode_payload(plain, what, bytes_max=bytes_max)
        except PayloadTooLarge:
            raise OutputTooLarge(f"{what} is over the limit of {bytes_max:,} bytes (payload_bytes_max)") from None
        except OutputInvalid:
            raise
        except RecursionError:
            raise OutputInvalid(f"{what} is nested deeper than {DEPTH_MAX} levels, or contains itself") from None
        except (InvalidInput, ValueError, TypeError) as error:  # pydantic's serialisation errors are ValueErrors
            raise OutputInvalid(_one_line(error, what)) from None

    def _too_large(self, size: int, bytes_max: int) -> str:
        return (
            f"output of task {self.name!r} takes {size:,} bytes, over the limit of {bytes_max:,} (payload_bytes_max); "
            "store it elsewhere and return where it is"
        )

    # --- failure ---------------------------------------------------------------------------------

    def is_retryable(self, error: BaseException, policy: Mapping[str, Any] | None = None) -> bool:
        """Whether the retry policy allows another attempt after this error.

        ``policy``: the execution's own, as stored (``Retry.as_dict``); what it leaves out is the decorator's.
        """
        if isinstance(error, NEVER_RETRIED):
            return False
        if isinstance(error, TaskRetryAfter):
            return True
        policy = policy or {}
        never: Sequence[type[BaseException] | str] = policy.get("no_retry_on", self.retry.no_retry_on)
        if _matches(error, never):
            return False
        only: Sequence[type[BaseException] | str] = policy.get("retry_on", self.retry.retry_on)
        return not only or _matches(error, only)

    def invoke(self, inputs: bytes, context: TaskContext | None = None, *, bytes_max: int = PAYLOAD_BYTES_MAX) -> bytes:
        """Runs a ``def`` task from JSON to JSON. Raises what the function raises, and what bind and encode raise."""
        arguments = self.bind(inputs)
        if self.context_parameter is not None:
            arguments[self.context_parameter] = context or TaskContext(name=self.name)
        call: Callable[..., Any] = self.function
        return self.encode(call(**arguments), bytes_max=bytes_max)


# --- the decorator -------------------------------------------------------------------------------


class Registry:
    """The tasks of this process by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}

    def add(self, new: Task[..., Any]) -> None:
        """Registers a task. Raises ValueError when another function has the name already.

        The same function defined again (a reloaded module, a notebook cell) replaces the old one.
        """
        old = self._tasks.get(new.name)
        if old is not None and _identity(old) != _identity(new):
            raise ValueError(
                f"there are two tasks named {new.name!r}: {'.'.join(_identity(old))} and {'.'.join(_identity(new))}; "
                "give one of them another name with @task(name=...)"
            )
        self._tasks[new.name] = new

    def get(self, name: str) -> Task[..., Any] | None:
        """The task of this name, or None."""
        return self._tasks.get(name)

    def remove(self, name: str) -> None:
        """Forgets the task of this name, if there is one."""
        self._tasks.pop(name, None)

    def as_dict(self) -> dict[str, Task[..., Any]]:
        """A copy: name to task."""
        return dict(self._tasks)

    def __iter__(self) -> Iterator[Task[..., Any]]:
        return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)


REGISTRY = Registry()


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    *,
    name: str | None = None,
    queue: str = "default",
    retries: int = 0,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    priority: int = 0,
    transactional: bool = False,
    process: bool = False,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    retries: int = 0,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    priority: int = 0,
    transactional: bool = False,
    process: bool = False,
) -> Any:
    """Makes a function a task that executions can call by name. Use it bare or with options.

    ``name``: default the function's own. ``queue``: default "default". ``retries``: attempts after the first,
    default 0. ``retry``: a Retry, which waits and for which errors. ``timeout``: of one attempt, a number of
    seconds or like "30s"; default none. ``priority``: -100 to 100, higher first, default 0. ``async def``
    functions run on the worker's event loop, ``def`` functions in threads. ``transactional``: the task's writes
    on ``TaskContext.connection`` are committed in one transaction with its output, exactly once; default False.
    ``process``: a ``def`` task that runs in a child process of the worker, which can be killed: at its timeout and when
    it is cancelled; for what holds the interpreter lock, crashes, or cannot be interrupted. Default False.
    Raises TypeError or ValueError when an option or the signature cannot be used.
    """
    if function is not None and not callable(function):
        raise TypeError("@task decorates a function; its options are given by keyword")
    if not isinstance(transactional, bool):
        raise TypeError(f"transactional takes True or False, not {transactional!r}")
    if not isinstance(process, bool):
        raise TypeError(f"process takes True or False, not {process!r}")
    if process and transactional:
        raise TypeError("a task cannot be both transactional and process: a connection cannot be shared with a process")
    options: dict[str, Any] = {
        "queue": _checked_name(queue, "queue"),
        "retries": _checked_whole(retries, "retries", 0, RETRIES_MAX),
        "retry": _checked_retry(retry),
        "timeout_seconds": _checked_timeout(timeout),
        "priority": _checked_whole(priority, "priority", PRIORITY_MIN, PRIORITY_MAX),
        "transactional": transactional,
        "process": process,
    }

    def decorate(target: Callable[..., Any]) -> Task[..., Any]:
        if isinstance(target, Task):
            raise TypeError(f"{target!r} is a task already")
        if not hasattr(target, "__qualname__"):
            raise TypeError("@task decorates a function")
        made: Task[..., Any] = Task(target, name=_checked_name(name or target.__name__, "task name"), **options)
        REGISTRY.add(made)
        return made

    return decorate if function is None else decorate(function)


def _checked_name(value: object, what: str) -> str:
    if not isinstance(value, str) or not value or len(value) > NAME_LENGTH_MAX or "\x00" in value:
        raise ValueError(f"{what} {value!r} cannot be used: text of 1 to {NAME_LENGTH_MAX} characters without U+0000")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{what} {value!r} cannot be used: it holds half of a surrogate pair") from None
    return value


def _checked_whole(value: object, what: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{what} {value!r} is not a whole number from {least} to {most}")
    return value


def _checked_retry(value: object) -> Retry:
    if value is None:
        return Retry()
    if not isinstance(value, Retry):
        raise TypeError(f"retry takes a rhythm.Retry, not {value!r}; the number of attempts is `retries`")
    return value


def _checked_timeout(value: Duration | None) -> float | None:
    if value is None:
        return None
    seconds = parse_seconds(value)
    if seconds <= 0:
        raise ValueError("timeout must be longer than zero")
    return seconds


def _identity(one: Task[..., Any]) -> tuple[str, str]:
    return one.function.__module__, one.function.__qualname__


def _find_task(module: str, qualname: str) -> Any:
    """Unpickling: a task is found where its function is defined, never carried along."""
    import importlib

    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


# --- values --------------------------------------------------------------------------------------

_PLAIN_TYPES = frozenset({dict, list, tuple, str, bool, int, float})


def _is_optional_context(annotation: object) -> bool:
    return TaskContext in typing.get_args(annotation)


def _output_adapter(hints: Mapping[str, Any]) -> TypeAdapter[Any] | None:
    """Serialises by the return annotation; None when that says no more than the value itself does."""
    annotation = hints.get("return", Any)
    origin = typing.get_origin(annotation) or annotation
    if annotation in (Any, object, None, type(None), str, int, float, bool) or origin in (dict, list, Mapping):
        if all(arg in (Any, object, str, int, float, bool) for arg in typing.get_args(annotation)):
            return None
    if annotation in (typing.NoReturn, typing.Never):
        return None
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    return adapter


def _refuse_unsafe(value: object, what: str, path: str, depth: int) -> None:
    """Refuses what pydantic would write as something similar: bytes, sets, NaN and infinities, at any depth."""
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise OutputInvalid(f"{what}: {path} is {float(value)!r}, which JSON cannot hold")
        return
    if isinstance(value, bytes | bytearray | memoryview | set | frozenset):
        raise OutputInvalid(f"{what}: {path} is a {type(value).__name__}, which JSON cannot hold")
    if depth > DEPTH_MAX:
        raise OutputInvalid(f"{what} is nested deeper than {DEPTH_MAX} levels, or contains itself")
    for at, child in _children(value):
        _refuse_unsafe(child, what, path + at, depth + 1)


def _children(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str | int):
                yield f"'s key {key!r}", list(key) if isinstance(key, tuple) else key
            yield f".{key}", item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif hasattr(type(value), "__pydantic_decorators__"):
        own = _self_written(type(value))
        for name, item in vars(value).items():
            if own is not None and name not in own:
                yield f".{name}", item
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name)


def _self_written(kind: Any) -> set[str] | None:
    """Fields of a model that have a serialiser of their own, which is trusted; None when the whole model has one."""
    decorators = kind.__pydantic_decorators__
    if decorators.model_serializers:
        return None
    names = {field for found in decorators.field_serializers.values() for field in found.info.fields}
    for name, field in getattr(kind, "__pydantic_fields__", {}).items():
        if field.exclude or any(type(extra).__name__.endswith("Serializer") for extra in field.metadata):
            names.add(name)
    return names


def _depth(text: str) -> int:
    """Levels of nesting of JSON text. Counts brackets first: text with few of them cannot be deep."""
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return 0
    deepest = depth = 0
    inside = escaped = False
    for character in text:
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _json_kind(value: object) -> str:
    kinds = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "something else")


def _one_line(error: BaseException, what: str) -> str:
    text = " ".join(str(error).split())
    return text if text.startswith(what) else f"{what} cannot be written as JSON: {text}"


def _matches(error: BaseException, kinds: Sequence[type[BaseException] | str]) -> bool:
    if not kinds:
        return False
    names = {kind.__name__ for kind in error.__class__.__mro__}
    return any(kind in names if isinstance(kind, str) else isinstance(error, kind) for kind in kinds)
