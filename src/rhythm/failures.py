"""An exception as the error of an execution: what is stored of it, within limits, whatever it is.

    {"name", "message", "type", "attempts", "retryable", "traceback"?, "data"?, "cause"?: {"name", "message", "cause"?}}

Nothing here raises: objects of other people are asked for their text, and what cannot be said is left out.
"""

from __future__ import annotations

import json
import traceback as traceback_module
from typing import Any

from rhythm.payloads import encode as encode_payload

TRACEBACK_LENGTH_MAX = 16 * 1024  #: characters of a stored traceback; the innermost part is kept
MESSAGE_LENGTH_MAX = 16 * 1024  #: characters of a stored error message
DATA_BYTES_MAX = 256 * 1024  #: bytes of an exception's ``data``; larger data is left out, and the error says so
CAUSES_MAX = 8  #: exceptions of a cause chain that are stored
CAUSE_MESSAGE_LENGTH_MAX = 2 * 1024  #: characters of a cause's message
_OWN_MODULES = ("rhythm.worker.", "rhythm.tasks")  # whose frames say nothing about a task
_NAMES_OF_KINDS = {"timeout": "TimeoutError", "cancelled": "CancelledError"}


def failure_payload(error: BaseException, *, kind: str = "failed", attempts: int = 1, retryable: bool = False) -> bytes:
    """An exception as the error of an execution: JSON with name, message, type, attempts, traceback, data and causes.

    ``kind`` becomes its type: "failed", "timeout" or "cancelled"; the last two also name it, as workflows catch them.
    ``retryable``: whether the policy would allow another attempt after it, if any were left.
    Never raises: what cannot be said is left out.
    """
    payload: dict[str, Any] = {
        "name": _NAMES_OF_KINDS.get(kind) or error.__class__.__name__,
        "message": _message(error, MESSAGE_LENGTH_MAX),
        "type": kind,
        "attempts": attempts,
        "retryable": retryable,
    }
    if text := _traceback(error):
        payload["traceback"] = text
    data = getattr(error, "data", None)
    if data is not None:
        try:
            payload["data"] = json.loads(encode_payload(data, "data", bytes_max=DATA_BYTES_MAX))
        except Exception:  # noqa: BLE001 - foreign objects; the error itself must get through
            payload["data_omitted"] = f"its data is not JSON of at most {DATA_BYTES_MAX:,} bytes"
    cause = _cause(error, 0)
    if cause is not None:
        payload["cause"] = cause
    return json.dumps(payload, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _message(error: BaseException, length_max: int) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the failure
        text = "(its message cannot be shown)"
    if not isinstance(error, Exception):  # SystemExit and its like: "3" alone would not say what happened
        text = f"the task raised {error.__class__.__name__}{': ' if text else ''}{text}"
    return text if len(text) <= length_max else text[:length_max] + "…"


def _cause(error: BaseException, depth: int) -> dict[str, Any] | None:
    found = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if found is None or found is error or depth >= CAUSES_MAX:
        return None
    entry: dict[str, Any] = {
        "name": found.__class__.__name__,
        "message": _message(found, CAUSE_MESSAGE_LENGTH_MAX),
    }
    deeper = _cause(found, depth + 1)
    if deeper is not None:
        entry["cause"] = deeper
    return entry


def _traceback(error: BaseException) -> str | None:
    """The traceback's text without the worker's own frames in front; its innermost part when it is long."""
    frames = error.__traceback__
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__", "")).startswith(_OWN_MODULES):
        frames = frames.tb_next
    if frames is None:
        return None  # raised by Rhythm itself: the message says it all
    try:
        text = "".join(traceback_module.format_exception(error.__class__, error, frames))
    except Exception:  # noqa: BLE001 - foreign __str__ and __repr__ run in there
        return None
    if len(text) > TRACEBACK_LENGTH_MAX:
        text = "…" + text[-(TRACEBACK_LENGTH_MAX - 1) :]
    return text
