"""Small records and names that several layers share; nothing that has a better home.

Ids are UUIDs of version 7, minted by whoever makes the request, so that a start or a signal whose
answer was lost can be repeated unchanged. They order nothing.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

PROTOCOL_VERSION = 1  #: version of the SQL functions that adapters speak
PAYLOAD_BYTES_MAX = 1024 * 1024  #: default limit of one payload, bytes of JSON
PRIORITY_MIN, PRIORITY_MAX = -100, 100
NAME_LENGTH_MAX = 200  #: characters of a task's, workflow's, queue's or signal's name

STATUSES = ("pending", "running", "suspended", "completed", "failed", "cancelled")
FINISHED = frozenset({"completed", "failed", "cancelled"})
KINDS = ("task", "workflow")

_lock = threading.Lock()
_last_stamp = 0


def new_id() -> uuid.UUID:
    """A fresh UUID of version 7 (RFC 9562): 48 bits of milliseconds, 12 bits that keep order, 62 random bits.

    Ids made by one process are strictly increasing, which keeps database pages warm.
    """
    global _last_stamp
    stamp = time.time_ns() * 4096 // 1_000_000  # 4096 steps in each millisecond
    with _lock:
        if stamp <= _last_stamp:
            stamp = _last_stamp + 1
        _last_stamp = stamp
    random_bits = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    value = (stamp >> 12 << 80) | (0x7 << 76) | ((stamp & 0xFFF) << 64) | (0x2 << 62) | random_bits
    return uuid.UUID(int=value)


@dataclass(frozen=True, slots=True)
class ExecutionInfo:
    """What is known of one execution at one moment."""

    id: uuid.UUID
    kind: str  #: "task" or "workflow"
    name: str
    status: str  #: one of STATUSES
    reason: str | None  #: why it is pending ("ready", "later", "retry", "unknown task", …), else None
    queue: str
    priority: int
    key: str | None
    tags: dict[str, Any] | None
    inputs: bytes  #: JSON
    output: bytes | None  #: JSON when completed
    error: bytes | None  #: JSON when failed or cancelled
    attempts: int
    lost: int
    parent_id: uuid.UUID | None
    root_id: uuid.UUID
    definition_hash: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    available_at: datetime | None  #: for a pending execution that waits for its time


# --- store records -------------------------------------------------------------------------------
