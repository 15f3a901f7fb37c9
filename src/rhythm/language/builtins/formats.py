"""The text of console calls: what Node's console.log writes for the same arguments, as `util.format` and `util.inspect`
of Node 20 describe and do it; written anew from what they give.

    format_arguments(values)   the whole line: `%s %d %i %f %j %o %O %c %%` in a first string, the rest behind it
    inspect(value)             one value: two levels deep, up to 72 characters or so on a line, short arrays in columns

It differs from Node, on purpose, in this:

- the stack of an error names the places of the flow, and lines that its cause repeats are all shown;
- functions show their name only: under `%s`, where Node prints their source, and under `%o`, which lists hidden
  properties only of arrays (`[length]`);
- after CHARACTERS_MAX characters of values the rest is `…`: longer lines are cut anyway.

Runs no flow code but the conversions that Node runs too: an own `toString` under `%s`, `valueOf` or `toString` under
the numeric ones, `toJSON` under `%j`. What these throw is thrown by the console call, as in Node.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, Final

from rhythm.language.builtins.json import stringify
from rhythm.language.calendar import iso_text
from rhythm.language.members import own_keys
from rhythm.language.numbers import number_to_string, parse_float, parse_int
from rhythm.language.operators import describe, error_text, tag_of, to_number, to_string
from rhythm.language.promises import PENDING, REJECTED, Promise
from rhythm.language.units import join_surrogates
from rhythm.language.values_map import ARRAY_VALUES, COLLECTION_ENTRIES, JSIterator, JSMap, JSSet
from rhythm.language.values_types import STRING_LENGTH_MAX as UNITS_MAX
from rhythm.language.values_types import (
    UNDEFINED,
    Builtin,
    BuiltinMethod,
    EmptySlots,
    JSDate,
    JSError,
    JSThrow,
    Namespace,
    NativeFunction,
    Value,
    is_callable,
    running_realm,
)

DEPTH: Final = 2  #: Levels of containers inside a value that are shown.
DEPTH_DETAILED: Final = 4  #: The same for %o.
ITEMS_MAX: Final = 100  #: Elements of one array, Map or Set that are shown.
STRING_LENGTH_MAX: Final = 10_000  #: Characters of one string inside a value that are shown.
CHARACTERS_MAX: Final = 32 * 1024  #: Characters of all values of one call.
LINE_WIDTH: Final = 80  #: What a value on one line may take.
LEVELS_ON_ONE_LINE: Final = 3  #: Containers inside each other that share a line if they fit.
COLUMNS_MAX: Final = 15
_WRAPPED_STRING_MIN: Final = 16  # shorter strings stay on one line whatever is in them
_IDENTIFIER = re.compile(r"[a-zA-Z_][a-zA-Z_0-9]*")
_ESCAPED = re.compile("[\x00-\x1f\\\\\x7f-\x9f]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
_SHORT_ESCAPES: Final = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", "\\": "\\\\"}
_STACK_LINE: Final = "\n    at "
_CIRCULAR_JSON: Final = "Converting circular structure to JSON"


def inspect(value: Value) -> str:
    """A value for people, as `util.inspect` shows it. Runs no flow code."""
    return _Inspector(DEPTH).value(value, 0)


def format_arguments(values: Sequence[Value]) -> str:
    """The line of a console call."""
    if not values:
        return ""
    first = values[0]
    if first.__class__ is str and len(values) == 1:
        return str(first)
    parts: list[str] = []
    taken = 0
    if first.__class__ is str and "%" in first:
        text, taken = _fill_in(first, values)
        parts = [text] if taken else []
    parts += [value if value.__class__ is str else inspect(value) for value in values[taken:]]
    return _line(parts, " ")


def _line(parts: list[str], glue: str) -> str:
    """The parts in a row; so long ones that they could not be a string are cut."""
    if sum(map(len, parts)) <= UNITS_MAX:
        return glue.join(parts)
    kept: list[str] = []
    left = CHARACTERS_MAX
    for part in parts:
        kept.append(part[:left])
        left -= len(kept[-1])
        if left <= 0:
            break
    return glue.join(kept) + "…"


def _fill_in(text: str, values: Sequence[Value]) -> tuple[str, int]:
    """The text with its directives replaced, and how many of the values are in it; 0 when it has no directive."""
    parts: list[str] = []
    used, last, place = 1, 0, text.find("%")
    while 0 <= place < len(text) - 1:
        letter = text[place + 1]
        convert = _DIRECTIVES.get(letter)
        if letter == "%":
            parts.append(text[last : place + 1])
            last = place + 2
        elif convert is not None and used < len(values):
            parts += [text[last:place], convert(values[used])]
            used += 1
            last = place + 2
        place = text.find("%", place + 2)
    return (_line([*parts, text[last:]], ""), used) if last else (text, 0)


def _as_string(value: Value) -> str:
    if value.__class__ is str:
        return str(value)
    own = value if value.__class__ is dict else value.props if value.__class__ is JSError else {}
    if is_callable(own.get("toString")):
        return to_string(value)
    return _Inspector(0).value(value, 0)


def _as_number(value: Value) -> str:
    return _number(math.nan if _is_function(value) else to_number(value))


def _as_integer(value: Value) -> str:
    return _number(math.nan if _is_function(value) else parse_int(to_string(value), 10))


def _as_float(value: Value) -> str:
    return _number(math.nan if _is_function(value) else parse_float(to_string(value)))


def _as_json(value: Value) -> str:
    try:
        return describe(stringify(value))
    except JSThrow as error:
        thrown = error.value
        if thrown.__class__ is JSError and str(thrown.props.get("message", "")).startswith(_CIRCULAR_JSON):
            return "[Circular]"
        raise


_DIRECTIVES: Final[dict[str, Callable[[Value], str]]] = {
    "s": _as_string,
    "d": _as_number,
    "i": _as_integer,
    "f": _as_float,
    "j": _as_json,
    "o": lambda value: _Inspector(DEPTH_DETAILED, hidden=True).value(value, 0),
    "O": inspect,
    "c": lambda value: "",
}


class _Inspector:
    """One value on its way into text."""

    def __init__(self, depth: int, *, hidden: bool = False) -> None:
        self.depth = depth
        self.hidden = hidden
        self.left = CHARACTERS_MAX
        self.indentation = 0
        self.path: list[Value] = []  # containers that are being shown, outermost first
        self.circular: dict[int, int] = {}  # ids of those that show up inside themselves -> their number
        self.level = 0  # of the container shown last

    def value(self, value: Value, level: int) -> str:
        text = self._primitive(value)
        if text is None:
            before = self.left
            text = self._object(value, level)
            if self.left < before:
                return text  # what is inside has been counted
        self.left -= len(text)
        return text

    def _primitive(self, value: Value) -> str | None:
        kind = value.__class__
        if kind is str:
            return self._string(value)
        if kind is float:
            return _number(value)
        if kind is bool or value is None or value is UNDEFINED:
            return describe(value)
        if _is_function(value):
            return _function(value)
        if kind is JSDate:
            return iso_text(value.ms) if value.ms == value.ms else "Invalid Date"
        return f"Object [{value.name}] {{}}" if kind is Namespace else None

    def _string(self, text: str) -> str:
        more = len(text) - STRING_LENGTH_MAX
        trailer = ""
        if more > 0:
            text = text[:STRING_LENGTH_MAX]
            trailer = f"... {more} more character{'s' if more > 1 else ''}"
        if len(text) > _WRAPPED_STRING_MIN and len(text) > LINE_WIDTH - self.indentation - 4:
            lines = [quoted(line) for line in re.split("(?<=\n)", text) if line]
            return f" +\n{' ' * (self.indentation + 2)}".join(lines) + trailer
        return quoted(text) + trailer

    def _object(self, value: Value, level: int) -> str:
        if self.left <= 0:
            return "…"
        if any(value is outer for outer in self.path):
            number = self.circular.setdefault(id(value), len(self.circular) + 1)
            return f"[Circular *{number}]"
        kind = value.__class__
        base = ""
        keys: list[tuple[str, Value]] = []  # named properties, with the names as they are shown
        if kind is JSError:
            base, keys = self._error(value)
            if not keys:
                self.left -= len(base)
                return base
        elif kind is dict:
            keys = [(_key(key), value[key]) for key in own_keys(value)] if value else []
            if not keys:
                return "{}"
        elif kind is list and not value and not self.hidden:
            return "[]"
        elif (kind is JSMap or kind is JSSet) and not value.size():
            return f"{tag_of(value)}(0) {{}}"
        elif kind is JSIterator and _is_plain_iterator(value):
            return f"Object [{tag_of(value)}] {{}}"
        if level > self.depth:
            return f"[{_class_name(value)}]"
        level += 1
        self.path.append(value)
        self.level = level
        opening, closing, entries = self._entries(value, level)
        entries += self._properties(keys, level)
        number = self.circular.get(id(value), 0)
        if number:
            base = f"<ref *{number}> {base}" if base else f"<ref *{number}>"
        self.path.pop()
        return self._joined(entries, base, opening, closing, level, value if kind is list else None)

    def _entries(self, value: Value, level: int) -> tuple[str, str, list[str]]:
        """The brackets of a container, and its elements."""
        kind = value.__class__
        if kind is list:
            shown = self._elements(value, level, len(value))
            return "[", "]", [*shown, f"[length]: {len(value)}"] if self.hidden else shown
        if kind is JSMap:
            entries = value.entries()
            return f"Map({len(entries)}) {{", "}", self._elements(entries[:ITEMS_MAX], level, len(entries), pairs=True)
        if kind is JSSet:
            members = [key for key, _ in value.entries()]
            return f"Set({len(members)}) {{", "}", self._elements(members[:ITEMS_MAX], level, len(members))
        if kind is EmptySlots:
            return "[", "]", [f"<{value.length} empty item{'s' if value.length > 1 else ''}>"]
        if kind is Promise:
            if value.state == PENDING:
                return "Promise {", "}", ["<pending>"]
            (text,) = self._elements([value.value], level, 1)
            return "Promise {", "}", [f"<rejected> {text}" if value.state == REJECTED else text]
        if kind is JSIterator:
            return self._iterator(value, level)
        return "{", "}", []

    def _elements(self, items: Sequence[Any], level: int, count: int, *, pairs: bool = False) -> list[str]:
        self.indentation += 2
        shown: list[str] = []
        for item in items[:ITEMS_MAX]:
            if self.left <= 0:
                shown.append("…")
                break
            text = self.value(item[0], level) if pairs else self.value(item, level)
            shown.append(f"{text} => {self.value(item[1], level)}" if pairs else text)
        self.indentation -= 2
        if count > ITEMS_MAX and shown[-1] != "…":
            more = count - ITEMS_MAX
            shown.append(f"... {more} more item{'s' if more > 1 else ''}")
        return shown

    def _iterator(self, iterator: JSIterator, level: int) -> tuple[str, str, list[str]]:
        place = iterator.position()
        left = iterator.target.entries()[place:] if place >= 0 else []
        tag = tag_of(iterator.target)
        if iterator.kind == COLLECTION_ENTRIES:
            pairs = [list(entry) if tag == "Map" else [entry[0], entry[0]] for entry in left]
            return f"[{tag} Entries] {{", "}", self._elements(pairs, level, len(pairs))
        values = [entry[1] if iterator.kind == "collection values" and tag == "Map" else entry[0] for entry in left]
        return f"[{tag} Iterator] {{", "}", self._elements(values, level, len(values))

    def _properties(self, keys: list[tuple[str, Value]], level: int) -> list[str]:
        self.indentation += 2
        shown: list[str] = []
        for name, value in keys:
            if self.left <= 0:
                shown.append("…")
                break
            self.left -= len(name)
            shown.append(f"{name}: {self.value(value, level)}")
        self.indentation -= 2
        return shown

    def _error(self, error: JSError) -> tuple[str, list[tuple[str, Value]]]:
        props = error.props
        stack = _stack(error)
        names = [
            key for key in own_keys(error) if not (key in ("name", "message", "stack") and _says(stack, props[key]))
        ]
        keys = [(_key(name), props[name]) for name in names]
        more = ("cause", "errors") if error.kind == "AggregateError" else ("cause",)
        keys += [(f"[{name}]", props[name]) for name in more if name in props and name not in names]
        if self.indentation:
            stack = stack.replace("\n", "\n" + " " * self.indentation)
        return stack, keys

    # --- lines ---

    def _joined(
        self, entries: list[str], base: str, opening: str, closing: str, level: int, array: list[Value] | None
    ) -> str:
        count = len(entries)
        if array is not None and count > 6:
            entries = self._columns(entries, array)
        front = f"{base} " if base else ""
        if self.level - level < LEVELS_ON_ONE_LINE and count == len(entries):
            width = sum(map(len, entries)) + 2 * count + self.indentation + len(opening) + len(base) + 10
            if width <= LINE_WIDTH and "\n" not in base:
                line = ", ".join(entries)
                if "\n" not in line:
                    return f"{front}{opening} {line} {closing}"
        margin = "\n" + " " * self.indentation
        return f"{front}{opening}{margin}  {f',{margin}  '.join(entries)}{margin}{closing}"

    def _columns(self, entries: list[str], array: list[Value]) -> list[str]:
        """Many short elements side by side; numbers to the right."""
        rest = entries[ITEMS_MAX:] if len(entries) > ITEMS_MAX else []
        cells = entries[: len(entries) - len(rest)] if rest else entries
        widths = [_width(cell) for cell in cells]
        longest = max(widths) + 2
        total = sum(widths) + 2 * len(cells)
        if not (longest * 3 + self.indentation < LINE_WIDTH and (total / longest > 5 or longest <= 8)):
            return entries
        typical = max(longest - 3 - math.sqrt(longest - total / len(entries)), 1)
        columns = min(
            math.floor(math.sqrt(2.5 * typical * len(cells)) / typical + 0.5),
            (LINE_WIDTH - self.indentation) // longest,
            LEVELS_ON_ONE_LINE * 4,
            COLUMNS_MAX,
        )
        if columns <= 1:
            return entries
        numbers = len(array) >= len(entries) and all(item.__class__ is float for item in array[: len(entries)])
        room = [max(widths[column::columns]) + 2 for column in range(columns)]
        lines = []
        for first in range(0, len(cells), columns):
            row = range(first, min(first + columns, len(cells)))
            line = ""
            for place in row:
                last = place == row[-1]
                cell = cells[place] if last else f"{cells[place]}, "
                padding = " " * (room[place - first] - widths[place] - 2)
                line += padding + cell if numbers else cell if last else cell + padding
            lines.append(line)
        return [*lines, *rest]


def quoted(text: str) -> str:
    """A string as it stands inside a value: in quotes that need no escape, control characters and halves escaped."""
    mark = "'"
    if "'" in text:
        mark = '"' if '"' not in text else "`" if "`" not in text and "${" not in text else "'"
    text = _ESCAPED.sub(_escape, text)
    return f"{mark}{text.replace(mark, chr(92) + mark) if mark == chr(39) else text}{mark}"


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _SHORT_ESCAPES.get(character) or (f"\\u{code:x}" if code > 0xFF else f"\\x{code:02X}")


def _key(name: str) -> str:
    name = name[:CHARACTERS_MAX]
    if _IDENTIFIER.fullmatch(name) is None:
        return quoted(name)
    return "['__proto__']" if name == "__proto__" else name


def _number(number: float) -> str:
    return "-0" if number == 0 and math.copysign(1.0, number) < 0 else number_to_string(number)


def _is_function(value: Value) -> bool:
    return value.__class__ is FunctionType or isinstance(value, NativeFunction)


def _function(function: Value) -> str:
    name, kind = "", "Function"
    if function.__class__ is FunctionType:
        realm = running_realm()
        instance: Any = None if realm is None else realm.instance
        found = None if instance is None else instance.function_id(function)
        if found is not None:
            described = instance.program.ir["functions"][found]
            name, kind = described["name"], "AsyncFunction" if described["kind"] == "async" else "Function"
    elif isinstance(function, Builtin | BuiltinMethod):
        name = function.name.rpartition(".")[2]
    return f"[{kind}: {name}]" if name else f"[{kind} (anonymous)]"


def _class_name(value: Value) -> str:
    kind = value.__class__
    if kind is JSError:
        return str(value.kind)
    if kind is list or kind is EmptySlots:
        return "Array"
    if kind is JSIterator:
        return f"Object [{tag_of(value)}]"
    return "Promise" if kind is Promise else tag_of(value)


def _is_plain_iterator(iterator: JSIterator) -> bool:
    return iterator.target.__class__ not in (JSMap, JSSet) or iterator.kind == ARRAY_VALUES


def _stack(error: JSError) -> str:
    """The stack under the name and message that the error has now; in brackets when it names no place."""
    props = error.props
    name, message = props.get("name", error.kind), props.get("message", "")
    stack = props.get("stack")
    now = error_text(describe(name), describe(message))
    text = stack if stack.__class__ is str and stack else now
    head, mark, places = text.partition(_STACK_LINE)
    if head == error.kind or head.startswith(f"{error.kind}: "):  # as it was made
        head = now
        kind = error.kind
        if name.__class__ is str and name.endswith("Error") and name != kind and "name" not in error.hidden:
            head = (kind if name in kind else f"{kind} [{name}]") + now.removeprefix(name)
    return f"{head}{mark}{places}" if mark else f"[{head}]"


def _says(stack: str, value: Value) -> bool:
    return value.__class__ is not str or value in stack


def _width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in join_surrogates(text)
    )
