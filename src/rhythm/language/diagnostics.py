"""Diagnostics: what is wrong with a program, found before it runs.

Each has a stable code, a span, one plain sentence, and a hint that says what to write instead where that can be
guessed. Codes are listed once, in CODES, and are never reused for something else.

    F1xx  syntax           F2xx  JavaScript that flows do not support
    F3xx  names            F4xx  the shape of a workflow file
    F5xx  calls of tasks   W1xx, W2xx  warnings
    U1xx  calls that cannot be compared with what they call: severity "unchecked"
"""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

DIAGNOSTICS_MAX: Final = 100  #: Reported for one file, of each severity; the rest would be echoes.
_SIMILAR: Final = 0.6  #: how alike a name must be to be suggested
_CANDIDATES_MAX: Final = 1_000  #: others that one name is compared with
_SUGGESTED_LENGTH_MAX: Final = 100  #: characters of a name worth comparing

CODES: Final[dict[str, str]] = {
    "F101": "unexpected token",
    "F102": "string, template or comment without an end",
    "F103": "malformed number",
    "F104": "malformed escape",
    "F105": "character that cannot stand here",
    "F106": "await outside an async function",
    "F107": "cannot be assigned to",
    "F108": "label, break or continue without its target",
    "F109": "parameter named twice",
    "F110": "nested too deeply",
    "F111": "source too large",
    "F112": "declaration without a value",
    "F113": "?? mixed with || or && without parentheses",
    "F114": "unary operator before **",
    "F115": "reserved word used as a name",
    "F116": "return outside a function",
    "F117": "line break after throw",
    "F118": "rest element not in last place",
    "F119": "declaration where only a statement may stand",
    "F120": "switch with two defaults",
    "F121": "delete of a variable",
    "F201": "var",
    "F202": "this, super or new.target",
    "F203": "class",
    "F204": "getter or setter",
    "F205": "generator",
    "F206": "regular expression",
    "F207": "BigInt",
    "F208": "tagged template",
    "F209": "array with holes",
    "F210": "import or export",
    "F211": "with",
    "F212": "debugger",
    "F213": "arguments object",
    "F214": "property that flows do not have",
    "F215": "global that flows do not have",
    "F216": "new with something that is no constructor",
    "F217": "for await",
    "F218": "private name or decorator",
    "F219": "__proto__",
    "F220": "HTML comment or hashbang",
    "F221": "TypeScript",
    "F222": "JSX",
    "F301": "name that is not declared",
    "F302": "assignment to a constant",
    "F303": "name declared twice",
    "F305": "assignment to a builtin",
    "F401": "no workflow in the file",
    "F402": "more than one workflow in the file",
    "F403": "too many workflow parameters",
    "F404": "statement outside the workflow",
    "F405": "top-level value that needs the running workflow",
    "F406": "syntax of the earlier experimental Rhythm",
    "F501": "task that does not exist",
    "F502": "input that is missing",
    "F503": "input that the task does not have",
    "F504": "input of another type, or out of bounds",
    "F505": "option that does not exist",
    "F506": "argument or option of another type",
    "W101": "line that continues the one before",
    "W102": "promise used as a condition",
    "W103": "promise used as data",
    "W104": "variable that is never used",
    "W105": "code that is never reached",
    "W106": "assignment used as a condition",
    "W107": "comparison of different types",
    "W108": "case that can never be chosen",
    "W109": "name used before its declaration",
    "W110": "function declared twice",
    "W111": "loop that does not wait for its function",
    "W112": "block that looks like an object",
    "W113": "promises where a list of them belongs",
    "W201": "workflow that is not among the files",
    "W202": "property that the output of a task does not have",
    "U101": "call of something whose name is not known beforehand",
    "U102": "inputs that are not known beforehand",
    "U103": "task or child used as a value",
    "U104": "task that nobody has registered",
    "U105": "options or arguments that are not known beforehand",
}

#: What is said about names and places; with brackets that do not fit, of no use.
_ECHOES: Final = frozenset({"F106", "F108", "F116", "F301", "F303", "F401", "F404", "F405"})
_LINE_END = re.compile("\r\n|[\n\r\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem. ``line`` and ``column`` count from 1; columns count characters."""

    severity: str  #: "error", "warning", or "unchecked": no problem is known, but nor is it known that there is none
    code: str
    message: str
    hint: str  #: "" when there is nothing to suggest
    start: int  #: offsets into the source, end exclusive
    end: int
    line: int
    column: int
    file: str


class LineMap:
    """Line and column of offsets in one source text."""

    def __init__(self, source: str) -> None:
        self.starts = [0, *(match.end() for match in _LINE_END.finditer(source))]

    def position(self, offset: int) -> tuple[int, int]:
        line = bisect.bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1] + 1


def position(source: str, offset: int) -> tuple[int, int]:
    """(line, column) of an offset, both from 1. For many offsets use LineMap."""
    return LineMap(source).position(offset)


def closest(name: str, others: Iterable[str]) -> str | None:
    """The one of the others that was probably meant by a name, or None."""
    if len(name) > _SUGGESTED_LENGTH_MAX:
        return None
    candidates = [other for other in sorted(others) if len(other) <= _SUGGESTED_LENGTH_MAX]
    similar = difflib.get_close_matches(name, candidates[:_CANDIDATES_MAX], 1, _SIMILAR)
    return similar[0] if similar else None


class Report:
    """Collects the diagnostics of one source text."""

    def __init__(self, source: str, filename: str) -> None:
        self.source = source
        self.filename = filename
        self.lines = LineMap(source)
        self.diagnostics: list[Diagnostic] = []
        self.unbalanced = False  # a bracket is missing, or one too many
        self.cut_off: int | None = None  # where a template without an end begins: what follows is not read
        # Counted apart: warnings must never crowd out an error, which decides whether the program compiles.
        self.left = {"error": DIAGNOSTICS_MAX, "warning": DIAGNOSTICS_MAX, "unchecked": DIAGNOSTICS_MAX}

    def error(self, code: str, message: str, start: int, end: int, hint: str = "") -> None:
        if self.cut_off is not None and start > self.cut_off:
            return  # an echo
        self._add("error", code, message, start, end, hint)

    def drop_echoes(self) -> None:
        """Forgets what only follows from brackets that do not fit: behind such a mistake nothing is in its place."""
        if not self.unbalanced or not self.has_error("F1"):
            return
        first = min(d.start for d in self.diagnostics if d.code.startswith("F1"))
        self.diagnostics = [
            d for d in self.diagnostics if d.start <= first or not (d.code in _ECHOES or d.severity == "warning")
        ]

    def has_error(self, code: str, start: int = 0) -> bool:
        """Whether an error whose code begins like this is reported from an offset on."""
        return any(d.code.startswith(code) and d.start >= start for d in self.diagnostics)

    def warning(self, code: str, message: str, start: int, end: int, hint: str = "") -> None:
        self._add("warning", code, message, start, end, hint)

    def unchecked(self, code: str, message: str, start: int, end: int, hint: str = "") -> None:
        self._add("unchecked", code, message, start, end, hint)

    def _add(self, severity: str, code: str, message: str, start: int, end: int, hint: str) -> None:
        assert code in CODES, f"diagnostic code {code} is not in the table"
        if self.left[severity] == 0 or any(d.code == code and d.start == start for d in self.diagnostics[-5:]):
            return
        self.left[severity] -= 1
        line, column = self.lines.position(start)
        self.diagnostics.append(
            Diagnostic(severity, code, message, hint, start, max(end, start), line, column, self.filename)
        )


def sort_diagnostics(diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    """In the order of the source."""
    return sorted(diagnostics, key=lambda d: (d.start, d.severity, d.code))
