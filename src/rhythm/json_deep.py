"""JSON that is nested too deeply for Python's own reader and writer, which recurse.

How deep they get depends on how deep the caller stands already and on the recursion limit of the application. V8 reads
any depth, and a payload may have 1,000 levels wherever it is read or written. So when they give up, the work is done
again here: brackets on a list of open containers, everything between them by the reader and writer in C. About thirty
times slower, and never recursive.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_END: Final = {"[": "]", "{": "}"}


def parse(text: str, scan: Callable[[str, int], tuple[Any, int]]) -> Any:
    """The value of JSON text. ``scan(text, at)`` reads one string, number or literal and says where it ends.

    Raises ValueError for text that is not JSON, also through StopIteration of ``scan``.
    """
    reader = _Reader(text, scan)
    try:
        return reader.read()
    except StopIteration:
        raise ValueError("not JSON") from None


class _Text(str):
    """Text between values that wait to be written."""

    __slots__ = ()


def write(value: Any, scalar: Callable[[Any], str]) -> str:
    """JSON text of plain data (dict with text keys, list, what JSON has). ``scalar`` writes all but containers."""
    parts: list[str] = []
    todo: list[Any] = [value]
    while todo:
        item = todo.pop()
        kind = item.__class__
        if kind is _Text:
            parts.append(item)
        elif kind is list:
            parts.append("[")
            todo.append(_Text("]"))
            for place in range(len(item) - 1, -1, -1):
                todo += [item[place], _Text("," if place else "")]
        elif kind is dict:
            parts.append("{")
            todo.append(_Text("}"))
            for place, (key, inner) in zip(range(len(item) - 1, -1, -1), reversed(item.items()), strict=True):
                todo += [inner, _Text(f"{',' if place else ''}{scalar(key)}:")]
        else:
            parts.append(scalar(item))
    return "".join(parts)


class _Reader:
    def __init__(self, text: str, scan: Callable[[str, int], tuple[Any, int]]) -> None:
        self.text = text
        self.scan = scan
        self.at = 0

    def read(self) -> Any:
        root: list[Any] = []
        opened: list[list[Any] | dict[str, Any]] = [root]
        while True:
            value, is_open = self.value(opened[-1])
            if is_open:
                opened.append(value)
                continue
            while len(opened) > 1 and not self.take(","):
                self.expect("]" if opened[-1].__class__ is list else "}")
                opened.pop()
            if len(opened) == 1:
                if self.peek():
                    raise ValueError("more than one value")
                return root[0]

    def value(self, container: list[Any] | dict[str, Any]) -> tuple[Any, bool]:
        """Reads a value into its container; of one that is not empty only the bracket (then True)."""
        key = self.key() if isinstance(container, dict) else ""
        bracket = self.peek()
        if bracket in _END:
            self.at += 1
            value: Any = [] if bracket == "[" else {}
            is_open = not self.take(_END[bracket])
        else:
            value, self.at = self.scan(self.text, self.at)
            is_open = False
        if isinstance(container, dict):
            container[key] = value
        else:
            container.append(value)
        return value, is_open

    def key(self) -> str:
        if self.peek() != '"':
            raise ValueError("a key is a string")
        key, self.at = self.scan(self.text, self.at)
        self.expect(":")
        return str(key)

    def peek(self) -> str:
        match = _SPACE.match(self.text, self.at)
        assert match is not None, "the pattern matches nothing as well"
        self.at = match.end()
        return self.text[self.at : self.at + 1]

    def take(self, wanted: str) -> bool:
        found = self.peek() == wanted
        self.at += found
        return found

    def expect(self, wanted: str) -> None:
        if not self.take(wanted):
            raise ValueError(f"expected {wanted}")
