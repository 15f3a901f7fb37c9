"""From the persisted IR to something that runs.

    load(ir) -> Program        analysis, text, compiled code; shared by all executions of a definition
    Program.instantiate(realm) -> Instance        the program's functions for one execution

A sync flow function becomes a Python function made by a factory `m_5(cells...)`; its captured variables are one-element
lists, so that a snapshot can take a closure apart (`function_id`, `cells_of`) and put it together again (`make`). An
async one becomes a step function over a `Frame` (codegen_flat). All factories live in one generated `build(R)`, run
once per instance; helpers are globals of the generated module, which has no builtins.

    codegen_tree          walking the IR, kinds of values
    codegen_contents      who can reach an array or object, and what it can hold
    codegen_types         what is known about values before writing
    codegen_effects       what running a piece can do to properties
    codegen_text          codes, positions, constants: the pieces of generated text
    codegen_operators     operators, variables and tests
    codegen_expressions   properties, calls and literals
    codegen_reads         property reads as statements of their own
    codegen_inline        array methods with a short callback as loops
    codegen_statements    structured statements
    codegen_flat          awaits and deep nesting: numbered blocks; whole functions
    codegen_positions     generated lines back to flow positions
    codegen_helpers       what generated code can call

It must never let program data into the text other than by number, `ascii()` or `repr()` of a checked float; and nothing
here is stored: programs are kept as IR, generated anew by each process.

Failure: `load` raises ir.IRError for an IR that is not valid. Generated code raises JSThrow (flow exceptions),
FatalError, RecursionError; anything else is a bug of ours or a forged snapshot, and ends the activation.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import Any, Final, cast

from rhythm.language import ir as flow_ir
from rhythm.language.builtins import GLOBALS
from rhythm.language.codegen_flat import FunctionWriter
from rhythm.language.codegen_helpers import namespace
from rhythm.language.codegen_positions import (
    STACK_LINES_MAX,
    STACK_RUNNING_MAX,
    Place,
    PositionTable,
    assemble,
    callers,
    traced,
)
from rhythm.language.codegen_reads import Line
from rhythm.language.codegen_text import Constants
from rhythm.language.codegen_types import Analysis
from rhythm.language.promises import Frame, Promise, Realm, settled_by, waiting_frame
from rhythm.language.values import METHODS, JSThrow, Value, caught

CALLERS_LOOKED_AT: Final = 10  #: Python frames between a flow function, or an error without one, and its job.
GENERATOR_STACK: Final = 6_000  #: Python recursion limit while generating: 300 nested statements take about 2,000.

Cells = tuple[list[Value], ...]
_Factories = tuple[tuple[Callable[..., FunctionType], ...], tuple[Callable[..., Value] | None, ...]]


class Program:
    """The compiled form of one definition. Immutable; any number of instances, on any thread."""

    def __init__(self, ir: dict[str, Any], content_hash: str) -> None:
        self.ir = ir  #: The IR it was made from.
        self.hash = content_hash  #: Content hash of the IR.
        self.name: str = ir["name"]
        constants = Constants(GLOBALS, METHODS)
        with _deep_recursion(), warnings.catch_warnings():
            # Python warns of what is odd in Python but means something in a flow, such as `5[0]`.
            warnings.simplefilter("ignore", SyntaxWarning)
            self.source, line_positions = _generate(ir, constants)  #: Generated text, for debugging.
            module = compile(self.source, "<flow>", "exec", dont_inherit=True)
        functions, steps = _code_objects(module)
        # By id: hashing a code object takes long, and the program keeps them all alive.
        self._function_ids = {id(code): function_id for code, function_id in functions.items()}
        self._cell_places = {id(code): _cell_places(code) for code in functions}
        located = {code: index for code, index in functions.items() if ir["functions"][index]["kind"] == "sync"}
        self.positions = PositionTable(line_positions, {id(code): index for code, index in (located | steps).items()})
        for code in located | steps:
            self.positions.add_comprehensions(code)
        names = namespace(constants.bound)
        exec(module, names)  # noqa: S102 - the text is ours; program data is in it by number and ascii() only
        self._build = cast("Callable[[Realm], _Factories]", names["build"])

    def instantiate(self, realm: Realm) -> Instance:
        """The program's functions for one execution; attaches itself to the realm."""
        makers, steps = self._build(realm)
        instance = Instance(self, realm, makers, steps)
        realm.instance = instance
        realm.step = instance.step
        realm.stack = instance.stack
        return instance

    def describe(self, place: Place) -> tuple[str, int, int]:
        """(function name, line, column) of a place in the program."""
        function_id, position = place
        line, column = flow_ir.unpack_position(position)
        return self.ir["functions"][function_id]["name"], line, column


class Instance:
    """One execution's copy of a program's functions."""

    __slots__ = ("_makers", "_steps", "program", "realm")

    def __init__(
        self,
        program: Program,
        realm: Realm,
        makers: tuple[Callable[..., FunctionType], ...],
        steps: tuple[Callable[..., Value] | None, ...],
    ) -> None:
        self.program = program
        self.realm = realm
        self._makers = makers
        self._steps = steps

    def run_module(self) -> Value:
        """Initialise the top-level bindings; return the workflow's closure. May raise JSThrow."""
        return self._makers[0]()()

    def make(self, function_id: int, cells: Cells) -> FunctionType:
        """A closure of that function over these cells; the inverse of function_id and cells_of.

        Raises ValueError when the program has no such function or it captures another number of cells.
        """
        functions = self.program.ir["functions"]
        if not 0 <= function_id < len(functions) or len(functions[function_id]["captures"]) != len(cells):
            raise ValueError(f"no function {function_id} with {len(cells)} cells")
        return self._makers[function_id](*cells)

    def function_id(self, function: Value) -> int | None:
        """Id of the flow function behind a closure; None for anything else."""
        if function.__class__ is not FunctionType:
            return None
        return self.program._function_ids.get(id(function.__code__))

    def cells_of(self, function: FunctionType) -> Cells:
        """The captured cells of a closure, in the order of the IR's captures."""
        closure = function.__closure__
        places = self.program._cell_places[id(function.__code__)]
        return tuple(closure[place].cell_contents for place in places) if closure else ()

    def step(self, frame: Frame, value: Value, rejected: bool) -> None:
        """Resume a parked frame with the value it waited for, or the reason of a rejection."""
        await_id = frame.await_id
        frame.await_id = -1
        step = self._steps[frame.function_id]
        assert step is not None, "only async functions park"
        try:
            result = step(frame, await_id + 1, value, rejected)
        except (JSThrow, RecursionError) as error:
            self.realm.reject_promise(frame.promise, caught(error))
            return
        if frame.await_id < 0:
            self.realm.resolve_promise(frame.promise, result)
        else:
            self.realm.await_value(frame, result)

    def position(self, where: FrameType | TracebackType | None) -> tuple[str, int, int] | None:
        """(function name, line, column) of the innermost flow code of a traceback, or of a frame and its callers."""
        place = self.program.positions.innermost(where)
        return None if place is None else self.program.describe(place)

    def stack(self, trace: TracebackType | None = None) -> str:
        """The running flow functions, or those of a traceback, innermost first, as the lines of an error's stack.

        Behind them the async functions that wait for what they settle.
        """
        lines: list[str] = []
        outermost: FrameType | None = None
        frames = callers(sys._getframe(1)) if trace is None else traced(trace)
        for place, outermost in self.program.positions.walk(frames):  # noqa: B007  (its last value is used)
            if len(lines) < STACK_RUNNING_MAX:
                lines.append(f"    at {self._shown(place)}")
        promise = _settled_in(outermost, sys._getframe(1))
        return "\n".join(lines if promise is None else [*lines, *self.waiting(promise, STACK_LINES_MAX - len(lines))])

    def waiting(self, promise: Promise, count: int = STACK_LINES_MAX) -> list[str]:
        """The async functions that wait for a promise, innermost first, as lines of an error's stack."""
        lines: list[str] = []
        frame = waiting_frame(promise)
        while frame is not None and len(lines) < count:
            lines.append(f"    at async {self._shown(self._parked_place(frame))}")
            frame = waiting_frame(frame.promise)
        return lines

    def _parked_place(self, frame: Frame) -> Place:
        line, column = self.program.ir["functions"][frame.function_id]["awaits"][frame.await_id]["pos"]
        return frame.function_id, flow_ir.pack_position(line, column)

    def _shown(self, place: Place) -> str:
        name, line, column = self.program.describe(place)
        where = f"{self.program.name}.flow:{line}:{column}"
        return f"{name} ({where})" if name else where


def _settled_in(outermost: FrameType | None, inside: FrameType) -> Promise | None:
    """What the job around a flow function settles, or, without one, the job around ``inside``."""
    if outermost is not None:
        frame = outermost.f_locals.get("frame")
        if isinstance(frame, Frame):
            return frame.promise
    python_frame: FrameType | None = outermost or inside
    for _ in range(CALLERS_LOOKED_AT):
        if python_frame is None:
            return None
        promise = settled_by(python_frame)
        if promise is not None:
            return promise
        python_frame = python_frame.f_back
    return None


def load(ir: dict[str, Any], content_hash: str | None = None, *, validated: bool = False) -> Program:
    """The program of an IR.

    `content_hash` is its hash where the caller knows it. `validated` says that ir.validate has accepted this very
    object (ir.from_bytes does that). Raises ir.IRError.
    """
    if not validated:
        flow_ir.validate(ir)
    if content_hash is None:
        with _deep_recursion():
            content_hash = flow_ir.content_hash(ir)
    return Program(ir, content_hash)


def _generate(ir: dict[str, Any], constants: Constants) -> tuple[str, list[int]]:
    analysis = Analysis(ir)
    functions = ir["functions"]
    lines: list[Line] = [Line(0, "def build(R):", 0)]
    for function in functions:
        lines += FunctionWriter(analysis, function, constants).write()
    makers = "".join(f"m_{function['id']}, " for function in functions)
    steps = "".join(f"a_{function['id']}, " if function["kind"] == "async" else "None, " for function in functions)
    lines.append(Line(1, f"return ({makers}), ({steps})", 0))
    return assemble(lines)


def _code_objects(module: CodeType) -> tuple[dict[CodeType, int], dict[CodeType, int]]:
    """(flow functions by code object, step functions of async ones by code object)."""
    functions: dict[CodeType, int] = {}
    steps: dict[CodeType, int] = {}
    for build in _inner(module):
        for outer in _inner(build):
            letter, _, number = outer.co_name.partition("_")
            if letter == "m":
                for code in _inner(outer):
                    functions[code] = int(number)
            elif letter == "a":
                steps[outer] = int(number)
    return functions, steps


def _inner(code: CodeType) -> Iterator[CodeType]:
    return (constant for constant in code.co_consts if isinstance(constant, CodeType))


def _cell_places(code: CodeType) -> tuple[int, ...]:
    """Where the closure tuple of a function holds c0, c1, ..."""
    names = code.co_freevars
    count = sum(1 for name in names if name[0] == "c")
    return tuple(names.index(f"c{index}") for index in range(count))


_recursion_lock = threading.Lock()


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Room for visiting deeply nested statements. Recursion from Python to Python takes no C stack."""
    with _recursion_lock:
        limit = sys.getrecursionlimit()
        if limit >= GENERATOR_STACK:
            yield
            return
        sys.setrecursionlimit(GENERATOR_STACK)
        try:
            yield
        finally:
            sys.setrecursionlimit(limit)
