"""Damaged snapshots: whatever was done to one, reading it is an error or gives a state, in bounded time and memory.

What is stored carries a sum over its bytes, so damage is told there; here somebody has got past that.
"""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rhythm import inspection
from rhythm.engine import activate
from rhythm.errors import SnapshotError
from rhythm.language import snapshot as snapshots
from rhythm.language.snapshot_json import to_json_value
from rhythm.model import Delivery
from rhythm.store.codec import pack_snapshot, unpack_snapshot
from rhythm.worker.watchdog import Watchdog, run_with_large_stack
from tests.language.test_snapshot import STATES, fresh_realm, suspended
from tests.support.activations import Driver

BUDGET_SECONDS = 1.0  #: of the activation that goes on from a damaged state
MEMORY_MAX = 64 << 20  #: bytes that reading one takes; all samples have less than 2 kB
SAMPLES = {name: suspended(name) for name in STATES}
ODD: list[Any] = [
    None, True, False, -3, -2, -1, 0, 1, 2, 3, 5, 7, 12, 10**6, 2**63, 0.0, 1.5, float("nan"), float("inf"), "", "x",
    "all", "Error", "array values", b"\xff", b"", [], {}, [0], [1.0, "a"], {"a": 0}, [3, 0, []], [4, 0, 0, [], [], 0],
    [5, 0, -1, None, True], [14, [0, 1.0]], [16, "array values", [], 2**62], [20, 2**24],
]  # fmt: skip


def holders(fields: list[Any]) -> list[tuple[Any, Any]]:
    """Every place in a tree: what holds it, and its key there."""
    found: list[tuple[Any, Any]] = []
    pending: list[Any] = [fields]
    while pending:
        holder = pending.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        found += [(holder, key) for key in keys]
        pending += [holder[key] for key in keys if isinstance(holder[key], dict | list)]
    return found


def put_odd(holder: Any, key: Any, other: Any, odd: Any) -> None:
    holder[key] = copy.deepcopy(odd)


def put_other(holder: Any, key: Any, other: Any, odd: Any) -> None:
    holder[key] = copy.deepcopy(other)


def refer_beside(holder: Any, key: Any, other: Any, odd: Any) -> None:
    if type(holder[key]) is int:
        holder[key] += 1 if odd else -1


def insert(holder: Any, key: Any, other: Any, odd: Any) -> None:
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(odd))


def remove(holder: Any, key: Any, other: Any, odd: Any) -> None:
    del holder[key]


def swap(holder: Any, key: Any, other: Any, odd: Any) -> None:
    if isinstance(holder, list):
        holder[key], holder[-1] = holder[-1], holder[key]


CHANGES: list[Callable[[Any, Any, Any, Any], None]] = [put_odd, put_other, refer_beside, insert, remove, swap]


@st.composite
def damaged_trees(draw: st.DrawFn) -> tuple[str, bytes]:
    """A sample whose msgpack is sound, but not what it says."""
    name = draw(st.sampled_from(list(SAMPLES)))
    fields = msgspec.msgpack.decode(SAMPLES[name][1])
    for _ in range(draw(st.integers(1, 3))):
        places = holders(fields)
        holder, key = draw(st.sampled_from(places))
        other_holder, other_key = draw(st.sampled_from(places))
        draw(st.sampled_from(CHANGES))(holder, key, other_holder[other_key], draw(st.sampled_from(ODD)))
    return name, msgspec.msgpack.encode(fields)


@st.composite
def damaged_bytes(draw: st.DrawFn) -> tuple[str, bytes]:
    """A sample with bytes changed, put in or cut out."""
    name = draw(st.sampled_from(list(SAMPLES)))
    return name, draw(changed(SAMPLES[name][1]))


@st.composite
def changed(draw: st.DrawFn, whole: bytes) -> bytes:
    data = whole
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        cut = draw(st.integers(0, 8))
        data = data[:place] + draw(st.binary(max_size=6)) + data[place + cut :]
    return data


def go_on(driver: Driver, data: bytes) -> None:
    """One more activation: it ends in any way but by itself never, and never with the process."""
    realm = fresh_realm()
    snapshots.decode(driver.program, data, realm)
    deliveries = [Delivery(10**6, "completed", number, None, b"7") for number in list(realm.operations)[:2]]
    watchdog = Watchdog(BUDGET_SECONDS)
    try:
        watchdog.run(
            lambda: activate(driver.program, environment=driver.environment, snapshot=data, deliveries=deliveries)
        )
    except Exception:  # noqa: BLE001 - a state that no program can reach; a worker makes an EngineError of it
        pass
    finally:
        watchdog.close()


def check(name: str, data: bytes) -> None:
    driver, _ = SAMPLES[name]
    realm = fresh_realm()
    try:
        _, root = snapshots.decode(driver.program, data, realm)
    except SnapshotError:
        return
    written = snapshots.encode(realm, root)
    again = fresh_realm()
    _, root = snapshots.decode(driver.program, written, again)
    assert written == snapshots.encode(again, root)
    to_json_value(driver.program, data)
    inspection.inspect(driver.program, data)
    run_with_large_stack(lambda: go_on(driver, data))


SETTINGS = settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.filterwarnings("ignore:The recursion limit will not be reset")  # activations need another
@SETTINGS
@given(damaged_trees())
def test_a_tree_that_was_changed_is_refused_or_is_a_state(sample: tuple[str, bytes]) -> None:
    check(*sample)


@pytest.mark.filterwarnings("ignore:The recursion limit will not be reset")
@SETTINGS
@given(damaged_bytes())
def test_bytes_that_were_changed_are_refused_or_are_a_state(sample: tuple[str, bytes]) -> None:
    check(*sample)


@SETTINGS
@given(st.data())
def test_damage_to_what_is_stored_is_told(data: st.DataObject) -> None:
    """With its sum, nothing that was changed is ever taken for a state."""
    name = data.draw(st.sampled_from(list(SAMPLES)))
    driver, snapshot = SAMPLES[name]
    stored = pack_snapshot(snapshot)
    damaged = data.draw(changed(stored))
    try:
        read = unpack_snapshot(damaged)
        snapshots.decode(driver.program, read, fresh_realm())
    except SnapshotError:
        return
    assert read == snapshot


@pytest.mark.parametrize(
    "data",
    [
        b"\x99\x01" + b"\xdd\xff\xff\xff\xff" * 9,  # arrays of four thousand million elements
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x99" + b"\x91" * 1_000_000,
        b"\x81" * 1_000_000,
        b"\x99\x01\xc4\x10" + bytes(16) + b"\x01\xc2\x80\x00\x90\x90" + b"\xdd\x00\x0f\x42\x40",
    ],
)
def test_lengths_and_depths_that_are_not_there_take_no_memory(data: bytes) -> None:
    driver, _ = SAMPLES["values"]
    tracemalloc.start()
    try:
        with pytest.raises(SnapshotError):
            snapshots.decode(driver.program, data, fresh_realm())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < MEMORY_MAX


@pytest.mark.parametrize(("function_id", "await_id"), [(1.0, 0), (1, 0.0), (True, 0), (1, False), (-1, 0), (1, -1)])
def test_the_ids_of_a_frame_are_whole_numbers(function_id: Any, await_id: Any) -> None:
    driver, data = SAMPLES["values"]
    fields = msgspec.msgpack.decode(data)
    frame = next(entry for entry in fields[8] if entry[0] == snapshots.FRAME)
    assert [1, 0] == frame[1:3]
    frame[1:3] = [function_id, await_id]

    with pytest.raises(SnapshotError):
        snapshots.decode(driver.program, msgspec.msgpack.encode(fields), fresh_realm())
