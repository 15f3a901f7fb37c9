"""Calls of tasks and workflows, compared with what they call: `// error: [F503]` stands in the line of the diagnostic.

A chunk is the body of a workflow. What else is reported, and is not about calls, does not matter here.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

import rhythm
from rhythm.engine import check_source
from rhythm.language.calls import Callees
from rhythm.language.diagnostics import CODES, DIAGNOSTICS_MAX, Diagnostic
from rhythm.tasks import REGISTRY

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


def _schemas() -> dict[str, Any]:
    schemas = {}
    for function in (charge, order, nothing, anything, stamped):
        schemas[function.__name__] = rhythm.task(function).input_schema()
        REGISTRY.remove(function.__name__)
    return schemas


TASKS = _schemas()
ALL = Callees(TASKS, {"other"})


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
            "see the annotation in Python",
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
    (source,) = re.findall(r"^```javascript\n(.*?)^```", page, re.M | re.S)
    (shown,) = re.findall(r"^```text\n(.*?)^```", page, re.M | re.S)
    properties = {"orderId": {"type": "string"}, "amount": {"type": "number"}}
    schema = {"properties": properties, "required": ["orderId", "amount"], "additionalProperties": False}

    found = check_source(source, "order.flow", Callees({"chargeCard": schema}))

    assert shown.splitlines() == [
        f"order.flow:{d.line}:{d.column}: {d.severity}[{d.code}]: {d.message}"
        for d in found
        if d.severity != "unchecked"
    ]
    assert re.findall(r"^\| ([FWU]\d\d\d) \|", page, re.M) == [c for c in CODES if c[:2] in ("F5", "W2", "U1")]
