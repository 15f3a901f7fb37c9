"""Everything the commands print, and their exit codes.

Text that comes from elsewhere (names, errors, inputs) is printed with its control characters made visible: a
task's error message must not move the cursor or colour the terminal of whoever looks at it.
Passwords in URLs are masked in every message.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rhythm.errors import (
    CompileError,
    DatabaseUnavailable,
    DiagnosticLike,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionFinished,
    NotConfigured,
    RetryRefused,
    RhythmError,
    SchemaMismatch,
    SignalRefused,
    SnapshotError,
    StartRefused,
    WaitTimeout,
)

DONE, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3  #: exit codes
CELL_LENGTH_MAX = 120  #: characters of one cell of a table, and of a variable's value
_LINE_END = re.compile("\r\n|[\n\r\u2028\u2029]")  # as the language counts lines
_FAILURES = (
    CompileError,
    ExecutionFailed,
    ExecutionCancelled,
    ExecutionFinished,
    RetryRefused,
    SignalRefused,
    SnapshotError,
    StartRefused,
)
_UNREACHABLE = (NotConfigured, DatabaseUnavailable, SchemaMismatch, WaitTimeout)


def exit_code_of(error: RhythmError) -> int:
    """The exit code that an error ends a command with."""
    if isinstance(error, _UNREACHABLE):
        return UNREACHABLE
    if isinstance(error, _FAILURES):
        return FAILED
    return USAGE


def report(error: RhythmError) -> None:
    """Prints an error to standard error, for a person."""
    if isinstance(error, CompileError):
        message("\n".join(diagnostic_text(diagnostic, None) for diagnostic in error.diagnostics))
        return
    message(f"rhythm: {error}")
    if isinstance(error, DatabaseUnavailable) and "cannot be reached" in str(error):
        message("Is it running, and is the URL right? `rhythm config` says where the URL comes from.")
    if isinstance(error, ExecutionFailed):
        task = error.payload.get("task")
        if task and f"task {task!r}" not in error.remote_message:
            message(f"It is the error of task {task!r}, execution {error.payload.get('executionId')}.")
        if error.traceback and error.traceback.strip() != f"{error.name}: {error.remote_message}":
            message(error.traceback.rstrip())


def message(text: str) -> None:
    """Prints lines for people to standard error."""
    from rhythm.config import mask_passwords

    sys.stderr.write(visible(mask_passwords(text), lines=True) + "\n")


def line(text: str) -> None:
    """Prints a line of data to standard output, as it is."""
    sys.stdout.write(text + "\n")


def json_line(value: Any) -> None:
    """Prints one JSON value on one line of standard output; ASCII, so that no text can break the line."""
    line(json.dumps(value, separators=(",", ":"), default=_plain))


def json_lines(value: Any) -> None:
    """Prints one JSON value over several lines for people; what is not printable is escaped in JSON's way."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=_plain)
    line(text if text.isascii() else "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text))


def value_line(value: Any) -> None:
    """Prints an output: JSON, readable where the terminal can show it."""
    line(visible(json.dumps(value, ensure_ascii=False, default=_plain)))


def visible(text: str, *, lines: bool = False) -> str:
    """The text with control characters, bidirectional overrides and lone surrogates written as escapes."""
    kept = "\n\t" if lines else ""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def short(text: str, length: int = CELL_LENGTH_MAX) -> str:
    """The text on one line, cut where it is too long for that."""
    text = visible(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints aligned columns to standard output. Ids stay whole, whatever the width of the terminal."""
    cells = [list(header)] + [["-" if cell is None else short(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def moment(when: datetime | None) -> str:
    """A time for people: local, to the second."""
    return "-" if when is None else when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(when: datetime | None) -> str:
    """How long ago that was, by this machine's clock."""
    from rhythm.durations import format_seconds

    return "-" if when is None else format_seconds(max(0.0, (datetime.now(UTC) - when).total_seconds()))


# --- diagnostics -----------------------------------------------------------------------------------


def diagnostic_json(diagnostic: DiagnosticLike) -> dict[str, Any]:
    """A diagnostic as the object that `--json` prints."""
    names = ("file", "line", "column", "code", "message", "hint", "severity")
    return {name: getattr(diagnostic, name) for name in names}


def diagnostic_text(diagnostic: DiagnosticLike, source: str | None) -> str:
    """A diagnostic for people; `source` is the file's text, None: it is read from the file if it is still there."""
    where = f"{diagnostic.file}:{diagnostic.line}:{diagnostic.column}"
    head = f"{where}: {diagnostic.severity}[{diagnostic.code}]: {diagnostic.message}"
    if source is None:
        source = _read(diagnostic.file)
    width = getattr(diagnostic, "end", 0) - getattr(diagnostic, "start", 0)
    excerpt = source_excerpt(source, diagnostic.line, diagnostic.column, width, diagnostic.hint)
    return head + (f"\n{excerpt}" if excerpt else f"\n    hint: {diagnostic.hint}" if diagnostic.hint else "")


def source_excerpt(source: str, number: int, column: int, width: int = 1, note: str = "") -> str:
    """A source line with a mark under `width` characters from `column` on, followed by a note; "" past the end."""
    lines = _LINE_END.split(source)
    if not 1 <= number <= len(lines):
        return ""
    text = visible(lines[number - 1], lines=True)
    margin = " " * len(str(number))
    # Tabs stay tabs below the line, so that the mark stands where the reader sees the text.
    indent = "".join("\t" if c == "\t" else " " for c in text[: column - 1])
    mark = "^" * max(1, min(width, len(text) - column + 1))
    return f"  {number} | {text}\n  {margin} | {indent}{mark} {note}".rstrip()


def show_diagnostics(diagnostics: Iterable[DiagnosticLike], sources: Mapping[str, str], *, as_json: bool) -> bool:
    """Prints diagnostics to standard output, in order; whether one of them is an error.

    Those of severity "unchecked" are for programs: people are told how many there are.
    """
    failed = False
    for diagnostic in diagnostics:
        failed = failed or diagnostic.severity == "error"
        if as_json:
            json_line(diagnostic_json(diagnostic))
        elif diagnostic.severity != "unchecked":
            line(visible(diagnostic_text(diagnostic, sources.get(diagnostic.file)), lines=True))
    return failed


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError, ValueError):
        return ""


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
