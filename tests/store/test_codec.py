"""Snapshots as they are stored: compressed where that pays, old rows readable, damage and bombs refused."""

from __future__ import annotations

import random
import zlib

import pytest

from rhythm.errors import SnapshotError
from rhythm.model import SNAPSHOT_BYTES_MAX
from rhythm.store.codec import CHECKED_CODEC, COMPRESSED_FROM, ZLIB_CODEC, pack_snapshot, unpack_snapshot

TEXT = b"\x99" + b'{"sku": "tea", "n": 1}' * 10_000
NOISE = b"\x99" + random.Random(1).randbytes(20_000)


@pytest.mark.parametrize("size", [1, COMPRESSED_FROM - 1, COMPRESSED_FROM, 100_000])
def test_what_is_packed_is_unpacked(size: int) -> None:
    stored = pack_snapshot(TEXT[:size])

    assert TEXT[:size] == unpack_snapshot(stored) == unpack_snapshot(TEXT[:size])  # as earlier releases stored it
    assert (ZLIB_CODEC if size >= COMPRESSED_FROM else CHECKED_CODEC) == stored[:1]


def test_what_does_not_shrink_is_not_compressed() -> None:
    assert NOISE == pack_snapshot(NOISE)[5:] == unpack_snapshot(pack_snapshot(NOISE))


def test_a_large_snapshot_fits_beside_its_columns() -> None:
    """Rows of 4,080 bytes and more leave their page."""
    assert len(pack_snapshot(TEXT[:16_000])) < 3_000


@pytest.mark.parametrize("form", [b"", b"\x01{}", b"\x04later", b"\x7f"])
def test_another_form_is_refused(form: bytes) -> None:
    with pytest.raises(SnapshotError, match="which this release cannot read"):
        unpack_snapshot(form)


@pytest.mark.parametrize("snapshot", [TEXT, TEXT[:400]], ids=["compressed", "plain"])
def test_damage_is_refused(snapshot: bytes) -> None:
    stored = pack_snapshot(snapshot)
    rng = random.Random(2)
    damaged = [stored[:end] for end in range(1, len(stored), 97)] + [stored + b"x"]
    for _ in range(300):
        place = rng.randrange(1, len(stored))
        damaged.append(stored[:place] + bytes([stored[place] ^ 1 << rng.randrange(8)]) + stored[place + 1 :])
    for data in damaged:
        with pytest.raises(SnapshotError, match="damaged"):
            unpack_snapshot(data)


def test_what_expands_beyond_the_limit_is_refused_without_expanding_all_of_it() -> None:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    bomb = ZLIB_CODEC + b"".join(packer.compress(block) for _ in range((SNAPSHOT_BYTES_MAX >> 20) + 4)) + packer.flush()

    assert len(bomb) < 100_000
    with pytest.raises(SnapshotError, match="expands to more than the limit of 67,108,864 bytes"):
        unpack_snapshot(bomb)
