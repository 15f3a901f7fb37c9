"""JSON text that is nested too deeply for the decoder in C, which recurses.

V8 reads any depth. So when the decoder gives up, the text is read again here: brackets on a list of open containers,
everything between them by the decoder. About thirty times slower, and never recursive.
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
