"""Data that others choke on, through a real worker: it comes back as it was, or is refused at the earliest place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

import rhythm
from rhythm import payloads
from rhythm.errors import InvalidInput, PayloadTooLarge, SchemaMismatch
from rhythm.model import NewExecution, new_id
from tests.worker.conftest import Shop

MIB = 1 << 20
TASKS = """
import rhythm

@rhythm.task
async def echo(value: object) -> object:
    return value

@rhythm.task
async def give(what: str) -> object:
    return {"nan": float("nan"), "infinity": float("-inf"), "large": "x" * (64 << 20), "surrogate": "\\ud800\\0",
            "deep": deep(10_000), "integer": 2**53 + 1, "set": {1}}[what]

@rhythm.task
async def fail(what: str) -> None:
    error = type(what if what.isidentifier() else "Strange", (Exception,), {})(TEXTS.get(what, what))
    error.data = DATA.get(what, what)
    raise error

def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value

TEXTS = {"large": "x" * (64 << 20)}
DATA = {"nan": float("nan"), "deep": deep(10_000), "large": "x" * (64 << 20), "integer": 2**53 + 1}
"""
FLOW = """
workflow(ctx, inputs) {
  const { what } = inputs
  try {
    if (inputs.fail) return await task("fail", { what })
    if (inputs.give) return await task("give", { what })
    if (inputs.wait) return await signal("go")
  } catch (e) {
    return inputs.fail ? [e.name, e.message, e.data] : [e.name, e.message]
  }
  return await task("echo", { value: inputs.value })
}
"""
STRANGE_TEXTS = ["\0", "a\0b", "\ud800", "\udfff\ud800", "😀", "<script>alert('x')</script>",
                 "'; drop schema rhythm; --", "\\u0000", "\u2028", "%s {0} $1", "__proto__"]  # fmt: skip


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest_asyncio.fixture
async def data(shop: Shop) -> AsyncIterator[Shop]:
    (shop.folder / "shop.py").write_text(TASKS)
    (shop.folder / "workflows" / "data.flow").write_text(FLOW)
    await shop.client.publish(shop.folder / "workflows")
    shop.worker()
    yield shop
    assert [] == list(await shop.client.store.breaches()), shop.logs()


async def flow(shop: Shop, **inputs: Any) -> Any:
    return await (await shop.client.start("data", inputs)).result(timeout=40)


async def test_strange_texts_survive_every_way(data: Shop) -> None:
    """In inputs, outputs, errors, their data, signals; in keys of objects too; by a task alone and by a workflow."""
    values = [*STRANGE_TEXTS, {text: text for text in STRANGE_TEXTS}]
    alone = await data.client.start("echo", {"value": values})
    waiting = await data.client.start("data", {"wait": True})
    await waiting.signal("go", values)
    failing = [await data.client.start("fail", {"what": text}) for text in STRANGE_TEXTS]

    assert values == await alone.result(timeout=40)
    assert values == (await alone.refresh() and alone.inputs["value"])
    assert values == await flow(data, value=values)
    assert values == await waiting.result(timeout=40)
    for text, execution in zip(STRANGE_TEXTS, failing, strict=True):
        with pytest.raises(rhythm.ExecutionFailed) as failed:
            await execution.result(timeout=40)
        assert (text, text) == (failed.value.remote_message, failed.value.data)
    assert [["Strange", text, text] for text in STRANGE_TEXTS[:3]] == [
        await flow(data, fail=True, what=text) for text in STRANGE_TEXTS[:3]
    ]


async def test_integers_that_no_double_holds(data: Shop) -> None:
    """Tasks and clients keep them; a workflow, whose numbers are doubles, says where one is instead of rounding it."""
    large = [2**53 + 1, -(2**80), 10**40]
    alone = await data.client.start("echo", {"value": large})

    assert large == await alone.result(timeout=40)
    assert [2**53, 1e40] == await flow(data, value=[2**53, 1e40])
    with pytest.raises(rhythm.ExecutionFailed, match=r"\$\.value\[0\].*9007199254740993"):
        await flow(data, value=large)
    name, message = await flow(data, give=True, what="integer")
    assert ("TypeError", True) == (name, "9007199254740993" in message)
    waiting = await data.client.start("data", {"wait": True})
    await waiting.signal("go", large)
    name, message = await waiting.result(timeout=40)
    assert ("TypeError", True) == (name, "9007199254740993" in message)


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (float("nan"), InvalidInput, r"\$\.value is nan"),
        (float("-inf"), InvalidInput, r"\$\.value is -inf"),
        ({1, 2}, InvalidInput, r"\$\.value is a set"),
        ({1: 2}, InvalidInput, r"key 1"),
        ("x" * (64 * MIB), PayloadTooLarge, "payload_bytes_max"),
        (deep(10_000), InvalidInput, "deeper than 1000"),
    ],
    ids=["nan", "infinity", "set", "keys", "64 MiB", "10,000 levels"],
)
async def test_what_cannot_be_sent_is_refused_before_it_is_sent(
    shop: Shop, value: Any, error: type[Exception], says: str
) -> None:
    execution = await shop.client.start("order", {"order": "o"})
    with pytest.raises(error, match=says):
        await shop.client.start("plain", {"value": value})
    with pytest.raises(error, match=says):
        await shop.client.start_many([rhythm.Start("plain", {"value": value})])
    with pytest.raises(error, match=says.replace(r"\.value", "")):
        await execution.signal("go", value)

    (row,) = await shop.query("select count(*) as n from rhythm.executions")
    assert 1 == row["n"]


@pytest.mark.parametrize(
    ("what", "name", "says"),
    [
        ("nan", "OutputInvalid", "nan"),
        ("infinity", "OutputInvalid", "inf"),
        ("set", "OutputInvalid", "set"),
        ("large", "OutputTooLarge", "67,108"),
        ("deep", "OutputInvalid", "1000"),
    ],
)
async def test_an_output_that_cannot_be_stored_fails_with_what_and_where(
    data: Shop, what: str, name: str, says: str
) -> None:
    execution = await data.client.start("give", {"what": what}, retries=5)
    with pytest.raises(rhythm.ExecutionFailed) as failed:
        await execution.result(timeout=60)
    caught = await flow(data, give=True, what=what)

    assert name == failed.value.name
    assert says in failed.value.remote_message
    assert 1 == (await execution.refresh()).attempts  # its effect has happened
    assert [name, failed.value.remote_message] == caught


async def test_an_error_gets_through_whatever_it_carries(data: Shop) -> None:
    for what in ("nan", "deep", "large"):
        execution = await data.client.start("fail", {"what": what})
        with pytest.raises(rhythm.ExecutionFailed) as failed:
            await execution.result(timeout=60)
        assert what == failed.value.name
        assert failed.value.data is None
        assert "not JSON" in failed.value.payload["data_omitted"]
        assert len(failed.value.remote_message) < 100_000
    with pytest.raises(rhythm.ExecutionFailed) as failed:
        await (await data.client.start("fail", {"what": "integer"})).result(timeout=60)
    assert 2**53 + 1 == failed.value.data


@pytest.mark.parametrize("levels", [100, 999])
async def test_deep_values_up_to_the_limit_pass_every_way(data: Shop, levels: int) -> None:
    value = deep(levels)  # and one more level around it
    alone = await data.client.start("echo", {"value": value})
    text = b"[" * levels + b"]" * levels

    assert text == payloads.encode(await alone.result(timeout=40), "it")  # comparing the values would recurse
    assert text == payloads.encode(await flow(data, value=value), "it")


async def test_duplicate_keys_the_last_one_counts_and_the_text_stays(data: Shop) -> None:
    """Only a client in another language can send them."""
    inputs = b'{"value":1,"value":{"a":1,"b":2,"a":3}}'
    ids = [new_id(), new_id()]
    await data.client.store.start(
        [NewExecution(ids[0], "echo", inputs=inputs), NewExecution(ids[1], "data", inputs=inputs)]
    )

    assert [{"a": 3, "b": 2}] * 2 == [await data.client.wait(id_, timeout=40) for id_ in ids]
    rows = await data.query(
        "select convert_from(inputs, 'UTF8') as text from rhythm.executions where id = any($1)", ids
    )
    assert {"\x01" + inputs.decode()} == {row["text"] for row in rows}


async def test_every_payload_says_how_it_is_stored_and_what_is_unknown_is_said_so(data: Shop) -> None:
    done = await data.client.start("data", {"value": 1})
    assert 1 == await done.result(timeout=40)
    waiting = await data.client.start("data", {"wait": True})
    await data.until(lambda: data.query("select from rhythm.waits where suspended"), "it waits")
    rows = await data.query(
        "select inputs as p from rhythm.executions union all select payload from rhythm.outcomes "
        "union all select awaiting from rhythm.snapshots"
    )
    await data.query("update rhythm.outcomes set payload = '\\x7f00' where id = $1", done.id)

    assert {1} == {row["p"][0] for row in rows}
    with pytest.raises(SchemaMismatch, match="7f"):
        await data.client.wait(done, timeout=10)
    assert waiting.id in {execution.id for execution in await data.client.list(status="suspended")}


@pytest.mark.parametrize("text", ["\0", "a\ud800"])
async def test_names_keys_and_tags_that_cannot_be_stored_are_refused(shop: Shop, text: str) -> None:
    refused = partial(pytest.raises, InvalidInput)
    with refused():
        await shop.client.start(text)
    with refused():
        await shop.client.start("plain", {"i": 1}, key=text)
    with refused():
        await shop.client.start("plain", {"i": 1}, queue=text)
    with refused():
        await shop.client.start("plain", {"i": 1}, tags={"a": text})
    with refused():
        await shop.client.signal(new_id(), text)
    with pytest.raises(ValueError, match="cannot be used"):
        rhythm.task(name=text)(lambda: None)
