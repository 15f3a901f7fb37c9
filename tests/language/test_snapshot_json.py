"""A snapshot for people: one JSON value with the names of the source, in which nothing is missing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rhythm.errors import SnapshotError
from rhythm.language import snapshot as snapshots
from rhythm.language.snapshot_json import to_json_value
from tests.language.test_snapshot import STATES, suspended
from tests.support.activations import Driver, body


def shown(source: str, inputs: Any = None) -> dict[str, Any]:
    driver = Driver(source)
    data = driver.start(inputs).snapshot
    assert data is not None
    return to_json_value(driver.program, data)


def of_kind(value: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [entry for entry in value["heap"] if entry["kind"] == kind]


def references(value: Any) -> set[int]:
    if isinstance(value, dict):
        if set(value) == {"$ref"}:
            return {value["$ref"]}
        return set().union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("name", STATES)
def test_every_state_is_one_json_value_whose_references_lead_somewhere(name: str) -> None:
    driver, data = suspended(name)
    value = to_json_value(driver.program, data)
    entries = msgspec.msgpack.decode(data)[8]

    assert value == json.loads(json.dumps(value))
    assert list(range(len(entries))) == [entry["id"] for entry in value["heap"]]
    assert references(value) == set(range(len(entries)))
    assert (snapshots.VERSION, len(data)) == (value["version"], value["bytes"])


def test_every_kind_of_entry_is_shown() -> None:
    kinds: set[str] = set()
    for name in STATES:
        driver, data = suspended(name)
        kinds |= {entry["kind"] for entry in to_json_value(driver.program, data)["heap"]}

    # A full array of holes that is kept, and what waits behind a finally that has run, are not among the states.
    assert len(snapshots.TAGS) - 2 <= len(kinds)


def test_frames_name_their_function_place_and_variables() -> None:
    value = shown(
        """
let count = 2
async function charge(order) {
  const amount = order.items.length, when = new Date(0), gone = undefined
  for (const order of [1]) count += (await task("charge", { amount }, { onCancel: "abandon" })) + order
  return [amount, when, gone, order]
}
workflow(ctx, inputs) {
  const order = { items: [1, 2.5, NaN, -0], self: null, $ref: 1 }
  order.self = order
  return [await charge(order), order, inputs]
}
""",
        {"who": "ada"},
    )
    inner, outer = sorted(of_kind(value, "frame"), key=lambda frame: frame["at"], reverse=True)
    (operation,) = value["operations"]
    (order,) = [entry for entry in of_kind(value, "object") if "$object" in entry["value"]]
    (date,) = of_kind(value, "Date")

    assert ("charge", "flow.flow:5:38", "task(\"charge\", { amount }, { onCancel: \"abandon\" })") == (
        inner["function"], inner["at"], inner["awaits"],
    )  # fmt: skip
    assert {"order", "amount", "when", "gone", "order (2)"} <= set(inner["variables"])
    assert (4, 1) == (inner["variables"]["amount"], inner["variables"]["order (2)"])
    assert {"$undefined": True} == inner["variables"]["gone"]
    assert {"$ref": date["id"]} == inner["variables"]["when"]
    assert "1970-01-01T00:00:00.000Z" == date["value"]
    assert {"$ref": order["id"]} == outer["variables"]["order"]
    assert {
        "$object": {"items": [1, 2.5, {"$number": "NaN"}, -0.0], "self": {"$ref": order["id"]}, "$ref": 1}
    } == order["value"]
    assert ("workflow", "flow.flow:11:11", {"who": "ada"}) == (
        outer["function"], outer["at"], outer["variables"]["inputs"]
    )  # fmt: skip
    assert {"count"} == set(inner["captured"])
    assert 2 == value["heap"][inner["captured"]["count"]["$ref"]]["value"]
    assert ("task", "charge", "abandon", "2023-11-14T22:13:20.000Z", None) == tuple(
        operation[key] for key in ("kind", "name", "on_cancel", "since", "due")
    )
    assert [{"$ref": inner["id"]}] == value["heap"][operation["promise"]["$ref"]]["reactions"]
    assert {"$ref": outer["promise"]["$ref"]} == value["result"]


def test_signals_text_with_surrogates_and_uninitialised_variables_are_shown() -> None:
    source = body("""
        const f = () => late, text = '\\ud83d\\ude00 \\ud800'
        await signal('go', { timeout: '1h' })
        let late = text
        f()
    """)
    driver = Driver(source)
    driver.start()
    driver.signal("other", {"a": [1]})
    assert driver.snapshot is not None
    value = to_json_value(driver.program, driver.snapshot)

    assert [{"name": "other", "payload": {"a": [1]}}] == value["unread_signals"]
    assert "\U0001f600 \ud800" == of_kind(value, "frame")[0]["variables"]["text"]
    assert {"$uninitialised": True} in [entry["value"] for entry in of_kind(value, "variable")]
    assert "2023-11-14T23:13:20.000Z" == value["operations"][0]["due"]


def test_a_damaged_snapshot_is_refused() -> None:
    driver, data = suspended("combinators")

    with pytest.raises(SnapshotError):
        to_json_value(driver.program, data[:-1])
