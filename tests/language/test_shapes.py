"""What a workflow takes and gives, read from its source, as `rhythm types` writes it."""

from __future__ import annotations

from typing import Any

import pytest

from rhythm.cli.typescript import declarations, type_of
from rhythm.engine import read_shape
from rhythm.language.shapes import Shape

CHARGE = {
    "type": "object",
    "properties": {"orderId": {"type": "string"}, "amount": {"type": "number"}, "card": {"$ref": "#/$defs/Card"}},
    "required": ["orderId"],
    "$defs": {"Card": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]}},
}
CHARGED = {"type": "object", "properties": {"txn": {"type": "string"}, "fee": {"type": "integer"}}, "required": ["txn"]}


def shape(body: str, parameters: str = "ctx, inputs") -> Shape:
    source = f"workflow({parameters}) {{\n{body}\n}}"
    return read_shape(source, "w.flow", {"charge": CHARGE}, {"charge": CHARGED, "silent": None})


def inputs(body: str, parameters: str = "ctx, inputs") -> str | None:
    found = shape(body, parameters).inputs
    return None if found is None else type_of(found)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return inputs.a + inputs.b.c", "{ a: unknown; b: unknown }"),
        ("await task('charge', { orderId: inputs.id, amount: inputs.cents })", "{ id: string; cents: number }"),
        ("await task('charge', { orderId: inputs.id, card: inputs.card })", "{ id: string; card: { number: string } }"),
        ("const { a, b = 1 } = inputs\nreturn a + b", "{ a: unknown; b?: unknown }"),
        ("const { id } = inputs\nawait task('charge', { orderId: id })", "{ id: string }"),
        ("return inputs.a ?? 5", "{ a?: unknown }"),
        ("if (inputs.a) { return inputs.a }", "{ a?: unknown }"),
        ("if (inputs.a === undefined) { return inputs.b?.c }", "{ a?: unknown; b?: unknown }"),
        ("return 1", "object"),
        ("const f = () => inputs.late\nreturn f()", "{ late: unknown }"),
        # whatever else is done with it, there may be more
        ("return inputs", None),
        ("inputs.a = 1", None),
        ("const key = 'a'\nreturn inputs[key]", None),
        ("const { a, ...rest } = inputs\nreturn rest", None),
        ("return Object.keys(inputs)", None),
        ("inputs.list.push(1)", "{ list: unknown }"),
        ("inputs.run()", None),
        ("[inputs.a] = [1]", None),
        ("inputs = {}", None),
    ],
)
def test_inputs(body: str, expected: str | None) -> None:
    assert inputs(body) == expected


def test_inputs_taken_apart_in_the_head() -> None:
    assert inputs("return a + b", "ctx, { a, b = 2 }") == "{ a: unknown; b?: unknown }"
    assert inputs("return a", "ctx, { a } = {}") == "{ a: unknown }"
    assert inputs("return 1", "ctx") == "object"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return { a: 1, b: 'x', c: [true, null] }", "{ a: number; b: string; c: [boolean, null] }"),
        ("return await task('charge', {})", "{ txn: string; fee?: number }"),
        ("const p = await task('charge', {})\nreturn { txn: p.txn, fee: p.fee }", "{ txn: string; fee?: unknown }"),
        ("const p = await task('charge', {})\np.txn = 5\nreturn p", None),
        ("const p = await task('charge', {})\nreturn { p }", "{ p: { txn: string; fee?: number } }"),
        ("return `${ctx.id}`", "string"),
        ("if (ctx.id) return 'a'\nreturn 1", "string | number"),
        ("if (ctx.id) return 'a'", "string | null"),
        ("if (ctx.id) { return 'a' } else { throw new Error('x') }", "string"),
        ("await sleep('1s')", "null"),
        ("await task('charge', { orderId: inputs.id })\nreturn inputs.id", "string"),
        ("return [1].map((x) => { return 'inner' })", None),
        ("return await task('silent')", None),
        ("return { toJSON() { return 1 } }", None),
        ("return { ...inputs }", None),
        ("let x = 1\nx = 'a'\nreturn x", None),
    ],
)
def test_output(body: str, expected: str | None) -> None:
    found = shape(body).output

    assert (None if found is None else type_of(found)) == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"enum": ["a", 1, None, True]}, '"a" | 1 | null | true'),
        ({"const": 'q"'}, '"q\\""'),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string | null"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "number"}]}}, "(string | number)[]"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "Record<string, number>"),
        ({"type": "object", "properties": {"a-b": {"type": "string"}}}, '{ "a-b"?: string }'),
        ({"$ref": "#/$defs/Missing"}, "unknown"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}}}, None),
        ("nonsense", "unknown"),
        ({"type": "object", "properties": 5, "required": 7, "anyOf": 3}, "object"),
    ],
)
def test_types(schema: Any, expected: str | None) -> None:
    text = type_of(schema)

    assert text == expected or (expected is None and len(text) < 1000)


def test_declarations_are_sorted_and_quoted() -> None:
    text = declarations({"b-c": Shape(None, None), "a": shape("return 1")})

    assert text.index("    a: { inputs: object; output: number }") < text.index(
        '    "b-c": { inputs: object; output: unknown }'
    )
