"""Ids: unique, in order, and never the same in a forked child."""

from __future__ import annotations

import os
import uuid

from rhythm.model import new_id, new_ids


def test_ids_of_one_process_are_increasing_and_of_version_seven() -> None:
    ids = [new_id() for _ in range(10_000)]

    assert ids == sorted(set(ids))
    assert {(i.version, i.variant) for i in ids} == {(7, "specified in RFC 4122")}


def test_ids_made_together_are_in_order_with_those_made_singly() -> None:
    ids = [new_id(), *new_ids(5000), new_id(), *new_ids(0), *new_ids(1), new_id()]

    assert sorted(ids) == ids
    assert len(set(ids)) == 5004
    assert {(i.version, i.variant) for i in ids} == {(7, uuid.RFC_4122)}
    assert len({i.int & (1 << 62) - 1 for i in ids}) == 5004


def test_a_forked_child_makes_other_random_bits() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"".join(new_id().bytes for _ in range(100)))
        finally:
            os._exit(0)
    os.close(writing)
    mine = [new_id() for _ in range(100)]
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    theirs = [data[i : i + 16] for i in range(0, len(data), 16)]

    assert len(theirs) == 100
    assert {i[8:] for i in theirs}.isdisjoint(i.bytes[8:] for i in mine)
