"""Values on their way into Postgres and back: payloads, snapshots, texts.

Payloads carry one codec byte in the database: 1 is ASCII JSON. Nobody above the store sees it.

Snapshots have a byte in front as well, and a sum over their bytes that tells when a stored one was damaged:

    2 zlib                          its own sum is Adler-32
    3 CRC-32 (4 bytes) msgpack
    msgpack                         as earlier releases wrote it: it begins with 0x90 or more

Compressing and expanding takes time, so the worker does it on its activation thread, and the store hands through what
is stored. All forms can be read for ever; beside live workers of earlier releases the last one is still written.

What it costs, and where it pays (zlib level 1, minimum of many runs, 2026-11; Postgres: one update of the row, from and
to rows of random bytes, toast_tuple_target 4080; an order with items, texts of a chat, random UUIDs):

    snapshot       bytes   compressed   compress   expand   Postgres plain   WAL plain
    order, 5       1,035          599      11 µs     4 µs             6 µs       0.9 kB
    order, 20      2,097          864      13 µs     6 µs             8 µs       1.6 kB
    order, 40      3,517        1,142      15 µs     8 µs            16 µs       2.6 kB
    order, 60      4,937        1,378      17 µs     9 µs            44 µs       5.9 kB
    chat, 20       7,631        2,281      26 µs    14 µs            87 µs       9.3 kB
    UUIDs, 200     7,899        4,752      58 µs    28 µs            87 µs       9.3 kB
    chat, 80      29,865        7,765     157 µs    68 µs           380 µs      36   kB
    order, 4,000 291,577       55,824    1.1 ms   0.4 ms           3.6 ms     320   kB

Below some 3,500 bytes compressing and expanding take more than Postgres saves; from about 3,900 on a plain one moves
out of its row. A whole step through worker and socket takes as long either way (0.95 to 1.05 of it, at 5 and at 24 kB):
what is saved is disk and write-ahead log. Levels 2 to 6 make it a few per cent smaller, for up to ten times the time.
"""

from __future__ import annotations

import zlib

from rhythm.errors import InvalidInput, SchemaMismatch, SnapshotError
from rhythm.model import SNAPSHOT_BYTES_MAX

JSON_CODEC = b"\x01"
ZLIB_CODEC = b"\x02"  #: of snapshots, as the next
CHECKED_CODEC = b"\x03"
COMPRESSED_FROM = 3_500  #: bytes of the smallest snapshot that is compressed
COMPRESSED_SHARE_MAX = 0.75  #: of its size; a snapshot that does not shrink so far stays as it is
_PLAIN_FROM = 0x90  # first byte of a msgpack list


def pack(payload: bytes) -> bytes:
    """The payload as it is stored."""
    return JSON_CODEC + payload


def unpack(stored: bytes) -> bytes:
    """The payload of what is stored. Raises SchemaMismatch for a codec of a later release."""
    if stored[:1] != JSON_CODEC:
        raise SchemaMismatch(f"a payload is stored in form {stored[:1].hex()}, which this release cannot read")
    return stored[1:]


def pack_snapshot(snapshot: bytes) -> bytes:
    """The snapshot as it is stored: compressed where that pays."""
    if len(snapshot) >= COMPRESSED_FROM:
        compressed = zlib.compress(snapshot, 1)
        if len(compressed) < len(snapshot) * COMPRESSED_SHARE_MAX:
            return ZLIB_CODEC + compressed
    return CHECKED_CODEC + zlib.crc32(snapshot).to_bytes(4) + snapshot


def unpack_snapshot(stored: bytes) -> bytes:
    """The snapshot of what is stored.

    Raises SnapshotError for what is damaged, expands beyond SNAPSHOT_BYTES_MAX, or is of a form of a later release.
    """
    codec = stored[:1]
    if codec == CHECKED_CODEC:
        snapshot = stored[5:]
        if not snapshot or zlib.crc32(snapshot) != int.from_bytes(stored[1:5]):
            raise SnapshotError("the snapshot is damaged: its sum is not that of its bytes")
        return snapshot
    if codec == ZLIB_CODEC:
        return _expanded(memoryview(stored)[1:])
    if stored and stored[0] >= _PLAIN_FROM:
        return stored
    raise SnapshotError(f"the snapshot is stored in form {codec.hex() or 'none'}, which this release cannot read")


def _expanded(data: memoryview) -> bytes:
    expander = zlib.decompressobj()
    try:
        snapshot = expander.decompress(data, SNAPSHOT_BYTES_MAX + 1)
    except zlib.error:
        raise SnapshotError("the snapshot is damaged: it cannot be expanded") from None
    if len(snapshot) > SNAPSHOT_BYTES_MAX:
        raise SnapshotError(f"the snapshot expands to more than the limit of {SNAPSHOT_BYTES_MAX:,} bytes")
    if not expander.eof or expander.unused_data:
        raise SnapshotError("the snapshot is damaged: it ends too early, or too late")
    return snapshot


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
