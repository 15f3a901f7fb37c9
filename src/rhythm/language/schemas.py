"""Whether what the source shows of a value fits a JSON Schema.

    compare(known, schema) -> Verdict(misfits, undecided)

The answer has three parts, not two: what surely does not fit, what cannot be decided here, and the rest, which fits.
Undecided is every value that is known only when the workflow runs, and every keyword that is not read here
(``pattern``, ``format``, ...). Schemas come from tasks' annotations, or from a database where anything may stand: one
that is no schema decides nothing, and nothing raises. References may be circular; depth and steps are bounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from rhythm.language.literals import Kind, Known

DEPTH_MAX: Final = 100  #: Schemas inside one another, references counted.
STEPS_MAX: Final = 20_000  #: Comparisons of one value with one schema; what is left is undecided.
SHOWN_MAX: Final = 8  #: Allowed values named in a message.
SHOWN_LENGTH_MAX: Final = 40  #: Characters of a value in a message.

_KINDS: Final[dict[str, tuple[Kind, str]]] = {
    "string": ("string", "a string"),
    "number": ("number", "a number"),
    "integer": ("number", "a whole number"),
    "boolean": ("boolean", "true or false"),
    "null": ("null", "null"),
    "object": ("object", "an object"),
    "array": ("array", "an array"),
}
_FOUND: Final[dict[Kind, str]] = {
    "string": "a string", "number": "a number", "boolean": "a boolean", "null": "null", "object": "an object",
    "array": "an array", "function": "a function", "undefined": "undefined", "unknown": "something unknown",
}  # fmt: skip
_ANNOTATIONS: Final = frozenset(
    "title description default examples deprecated readOnly writeOnly $defs definitions $comment $schema $id "
    "discriminator".split()
)
_READ: Final = frozenset(
    "type enum const minimum maximum exclusiveMinimum exclusiveMaximum minLength maxLength properties required "
    "additionalProperties items prefixItems minItems maxItems anyOf oneOf allOf $ref".split()
)
#: Keywords that say nothing about other kinds of values.
_ONLY_FOR: Final[dict[str, Kind]] = {
    **dict.fromkeys(("pattern", "format", "contentEncoding", "contentMediaType", "contentSchema"), "string"),
    "multipleOf": "number",
    **dict.fromkeys(("patternProperties", "propertyNames", "minProperties", "maxProperties", "dependentRequired",
                     "dependentSchemas", "unevaluatedProperties"), "object"),
    **dict.fromkeys(("uniqueItems", "contains", "minContains", "maxContains", "unevaluatedItems"), "array"),
}  # fmt: skip
_FORMATS_OF_NUMBERS: Final = ("date-time", "date", "time", "duration")
#: Keyword -> (whether the value obeys it, what to say).
_BOUNDS: Final[dict[str, tuple[Callable[[float, float], bool], str]]] = {
    "minimum": (lambda value, bound: value >= bound, "at least"),
    "maximum": (lambda value, bound: value <= bound, "at most"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "more than"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "less than"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the value: its path ("" is the value itself, then like "customer.id") and its span."""

    path: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Misfit:
    """Something that surely does not fit."""

    kind: Literal["missing", "unknown", "wrong"]
    place: Place  #: missing: the object that lacks them; unknown: the property's name; wrong: the value
    text: str = ""  #: wrong: like "should be a number, not a string"; unknown: the name itself
    names: tuple[str, ...] = ()  #: missing: the names; unknown: the names there are


@dataclass(slots=True)
class Verdict:
    misfits: list[Misfit] = field(default_factory=list)
    undecided: list[Place] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        self.misfits += other.misfits
        self.undecided += other.undecided


def compare(known: Known, schema: Any) -> Verdict:
    """What does not fit, and what cannot be decided. ``schema``: a JSON Schema as ``json.loads`` gives it."""
    return _Comparison(schema).compare(known, schema, Place("", known.start, known.end), 0)


def join_path(path: str, name: str) -> str:
    """The path of a property of what is at ``path``."""
    return f"{path}.{name}" if path else name


class _Comparison:
    def __init__(self, root: Any) -> None:
        self.root = root
        self.steps = STEPS_MAX

    def compare(self, known: Known, schema: Any, place: Place, depth: int) -> Verdict:
        self.steps -= 1
        if self.steps < 0 or depth > DEPTH_MAX:
            return Verdict(undecided=[place])
        if known.kind == "function":
            return _wrong(place, "cannot be a function")
        if schema is False:
            return _wrong(place, "fits no value at all")
        if not isinstance(schema, Mapping):
            return Verdict(undecided=[] if schema is True else [place])
        keywords = schema.keys() - _ANNOTATIONS
        if known.kind == "unknown" and keywords:
            return Verdict(undecided=[place])
        if known.kind == "number" and schema.get("format") in _FORMATS_OF_NUMBERS:
            return Verdict(undecided=[place])  # the task takes it as seconds
        verdict = self._alternatives(known, schema, place, depth)
        if "type" in schema and not self._has_type(known, schema["type"]):
            return _wrong(place, f"should be {self.describe(schema)}, not {_found(known, schema)}")
        verdict.add(self._values(known, schema, place))
        if known.kind == "object":
            verdict.add(self._object(known, schema, place, depth))
        elif known.kind == "array":
            verdict.add(self._array(known, schema, place, depth))
        if any(_ONLY_FOR.get(keyword, known.kind) == known.kind for keyword in keywords - _READ):
            verdict.undecided.append(place)
        return verdict

    # --- any kind of value ----------------------------------------------------------------------------------------

    def _has_type(self, known: Known, types: Any) -> bool:
        for name in _listed(types):
            kind, _ = _KINDS.get(name, (None, "")) if isinstance(name, str) else (None, "")
            if kind is None:
                return True  # no type of JSON Schema: decides nothing
            if kind == known.kind and (name != "integer" or not known.exact or _is_whole(known.value)):
                return True
        return False

    def _values(self, known: Known, schema: Mapping[str, Any], place: Place) -> Verdict:
        """enum and const, the bounds of numbers, the lengths of strings."""
        verdict = Verdict()
        allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(allowed, list):
            scalar = [value for value in allowed if not isinstance(value, list | dict)]
            if known.exact and not any(_same(known.value, value) for value in allowed):
                return _wrong(place, f"should be {self.describe(schema)}, not {_shown(known.value)}")
            if not known.exact and (len(scalar) < len(allowed) or any(_kind(value) == known.kind for value in scalar)):
                verdict.undecided.append(place)
            elif not known.exact:
                return _wrong(place, f"should be {self.describe(schema)}, not {_FOUND[known.kind]}")
        if known.kind == "number":
            for keyword, (obeys, words) in _BOUNDS.items():
                bound = schema.get(keyword)
                if isinstance(bound, int | float) and not isinstance(bound, bool):
                    if not known.exact:
                        verdict.undecided.append(place)
                    elif isinstance(known.value, float) and not obeys(known.value, bound):
                        verdict.add(_wrong(place, f"should be {words} {bound}, not {_shown(known.value)}"))
            if not known.exact and "integer" in _listed(schema.get("type")):
                verdict.undecided.append(place)
        elif known.kind == "string":
            length = len(known.value) if isinstance(known.value, str) else None
            verdict.add(_size(length, schema, place, "minLength", "maxLength", "characters"))
        return verdict

    def _alternatives(self, known: Known, schema: Mapping[str, Any], place: Place, depth: int) -> Verdict:
        """$ref, allOf, anyOf, oneOf."""
        verdict = Verdict()
        if "$ref" in schema:
            verdict.add(self.compare(known, self._target(schema["$ref"]), place, depth + 1))
        for part in _listed(schema.get("allOf")):
            verdict.add(self.compare(known, part, place, depth + 1))
        for keyword in ("anyOf", "oneOf"):
            branches = _listed(schema.get(keyword))
            if branches:
                verdict.add(self._any_of(known, schema, branches, place, depth))
        return verdict

    def _any_of(self, known: Known, schema: Any, branches: list[Any], place: Place, depth: int) -> Verdict:
        verdicts = [self.compare(known, branch, place, depth + 1) for branch in branches]
        fitting = [verdict for verdict in verdicts if not verdict.misfits]
        if fitting:
            return min(fitting, key=lambda verdict: len(verdict.undecided))
        # One that takes this kind of value, and fails further in, is the one that was meant.
        meant = [v for v in verdicts if not any(m.kind == "wrong" and m.place == place for m in v.misfits)]
        if len(meant) == 1:
            return meant[0]
        if meant:
            return _wrong(place, f"has none of the {len(branches)} forms it may have")
        return _wrong(place, f"should be {self.describe(schema)}, not {_found(known, schema)}")

    def _target(self, reference: Any) -> Any:
        """What a reference inside the schema refers to; None, which decides nothing, when it leads nowhere."""
        found = self.root
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        for part in reference[1:].split("/")[1:]:
            if not isinstance(found, Mapping):
                return None
            found = found.get(part.replace("~1", "/").replace("~0", "~"))
        return found

    # --- objects and arrays ---------------------------------------------------------------------------------------

    def _object(self, known: Known, schema: Mapping[str, Any], place: Place, depth: int) -> Verdict:
        verdict = Verdict(undecided=[place] if known.is_open else [])
        properties = schema.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        others = schema.get("additionalProperties", True)
        required = [name for name in _listed(schema.get("required")) if isinstance(name, str)]
        missing = [name for name in required if name not in known.members]
        for name, member in known.members.items():
            value = member.value
            at = Place(join_path(place.path, name), value.start, value.end)
            if value.kind == "undefined":  # left out when the inputs are written
                missing += [name] if name in required else []
            elif name in properties:
                verdict.add(self.compare(value, properties[name], at, depth + 1))
                if value.kind == "unknown" and name in required and at not in verdict.undecided:
                    verdict.undecided.append(at)  # it may be undefined
            elif "patternProperties" in schema:
                verdict.undecided.append(at)
            elif others is False:
                at = Place(at.path, member.start, member.end)
                verdict.misfits.append(Misfit("unknown", at, name, tuple(map(str, properties))))
            else:
                verdict.add(self.compare(value, others, at, depth + 1))
        if missing and not known.is_open:
            verdict.misfits.append(Misfit("missing", place, names=tuple(missing)))
        return verdict

    def _array(self, known: Known, schema: Mapping[str, Any], place: Place, depth: int) -> Verdict:
        verdict = Verdict(undecided=[place] if known.is_open else [])
        first = _listed(schema.get("prefixItems"))
        rest = schema.get("items", True)
        for index, item in enumerate(known.items):
            at = Place(f"{place.path}[{index}]", item.start, item.end)
            if item.kind == "undefined":
                item = Known(item.start, item.end, "null", exact=True)  # as JSON has it
            verdict.add(self.compare(item, first[index] if index < len(first) else rest, at, depth + 1))
        verdict.add(_size(None if known.is_open else len(known.items), schema, place, "minItems", "maxItems", "items"))
        return verdict

    # --- messages -------------------------------------------------------------------------------------------------

    def describe(self, schema: Any, depth: int = 0) -> str:
        """A schema in a few words: "a number or null"."""
        if not isinstance(schema, Mapping) or depth > 5:
            return "something else"
        if "$ref" in schema:
            return self.describe(self._target(schema["$ref"]), depth + 1)
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(values, list) and values:
            return _either([_shown(value) for value in values])
        branches = _listed(schema.get("anyOf")) or _listed(schema.get("oneOf"))
        if branches:
            return _either([self.describe(branch, depth + 1) for branch in branches])
        types = schema.get("type")
        names = [_KINDS[name][1] for name in _listed(types) if isinstance(name, str) and name in _KINDS]
        return _either(names) if names else "something else"


def _wrong(place: Place, text: str) -> Verdict:
    return Verdict([Misfit("wrong", place, text)])


def _size(size: int | None, schema: Mapping[str, Any], place: Place, least: str, most: str, unit: str) -> Verdict:
    """Lengths of strings and arrays; ``size`` None: not known."""
    verdict = Verdict()
    for keyword, words in ((least, "at least"), (most, "at most")):
        bound = schema.get(keyword)
        if not isinstance(bound, int) or (keyword == least and bound <= 0):
            continue
        if size is None:
            verdict.undecided.append(place)
        elif size < bound if keyword == least else size > bound:
            verdict.add(_wrong(place, f"should have {words} {bound} {unit}, not {size}"))
    return verdict


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _either(words: list[str]) -> str:
    words = list(dict.fromkeys(words))
    if len(words) > SHOWN_MAX:
        return f"one of {', '.join(words[:SHOWN_MAX])} and {len(words) - SHOWN_MAX} more"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _found(known: Known, schema: Mapping[str, Any]) -> str:
    same_kind = known.kind == "number" and "integer" in _listed(schema.get("type"))
    return _shown(known.value) if same_kind and known.exact else _FOUND[known.kind]


def _shown(value: Any) -> str:
    if _is_whole(value):
        value = int(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_LENGTH_MAX else text[: SHOWN_LENGTH_MAX - 1] + "…"


def _is_whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


def _kind(value: object) -> Kind:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def _same(left: str | float | bool | None, right: Any) -> bool:
    return not isinstance(right, list | dict) and _kind(left) == _kind(right) and left == right
