"""From what a caller asks for to the record that the store writes, with every check that needs no database."""

from __future__ import annotations

import functools
import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict

import msgspec

from rhythm import payloads
from rhythm.durations import Duration, parse_seconds
from rhythm.errors import InvalidInput, StartRefused
from rhythm.model import (
    NAME_LENGTH_MAX,
    PAYLOAD_BYTES_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    START_COUNT_MAX,
    NewExecution,
    NewSignal,
    StartResult,
    new_id,
    new_ids,
)
from rhythm.tasks import Retry, Task

KEY_POLICIES = ("return", "reject", "replace", "after_failure")
KEY_LENGTH_MAX = 500  #: characters of an idempotency key
TAGS_BYTES_MAX = 16 * 1024  #: bytes of an execution's tags as JSON
RETRIES_MAX = 1_000_000
_NO_INPUTS = b"{}"


class StartOptions(TypedDict, total=False):
    """The options of a start; what is not given comes from the task's registration, or is the default."""

    key: str | None  #: Idempotency key, unique per name. Default none.
    key_policy: str  #: What a taken key does: one of KEY_POLICIES. Default "return".
    queue: str | None  #: Default: the task's registered queue, else "default".
    priority: int | None  #: −100 … 100, higher first. Default 0.
    delay: Duration | None  #: Wait this long before the first attempt.
    at: datetime | None  #: Or: not before this moment (with a time zone).
    retries: int | None  #: Reported failures that are followed by another attempt. Default 0.
    retry: Retry | None  #: Waits between them, and for which errors; a list left empty is the registration's.
    timeout: Duration | None  #: Longest one attempt may take. Default none.
    tags: Mapping[str, Any] | None  #: Small JSON object to find executions by.
    id: uuid.UUID | None  #: The execution's id, if the caller mints it (then a repeated start is harmless).
    signal: str | None  #: Send this signal as well: to the execution that runs under the key, or to the new one.
    signal_payload: Any  #: Its payload. Default null.
    send_id: uuid.UUID | None  #: Its send id, if the caller mints it.
    limit_key: str | None  #: What it counts for in the limits of keys of its queue, like a customer's id. Default none.


class Start(msgspec.Struct, frozen=True, gc=False):
    """One entry for ``start_many``: a name (or a task), its inputs, and the options of ``start`` (StartOptions)."""

    name: str | Task[..., Any]
    inputs: Mapping[str, Any] | None = None
    key: str | None = None
    key_policy: str = "return"
    queue: str | None = None
    priority: int | None = None
    delay: Duration | None = None
    at: datetime | None = None
    retries: int | None = None
    retry: Retry | None = None
    timeout: Duration | None = None
    tags: Mapping[str, Any] | None = None
    id: uuid.UUID | None = None
    signal: str | None = None
    signal_payload: Any = None
    send_id: uuid.UUID | None = None
    limit_key: str | None = None


def check_name(name: object, what: str) -> str:
    """The name, if it is a usable one. Raises InvalidInput."""
    if not isinstance(name, str) or not _usable(name):
        raise InvalidInput(f"{name!r:.100} is not a {what}: it must be text of 1 to {NAME_LENGTH_MAX} characters")
    return name


@functools.lru_cache(maxsize=1024)  # few different ones come with very many starts
def _usable(name: str) -> bool:
    return 0 < len(name) <= NAME_LENGTH_MAX and "\0" not in name and _encodable(name)


def _given(retry: Retry) -> dict[str, Any]:
    return {field: value for field, value in retry.as_dict().items() if value != []}


def new_execution(start: Start, *, bytes_max: int = PAYLOAD_BYTES_MAX, fresh: uuid.UUID | None = None) -> NewExecution:
    """The record of one start. Raises InvalidInput (or PayloadTooLarge) for what can never work.

    ``fresh``: the id to use unless the start brings its own; default a new one.
    """
    if isinstance(start.name, Task):
        name, kind = start.name.name, "task"
    else:
        name, kind = check_name(start.name, "name of a workflow or task"), None
    inputs = start.inputs
    if inputs is None:
        data = _NO_INPUTS
    elif inputs.__class__ is dict or isinstance(
        inputs, Mapping
    ):  # the class first: asking Mapping takes ten times as long
        data = payloads.encode(inputs, f"inputs of {name!r}", bytes_max=bytes_max)
    else:
        raise InvalidInput(f"inputs of {name!r} must be an object (a dict), not {type(inputs).__name__}")
    if kind is None and start.key is None and start.tags is None and _plain(start):
        queue = None if start.queue is None else check_name(start.queue, "queue")
        return NewExecution(id=start.id or fresh or new_id(), name=name, inputs=data, queue=queue)
    return NewExecution(
        id=start.id or fresh or new_id(),
        name=name,
        kind=kind,
        inputs=data,
        queue=None if start.queue is None else check_name(start.queue, "queue"),
        priority=_priority(start.priority),
        delay_seconds=None if start.delay is None else parse_seconds(start.delay),
        available_at=_moment(start),
        key=_key(start.key),
        key_policy=_policy(start.key_policy),
        retries=_retries(start.retries),
        retry=None if start.retry is None else _given(start.retry),
        timeout_seconds=None if start.timeout is None else _timeout(start.timeout),
        tags=None if start.tags is None else _tags(start.tags),
        signal=_signal(start, bytes_max),
        limit_key=_limit_key(start.limit_key),
    )


def new_executions(starts: Iterable[Start], *, bytes_max: int) -> list[list[NewExecution]]:
    """The records of many starts, all of them checked, in portions of one round trip each."""
    given = list(starts)
    records = [
        new_execution(start, bytes_max=bytes_max, fresh=fresh)
        for start, fresh in zip(given, new_ids(len(given)), strict=True)
    ]
    return [records[first : first + START_COUNT_MAX] for first in range(0, len(records), START_COUNT_MAX)]


def started(records: Iterable[NewExecution], results: Sequence[StartResult]) -> list[uuid.UUID]:
    """The ids that stand for these starts. Raises StartRefused for the first one that was refused."""
    for record, result in zip(records, results, strict=True):
        check_not_refused(record, result)
    return [result.id for result in results]


def check_not_refused(record: NewExecution, result: StartResult) -> None:
    """Raises StartRefused when the start was refused for its key's sake."""
    if result.status == "refused":
        why = "with other inputs" if result.code == "key_conflict" else "and the key policy is to reject that"
        raise StartRefused(
            f"the key {record.key!r} of {record.name!r} belongs to execution {result.id}, {why}",
            code=result.code or "refused",
        )


def _plain(start: Start) -> bool:
    return (
        start.key_policy == "return"
        and start.priority is None
        and start.delay is None
        and start.at is None
        and start.retries is None
        and start.retry is None
        and start.timeout is None
        and start.signal is None
        and start.send_id is None
        and start.signal_payload is None
        and start.limit_key is None
    )


def _encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _priority(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not PRIORITY_MIN <= value <= PRIORITY_MAX:
        raise InvalidInput(f"priority {value!r} is not a whole number from {PRIORITY_MIN} to {PRIORITY_MAX}")
    return value


def _moment(start: Start) -> datetime | None:
    at: object = start.at
    if at is None:
        return None
    if start.delay is not None:
        raise InvalidInput("give either delay or at, not both")
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise InvalidInput("at must be a datetime with a time zone, for example datetime.now(timezone.utc)")
    return at


def _key(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= KEY_LENGTH_MAX or "\0" in value or not _encodable(value):
        raise InvalidInput(f"{value!r:.100} is not a key: it must be text of 1 to {KEY_LENGTH_MAX} characters")
    return value


def _limit_key(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _usable(value):
        raise InvalidInput(f"{value!r:.100} is not a limit key: it must be text of 1 to {NAME_LENGTH_MAX} characters")
    return value


def _policy(value: str) -> str:
    if value not in KEY_POLICIES:
        raise InvalidInput(f"key_policy {value!r} is not one of {', '.join(KEY_POLICIES)}")
    return value


def _retries(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= RETRIES_MAX:
        raise InvalidInput(f"retries {value!r} is not a whole number from 0 to {RETRIES_MAX:,}")
    return value


def _timeout(value: Duration) -> float:
    seconds = parse_seconds(value)
    if not seconds > 0 or not math.isfinite(seconds):
        raise InvalidInput(f"timeout {value!r} must be longer than nothing")
    return seconds


def _signal(start: Start, bytes_max: int) -> NewSignal | None:
    if start.signal is None:
        if start.signal_payload is not None or start.send_id is not None:
            raise InvalidInput("signal_payload and send_id belong to a signal: give its name as signal")
        return None
    if start.key_policy != "return":
        raise InvalidInput(
            f"key_policy {start.key_policy!r} does not go with signal: that is for whoever runs under the key"
        )
    if isinstance(start.name, Task):
        raise InvalidInput(f"{start.name!r} takes no signal: only workflows do")
    check_name(start.signal, "name of a signal")
    data = payloads.encode(start.signal_payload, f"payload of signal {start.signal!r}", bytes_max=bytes_max)
    return NewSignal(start.signal, data, start.send_id or new_id())


def _tags(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"tags must be an object (a dict), not {type(value).__name__}")
    data = payloads.encode(value, "tags", bytes_max=TAGS_BYTES_MAX)
    plain: dict[str, Any] = json.loads(data)
    if b"\\u0000" in data or b"\\ud" in data.lower():
        for text in _texts(plain):
            if "\0" in text or not _encodable(text):
                raise InvalidInput(f"tags hold the text {text!r:.60}, which the database cannot index")
    return plain


def _texts(value: Any) -> list[str]:
    found: list[str] = []
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            found.extend(item)
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
    return found
