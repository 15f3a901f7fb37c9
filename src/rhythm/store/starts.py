"""Starts as arguments of rhythm.start_many, and its answer as results."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

from rhythm.errors import InvalidInput
from rhythm.model import START_COUNT_MAX, NewExecution, NewSignal, StartResult
from rhythm.store.codec import JSON_CODEC, pack, text
from rhythm.store.marshal import distinct, json_text, kind_code, milliseconds, or_none

START_TYPES: Final = (
    "uuid[]", "bytea[]", "integer[]", "smallint[]", "text[]", "integer[]", "text[]", "integer[]", "timestamptz[]",
    "double precision[]", "text[]", "smallint[]", "integer[]", "text[]", "bigint[]", "text[]", "text[]",
    "text[]", "bytea[]", "uuid[]", "text[]",
)  # fmt: skip
_POLICY_CODES: Final = {"return": 1, "reject": 2, "replace": 3, "after_failure": 4}
_STATUSES: Final = ("", "started", "existing", "replaced", "key_conflict", "key_taken")


def start_arguments(starts: Sequence[NewExecution]) -> list[Any]:
    """The arguments of one call, of the types START_TYPES. Raises InvalidInput for more than START_COUNT_MAX."""
    if len(starts) > START_COUNT_MAX:
        raise InvalidInput(f"{len(starts)} executions in one start: at most {START_COUNT_MAX}")
    name, pairs = distinct((kind_code(s.kind), s.name) for s in starts)
    queue, queues = distinct(s.queue for s in starts)
    keyed = any(s.key is not None for s in starts)
    return [
        [s.id for s in starts],
        [JSON_CODEC + s.inputs for s in starts],
        name,
        [kind for kind, _ in pairs],
        [text(n, "name") for _, n in pairs],
        or_none(queue),
        [text(q, "queue") for q in queues] or None,
        or_none([s.priority for s in starts]),
        or_none([s.available_at for s in starts]),
        or_none([s.delay_seconds for s in starts]),
        [None if s.key is None else text(s.key, "key") for s in starts] if keyed else None,
        [_POLICY_CODES[s.key_policy] for s in starts] if keyed else None,
        or_none([s.retries for s in starts]),
        or_none([json_text(s.retry) for s in starts]),
        or_none([milliseconds(s.timeout_seconds) for s in starts]),
        or_none([json_text(s.tags) for s in starts]),
        or_none([s.definition_hash for s in starts]),
        *_signals([s.signal for s in starts]),
        or_none([None if s.limit_key is None else text(s.limit_key, "limit key") for s in starts]),
    ]


def _signals(signals: Sequence[NewSignal | None]) -> list[Any]:
    if not any(signals):
        return [None, None, None]
    return [
        [None if s is None else text(s.name, "name") for s in signals],
        [None if s is None else pack(s.payload) for s in signals],
        [None if s is None else s.send_id for s in signals],
    ]


def start_results(ids: Sequence[uuid.UUID], statuses: Sequence[int]) -> list[StartResult]:
    """What became of each start, in order."""
    return [
        StartResult(id_, _STATUSES[status]) if status <= 3 else StartResult(id_, "refused", _STATUSES[status])
        for id_, status in zip(ids, statuses, strict=True)
    ]
