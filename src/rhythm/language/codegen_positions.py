"""From generated Python back to flow positions, at no cost while nothing goes wrong.

`assemble` turns written lines into text. Every operation that can throw was marked in its expression; a mark becomes a
line break there, so one generated line belongs to one flow position and a table of positions by line number is all
there is. Python keeps line numbers of running frames and of tracebacks; `locate` and `walk` translate them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Final

from rhythm.language.codegen_reads import Line
from rhythm.language.codegen_text import MARK, MARK_END

STACK_RUNNING_MAX: Final = 10  #: Running flow functions listed in the stack of an error.
STACK_LINES_MAX: Final = 20  #: The same, with the async functions that wait for them.

Place = tuple[int, int]  #: Function id, packed position.
Traced = tuple[FrameType, int]  #: A Python frame and the line it is at.


def assemble(lines: list[Line]) -> tuple[str, list[int]]:
    """The text of a module, and the packed flow position of each of its lines (line 1 is at index 1)."""
    out: list[str] = []
    positions: list[int] = [0]
    for indent, text, position in lines:
        first, *rest = text.split(MARK)
        out.append(" " * indent + first)
        positions.append(position)
        for part in rest:
            number, _, code = part.partition(MARK_END)
            if not first:
                # The line begins with the mark: it is the position of the line itself.
                out[-1] += code
                positions[-1] = int(number)
                first = code
                continue
            # A backslash joins lines outside brackets too.
            out[-1] += "\\"
            out.append(code)
            positions.append(int(number))
    out.append("")
    return "\n".join(out), positions


class PositionTable:
    """Where the generated code of one program comes from."""

    def __init__(self, positions: list[int], functions: dict[int, int]) -> None:
        self._positions = positions
        self._functions = functions  #: Function ids by id() of their code objects.
        self._comprehensions: set[int] = set()  #: id() of the code objects of comprehensions inside them.

    def add_comprehensions(self, code: CodeType) -> None:
        """Comprehensions in a function's code are frames of their own to Python, and the function's to a flow."""
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._functions[id(constant)] = self._functions[id(code)]
                self._comprehensions.add(id(constant))

    def locate(self, code: CodeType, line: int) -> Place | None:
        """The flow function and position of a line, None for code that is not the program's."""
        function_id = self._functions.get(id(code))
        if function_id is None:
            return None
        return function_id, self._positions[line] if 0 <= line < len(self._positions) else 0

    def innermost(self, where: FrameType | TracebackType | None) -> Place | None:
        """The innermost flow place of a traceback, or of a frame and its callers."""
        frames = traced(where) if isinstance(where, TracebackType) else callers(where)
        return next((place for place, _ in self.walk(frames)), None)

    def walk(self, frames: Iterable[Traced]) -> Iterator[tuple[Place, FrameType]]:
        """The flow places of Python frames, innermost first, with these frames."""
        inner: Place | None = None
        for frame, line in frames:
            place = inner or self.locate(frame.f_code, line)
            inner = place if id(frame.f_code) in self._comprehensions else None
            if place is not None and inner is None:
                yield place, frame


def callers(frame: FrameType | None) -> Iterator[Traced]:
    """A frame and its callers, innermost first."""
    while frame is not None:
        yield frame, frame.f_lineno or 0
        frame = frame.f_back


def traced(trace: TracebackType) -> Iterator[Traced]:
    """The frames of a traceback and the callers of its outermost one, innermost first."""
    outermost = trace.tb_frame
    inner: list[Traced] = []
    rest: TracebackType | None = trace
    while rest is not None:
        inner.append((rest.tb_frame, rest.tb_lineno))
        rest = rest.tb_next
    yield from reversed(inner)
    yield from callers(outermost.f_back)
