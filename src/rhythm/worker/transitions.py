"""One log line for each change in the life of an execution, as key=value, the execution's id first.

Failures and cancellations are logged at INFO, everything that goes well at DEBUG: there are very many of those. The
values are also attributes of the record (``execution_id``, ``attempt``), for structured logging.
"""

from __future__ import annotations

import json
import logging
import re
import uuid

logger = logging.getLogger("rhythm.worker")

VALUE_LENGTH_MAX = 500  #: characters of one value
_BARE = re.compile(r"[^\s\"=]+")


def log_transition(
    level: int, execution_id: uuid.UUID, attempt: int, kind: str, name: str, status: str, **details: object
) -> None:
    """Logs that an execution of the task or workflow ``name`` is now ``status``. Nothing is made that is not logged."""
    if not logger.isEnabledFor(level):
        return
    pairs = {"execution_id": execution_id, "attempt": attempt, kind: name, "status": status, **details}
    text = " ".join(f"{key}={_value(value)}" for key, value in pairs.items() if value is not None)
    logger.log(level, "%s", text, extra={"execution_id": str(execution_id), "attempt": attempt})


def _value(value: object) -> str:
    text = str(value)[:VALUE_LENGTH_MAX]
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
