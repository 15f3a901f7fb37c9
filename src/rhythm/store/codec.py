"""Values on their way into Postgres and back: payloads, texts.

Payloads carry one codec byte in the database: 1 is ASCII JSON. Nobody above the store sees it.
"""

from __future__ import annotations

from rhythm.errors import InvalidInput, SchemaMismatch

JSON_CODEC = b"\x01"


def pack(payload: bytes) -> bytes:
    """The payload as it is stored."""
    return JSON_CODEC + payload


def unpack(stored: bytes) -> bytes:
    """The payload of what is stored. Raises SchemaMismatch for a codec of a later release."""
    if stored[:1] != JSON_CODEC:
        raise SchemaMismatch(f"a payload is stored in form {stored[:1].hex()}, which this release cannot read")
    return stored[1:]


def text(value: str, what: str) -> str:
    """The text as Postgres can hold it: pairs of surrogates joined. Raises InvalidInput for what it cannot hold."""
    if value.isascii():
        if "\0" not in value:
            return value
        raise InvalidInput(f"the {what} {value!r:.100} holds U+0000")
    try:
        joined = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise InvalidInput(f"the {what} {value!r:.100} holds half a character (a lone surrogate)") from None
    if "\0" in joined:
        raise InvalidInput(f"the {what} {value!r:.100} holds U+0000")
    return joined
