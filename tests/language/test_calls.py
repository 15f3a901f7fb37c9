"""Calls of tasks and workflows, compared with what they call: `// error: [F503]` stands in the line of the diagnostic.

A chunk is the body of a workflow. What else is reported, and is not about calls, does not matter here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_serializer
from typing_extensions import TypedDict

import rhythm
from rhythm.engine import check_source
from rhythm.language.calls import Callees
from rhythm.language.diagnostics import CODES, DIAGNOSTICS_MAX, Diagnostic
from rhythm.tasks import REGISTRY
from rhythm.testing import evaluate

CHUNKS = re.split(r"^---\n", (Path(__file__).parent / "calls.flows").read_text(), flags=re.M)
_SAYS = re.compile(r"(error|warning|unchecked): \[([FWU]\d\d\d)\]")


class Address(BaseModel):
    city: str


class Customer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    address: Address | None = None


class Line(BaseModel):
    sku: str
    amount: int = 1


def charge(amount: float, note: str | None = None, urgent: bool = False) -> None: ...


def order(
    count: Annotated[int, Field(ge=1, lt=10)],
    id: int | Annotated[str, Field(max_length=3)],  # noqa: A002
    size: Literal["S", "M"] = "S",
    kind: Literal["gift"] | None = None,
    customer: Customer | None = None,
    lines: Annotated[list[Line], Field(min_length=1)] | None = None,
    pair: tuple[int, str] | None = None,
    counts: dict[str, int] | None = None,
) -> None: ...


def nothing() -> None: ...


def anything(a: Any) -> None: ...


def stamped(at: datetime) -> None: ...


def lasting(time: timedelta) -> None: ...


class Order(BaseModel):
    total: float


class Receipt(BaseModel):
    txn_id: str
    ok: bool = True
    order: Order | None = None
    lines: list[str] = []


def pay() -> Receipt: ...


def maybePaid() -> Receipt | None: ...


def counted() -> dict[str, int]: ...


FUNCTIONS = (charge, order, nothing, anything, stamped, lasting, pay, maybePaid, counted)


def _schemas() -> tuple[dict[str, Any], dict[str, Any]]:
    inputs, outputs = {}, {}
    for function in FUNCTIONS:
        task: Any = rhythm.task(function)
        inputs[task.name], outputs[task.name] = task.input_schema(), task.output_schema()
        REGISTRY.remove(task.name)
    return inputs, outputs


TASKS, OUTPUTS = _schemas()
ALL = Callees(TASKS, {"other"}, outputs=OUTPUTS)


def of_calls(source: str, callees: Callees = ALL) -> list[Diagnostic]:
    source = f"workflow(ctx, inputs) {{\n{source}\n}}"
    return [
        d for d in check_source(source, "calls.flow", callees) if d.code in CODES and d.code[:2] in ("F5", "W2", "U1")
    ]


def compare_one(schema: Any, value: str) -> list[str]:
    return [
        d.code
        for d in of_calls(f'await task("one", {{ a: {value} }})', Callees({"one": {"properties": {"a": schema}}}))
    ]


@pytest.mark.parametrize("number", range(len(CHUNKS)))
def test_calls_are_reported_in_their_lines(number: int) -> None:
    source = CHUNKS[number]
    expected = [
        (line, *says) for line, text in enumerate(source.split("\n"), 2) for says in sorted(_SAYS.findall(text))
    ]

    found = of_calls(source)

    assert expected == sorted((d.line, d.severity, d.code) for d in found)
    for diagnostic in found:
        assert diagnostic.message
        assert diagnostic.hint or diagnostic.severity == "unchecked"


def test_every_code_is_covered() -> None:
    covered = {code for chunk in CHUNKS for _, code in _SAYS.findall(chunk)} | {"U104"}

    assert {code for code in CODES if code[:2] in ("F5", "W2", "U1")} == covered


@pytest.mark.parametrize(
    ("call", "column", "message", "hint"),
    [
        ('task("chrge", {})', 6, "there is no task named `chrge`", "did you mean `charge`?"),
        ('task("charge", {})', 16, "`charge` needs the input `amount`", "add it"),
        ('task("order", {})', 15, "`order` needs the inputs `count` and `id`", "add them"),
        ('task("charge")', 6, "`charge` needs the input `amount`", "add it"),
        ('task("charge", { amount: 1, nots: "a" })', 29, "`charge` has no input `nots`", "did you mean `note`?"),
        ('task("nothing", { a: 1 })', 19, "`nothing` has no input `a`", "it takes none"),
        (
            'task("charge", { amount: "a" })',
            26,
            "`amount` of `charge` should be a number, not a string",
            "see how the task is declared",
        ),
        ('task("order", { count: 0, id: 1 })', 24, "`count` of `order` should be at least 1, not 0", None),
        ('task("order", { count: 1.5, id: 1 })', 24, "`count` of `order` should be a whole number, not 1.5", None),
        ('task("order", { count: 1, id: 1, size: "L" })', 40, '`size` of `order` should be "S" or "M", not "L"', None),
        (
            'task("order", { count: 1, id: 1, customer: { name: "a", address: { city: 5 } } })',
            74,
            "`customer.address.city` of `order` should be a string, not a number",
            None,
        ),
        (
            'task("order", { count: 1, id: 1, lines: [{ amount: 1 }] })',
            42,
            "`order` needs the input `lines[0].sku`",
            None,
        ),
        ('task("charge", 5)', 16, "what `charge` is given should be an object, not a number", None),
        ('child("othe")', 7, "there is no workflow named `othe` among these files", "did you mean `other`?"),
        (
            'task("charge", { amount: inputs.a, note: inputs.b })',
            26,
            "what `charge` is given cannot be compared before the workflow runs: `amount` and `note`",
            "",
        ),
    ],
)
def test_each_problem_has_its_place_and_words(call: str, column: int, message: str, hint: str | None) -> None:
    (found,) = of_calls(call)

    assert (2, column, message) == (found.line, found.column, found.message)
    assert hint is None or hint == found.hint


def test_without_callees_nothing_is_compared() -> None:
    assert [] == of_calls('task("bogus"); child("bogus")', Callees())


def test_where_not_all_tasks_are_known_misfits_are_warnings_and_unknown_names_unchecked() -> None:
    found = of_calls('task("charge", { amount: "5" })\ntask("bogus")', Callees(TASKS, complete=False))

    assert [("F504", "warning"), ("U104", "unchecked")] == [(d.code, d.severity) for d in found]


def test_calls_are_not_compared_where_the_source_cannot_be_read() -> None:
    assert [] == of_calls('task("charge", { amount: })')


def test_what_is_not_listed_any_more_is_not_taken_for_compared() -> None:
    found = of_calls("task(ctx.name)\n" * (DIAGNOSTICS_MAX + 1))

    assert DIAGNOSTICS_MAX == len(found)
    assert "this call and later ones" in found[-1].message


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (False, "1", ["F504"]),
        (True, "1", []),
        ({"type": "string", "pattern": "^a"}, '"b"', ["U102"]),
        ({"type": "string", "pattern": "^a"}, "5", ["F504"]),
        ({"const": 1}, "true", ["F504"]),
        ({"enum": [1, None]}, "null", []),
        ({"enum": ["a"]}, "`${ctx}`", ["U102"]),
        ({"enum": [1]}, "`${ctx}`", ["F504"]),
        ({"type": ["string", "null"]}, "null", []),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, "3", ["F504"]),
        ({"exclusiveMinimum": 1}, "1", ["F504"]),
        ({"oneOf": [{"type": "string"}, {"type": "number"}]}, "true", ["F504"]),
        ({"maxItems": 1}, "[1, 2]", ["F504"]),
        ({"uniqueItems": True}, "[1, 1]", ["U102"]),
        ({"additionalProperties": False, "patternProperties": {"^x": {}}}, "{ x1: 1 }", ["U102"]),
        ({"not": {"type": "string"}}, '"a"', ["U102"]),
    ],
)
def test_schemas(schema: Any, value: str, expected: list[str]) -> None:
    assert expected == compare_one(schema, value)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        5,
        "string",
        [],
        {"type": 5},
        {"type": [[], {}]},
        {"$ref": 5},
        {"$ref": "#/nowhere/at/all"},
        {"$ref": "#/properties/a"},
        {"anyOf": [{"$ref": "#/properties/a"}, {"$ref": "#/properties/a"}]},
        {"properties": 5, "required": 5, "additionalProperties": 5},
        {"enum": 5, "minimum": "a", "minLength": "b", "items": 7, "prefixItems": 5},
    ],
)
@pytest.mark.parametrize("value", ["5", '"a"', "{ b: 1 }", "[1]", "null"])
def test_what_is_no_schema_is_never_an_exception_nor_an_error(schema: Any, value: str) -> None:
    assert set(compare_one(schema, value)) <= {"U102"}


def test_alternatives_inside_alternatives_end() -> None:
    schema = {"anyOf": [{"type": "object", "additionalProperties": {"$ref": "#/properties/a"}}] * 6}

    assert ["U102"] == compare_one(schema, "{ a: " * 20 + "1" + " }" * 20)


def test_deep_literals_are_unchecked() -> None:
    assert ["U102"] == compare_one({"items": {"$ref": "#/properties/a"}}, "[" * 400 + "1" + "]" * 400)


def test_the_page_on_checking_shows_what_is_found_and_lists_the_codes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "checking.md").read_text()
    sources = re.findall(r"^```javascript\n(.*?)^```", page, re.M | re.S)
    shown = re.findall(r"^```text\n(.*?)^```", page, re.M | re.S)
    properties = {"orderId": {"type": "string"}, "amount": {"type": "number"}}
    schema = {"properties": properties, "required": ["orderId", "amount"], "additionalProperties": False}

    assert len(sources) == len(shown) == 2
    for source, lines in zip(sources, shown, strict=True):
        found = check_source(source, "order.flow", Callees({"chargeCard": schema}))
        assert lines.splitlines() == [
            f"order.flow:{d.line}:{d.column}: {d.severity}[{d.code}]: {d.message}"
            for d in found
            if d.severity != "unchecked"
        ]
    assert re.findall(r"^\| ([FWU]\d\d\d) \|", page, re.M) == [c for c in CODES if c[:2] in ("F5", "W2", "U1")]


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


@dataclass
class Point:
    x: float
    y: float = 0.0


class Choice(TypedDict):
    a: int
    b: NotRequired[str]


def every(
    color: Color = Color.RED,
    size: Size = Size.SMALL,
    at: Point | None = None,
    choice: Choice | None = None,
    receipt: Receipt | None = None,
    price: Decimal = Decimal(0),
    id: UUID | None = None,  # noqa: A002
    names: list[str] = [],  # noqa: B006
    counts: dict[str, int] = {},  # noqa: B006
    either: int | list[str] | None = None,
    mode: Literal["fast", 2, True] = "fast",
    day: date | None = None,
    nested: dict[str, list[Point]] | None = None,
) -> None: ...


EVERY: Any = rhythm.task(every)
REGISTRY.remove("every")
VALUES = [
    'color: "red"', 'color: "green"', "color: 1", "size: 2", "size: 3", 'at: { x: 1 }', "at: { y: 1 }",
    'at: { x: "a" }',
    "at: null", "at: 5", "choice: { a: 1 }", 'choice: { a: 1, b: "x" }', "choice: { b: 5 }", "choice: { a: [] }",
    'receipt: { txn_id: "a" }', "receipt: { txn_id: 5 }", 'receipt: { txn_id: "a", order: { total: 5 } }',
    'receipt: { txn_id: "a", order: {} }', 'receipt: { txn_id: "a", lines: ["b", 5] }', "price: 5", 'price: "5.25"',
    "price: true", "price: []", 'id: "0197f5a0-0000-7000-8000-000000000000"', "id: 5", 'names: ["a"]', 'names: "a"',
    "names: [1]", "counts: { a: 1 }", 'counts: { a: "x" }', "counts: { a: 1.5 }", "either: 5", 'either: ["a"]',
    "either: null", "either: { a: 1 }", 'either: [["a"]]', 'mode: "fast"', 'mode: "slow"', "mode: 2", "mode: true",
    'day: "2026-01-31"', "day: []", "nested: { a: [{ x: 1 }] }", "nested: { a: [{ y: 1 }] }", "nested: { a: { x: 1 } }",
    "unknown: 1",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_an_alarm_is_certain_and_silence_means_that_it_fits(value: str) -> None:
    found = of_calls(f'await task("every", {{ {value} }})', Callees({"every": EVERY.input_schema()}))
    plain = evaluate(f"workflow() {{ return {{ {value} }} }}").result
    try:
        EVERY.bind(json.dumps(plain).encode())
        fits = True
    except rhythm.TaskInputInvalid:
        fits = False

    if not any(d.severity == "unchecked" for d in found):
        assert fits == (not found), f"{found}"
    assert fits or found


def test_outputs_that_may_have_more_are_not_compared() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int

    class Own(BaseModel):
        a: int

        @model_serializer
        def write(self) -> dict[str, Any]:
            return {"b": self.a}

    for annotation in (Open, Own, Choice, dict[str, int], list[Order], Order | str, Any):

        def gives() -> Any: ...

        gives.__annotations__["return"] = annotation
        task: Any = rhythm.task(gives)
        REGISTRY.remove("gives")
        callees = Callees({"gives": task.input_schema()}, outputs={"gives": task.output_schema()})

        assert of_calls('return (await task("gives")).missing', callees) == [], annotation
