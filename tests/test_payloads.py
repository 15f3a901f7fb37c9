from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import sys
import uuid
from decimal import Decimal
from functools import partial
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhythm import payloads
from rhythm.errors import InvalidInput, PayloadTooLarge

texts = st.text(st.characters(codec=None))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@given(plain)
def test_what_json_can_say_comes_back_as_it_was(value: Any) -> None:
    assert payloads.decode(payloads.encode(value, "value")) == value


def test_written_ascii_with_keys_in_order() -> None:
    data = payloads.encode({"b": "é\0\ud800", "a": [1, 2.5, None, True]}, "value")

    assert data == b'{"b":"\\u00e9\\u0000\\ud800","a":[1,2.5,null,true]}'


@dataclasses.dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    point: Point
    when: datetime.datetime


class Colour(enum.Enum):
    RED = "red"


class Name(str):
    """Text of a class of its own."""


@given(st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts | st.floats(-10, 10)))
def test_the_quick_way_writes_the_same_bytes(value: dict[str, Any]) -> None:
    assert payloads.encode(value, "value") == json.dumps(value, separators=(",", ":")).encode()


def test_objects_are_written_as_pydantic_writes_them() -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    value = {
        "model": Model(point=Point(1), when=moment),
        "id": uuid.UUID(int=5),
        "colour": Colour.RED,
        "name": Name("n"),
        "price": Decimal("1.10"),
        "pair": (1, 2),
    }

    assert payloads.decode(payloads.encode(value, "value")) == {
        "model": {"point": {"x": 1}, "when": "2026-01-02T03:04:05Z"},
        "id": "00000000-0000-0000-0000-000000000005",
        "colour": "red",
        "name": "n",
        "price": "1.10",
        "pair": [1, 2],
    }


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {"b": float("nan")}]}, "$.a[1].b is nan"),
        ({"a": float("inf")}, "$.a is inf"),
        ({"a": {1, 2}}, "$.a is a set"),
        ({"a": b"x"}, "$.a is a bytes"),
        ({1: 2}, "$ has the key 1"),
        ({"a": object()}, "$.a is a object"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_path(value: object, path: str) -> None:
    with pytest.raises(InvalidInput, match="inputs of 'x'") as caught:
        payloads.encode(value, "inputs of 'x'")

    assert path in str(caught.value)


@pytest.mark.parametrize("recursion_limit", [1_000, 20_000])
def test_nesting_and_size_have_limits(recursion_limit: int, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(partial(sys.setrecursionlimit, sys.getrecursionlimit()))
    sys.setrecursionlimit(recursion_limit)  # the limit of nesting does not hang on Python's own
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]

    with pytest.raises(InvalidInput, match="deeper than 1000"):
        payloads.encode(deep, "inputs")
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    with pytest.raises(InvalidInput, match="deeper than 1000"):
        payloads.encode(cycle, "inputs")
    with pytest.raises(PayloadTooLarge, match="payload_bytes_max"):
        payloads.encode("x" * 200, "inputs", bytes_max=100)
