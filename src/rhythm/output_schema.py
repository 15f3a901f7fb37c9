"""The JSON Schema of what a task gives, by its return annotation.

Objects that have exactly the fields of their class (models and dataclasses) say ``additionalProperties: false`` here,
which pydantic leaves out. Dicts, TypedDicts and classes that serialise themselves do not: they may bring more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def output_schema(adapter: TypeAdapter[Any]) -> dict[str, Any] | None:
    """The schema; None when the annotation has none."""
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
    from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

    class Closed(GenerateJsonSchema):
        def model_schema(self, schema: Any) -> JsonSchemaValue:
            return _closed(schema, super().model_schema(schema))

        def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
            return _closed(schema, super().dataclass_schema(schema))

    try:
        return adapter.json_schema(by_alias=False, mode="serialization", schema_generator=Closed)
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return None


def _closed(core: Any, schema: dict[str, Any]) -> dict[str, Any]:
    serialises_itself = "serialization" in core or "serialization" in core.get("schema", {})
    if schema.get("type") == "object" and not serialises_itself:
        schema.setdefault("additionalProperties", False)
    return schema
