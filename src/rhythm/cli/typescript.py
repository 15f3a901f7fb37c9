"""TypeScript declarations from JSON Schemas: what `rhythm types` writes.

What a schema says beyond types (bounds, patterns) is left out, and what cannot be said in a type is `unknown`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rhythm.language.shapes import Shape

DEPTH_MAX: Final = 20  #: Schemas inside one another, references counted; deeper ones are `unknown`.
PARTS_MAX: Final = 2_000  #: Schemas of one declaration; what comes after them is `unknown`.
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*", re.ASCII)
_PLAIN: Final = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}
_HEAD: Final = """\
// Written by `rhythm types`: inputs and outputs of workflows, for typed starts.
import "rhythm-flow"

declare module "rhythm-flow" {
  interface Workflows {
"""


def declarations(shapes: Mapping[str, Shape]) -> str:
    """The text of a .d.ts that adds these workflows, by name, to the interface of the npm package."""
    lines = []
    for name in sorted(shapes):
        shape = shapes[name]
        inputs = "object" if shape.inputs is None else type_of(shape.inputs)
        output = "unknown" if shape.output is None else type_of(shape.output)
        lines.append(f"    {_key(name)}: {{ inputs: {inputs}; output: {output} }}\n")
    return f"{_HEAD}{''.join(lines)}  }}\n}}\n"


def type_of(schema: Any) -> str:
    """The TypeScript type of a JSON Schema. Never raises."""
    return _Writer().type(schema, {}, 0)


class _Writer:
    def __init__(self) -> None:
        self.left = PARTS_MAX

    def type(self, schema: Any, definitions: Mapping[str, Any], depth: int) -> str:
        self.left -= 1
        if not isinstance(schema, Mapping) or depth > DEPTH_MAX or self.left < 0:
            return "unknown"
        if own := _mapping(schema, "$defs"):
            definitions = {**definitions, **own}
        if "$ref" in schema:
            name = str(schema["$ref"]).rpartition("/")[2]
            return self.type(definitions.get(name), definitions, depth + 1)
        if "const" in schema:
            return _literal(schema["const"])
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return _union([_literal(value) for value in schema["enum"]])
        for keyword in ("anyOf", "oneOf"):
            if isinstance(schema.get(keyword), list) and schema[keyword]:
                return _union([self.type(part, definitions, depth + 1) for part in schema[keyword]])
        kind = schema.get("type")
        if isinstance(kind, list):
            return _union([self.type({**schema, "type": one}, definitions, depth + 1) for one in kind])
        if kind == "object":
            return self.object(schema, definitions, depth)
        if kind == "array":
            return self.array(schema, definitions, depth)
        return _PLAIN.get(str(kind), "unknown")

    def object(self, schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> str:
        properties = _mapping(schema, "properties")
        others = schema.get("additionalProperties")
        if not properties:
            if schema.get("properties") is not None:
                return "Record<string, never>" if others is False else "object"
            value = self.type(others, definitions, depth + 1) if isinstance(others, Mapping) else "unknown"
            return f"Record<string, {value}>"
        required = schema.get("required")
        named = required if isinstance(required, list) else []
        fields = [
            f"{_key(name)}{'' if name in named else '?'}: {self.type(part, definitions, depth + 1)}"
            for name, part in properties.items()
        ]
        return f"{{ {'; '.join(fields)} }}"

    def array(self, schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> str:
        first = schema.get("prefixItems")
        if isinstance(first, list) and first:
            return f"[{', '.join(self.type(part, definitions, depth + 1) for part in first)}]"
        item = self.type(schema.get("items"), definitions, depth + 1)
        return f"({item})[]" if " " in item else f"{item}[]"


def _mapping(schema: Any, key: str) -> Mapping[str, Any]:
    found = schema.get(key) if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _union(types: list[str]) -> str:
    distinct = list(dict.fromkeys(types))
    return "unknown" if "unknown" in distinct else " | ".join(distinct)


def _literal(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, str | int | float | bool) else "unknown"


def _key(name: str) -> str:
    return name if _NAME.fullmatch(name) else json.dumps(name)
