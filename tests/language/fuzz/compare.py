"""Random programs, every way they can run here, against Node."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Final
from unittest import mock

from rhythm.engine import compile_workflow
from rhythm.errors import CompileError
from rhythm.language import codegen_flat
from tests.language.fuzz.generator import Production, Writer
from tests.language.recorded import run_here, run_in_node

_EVALUATE: Final = sys.modules["rhythm.testing.evaluate"]
#: A slow machine is no difference, and the second run needs no second compilation.
_PATIENT: Final = {"BUDGET_SECONDS": 5.0, "compile_workflow": functools.lru_cache(4)(compile_workflow)}
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Difference:
    """A program that does not do here what it does in Node."""

    seed: int
    source: str
    way: str  #: How it ran here.
    here: dict[str, Any]
    node: dict[str, Any]

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.way}\n{first_difference(self.here, self.node)}"


@dataclass(slots=True)
class Tally:
    """What many programs came to."""

    programs: int = 0
    emitted: Counter[Production] = field(default_factory=Counter)
    returned: int = 0  #: Programs that ran to their end.
    stopped: int = 0  #: Programs that ended with an UnsupportedError or LimitError here.
    pieces_done: int = 0
    pieces_thrown: int = 0
    differences: list[Difference] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Counts another tally in."""
        self.programs += other.programs
        self.emitted.update(other.emitted)
        self.returned += other.returned
        self.stopped += other.stopped
        self.pieces_done += other.pieces_done
        self.pieces_thrown += other.pieces_thrown
        self.differences += other.differences


def signals_of(source: str) -> list[Any]:
    """The signals its first line sends; none when a minimiser cut that line."""
    found = re.match(r"// signals: (.+)", source)
    try:
        return json.loads(found[1]) if found else []
    except ValueError:
        return []


def ways_of(seed: int) -> tuple[str, ...]:
    """How a program runs here: straight, with a snapshot at every suspension, and now and then as flat blocks."""
    return ("straight", "snapshots", "flat") if seed % 5 == 0 else ("straight", "snapshots")


def outcome_here(source: str, way: str) -> dict[str, Any]:
    """Its outcome; a refusal or a crash is one too."""
    signals = signals_of(source)
    changes: list[AbstractContextManager[Any]] = [mock.patch.multiple(_EVALUATE, **_PATIENT)]
    if way == "flat":
        changes.append(mock.patch.object(codegen_flat, "PYTHON_BLOCKS_MAX", 0))
        source = f"\n{source}"  # other positions, another hash: programs are loaded once
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(change)
        try:
            return run_here(source, signals, "never" if way == "straight" else "await")
        except CompileError as error:
            return {"refused": str(error)}
        except Exception as error:  # noqa: BLE001 - any failure is a finding
            return {"crashed": f"{type(error).__name__}: {error}"}


def is_stopped(outcome: dict[str, Any]) -> bool:
    """Whether it was stopped for what run time alone can see, which is allowed."""
    return str(outcome.get("error", "")).startswith(("UnsupportedError", "LimitError"))


def differs(here: dict[str, Any], node: dict[str, Any]) -> bool:
    """Whether the contract is broken: Node's answer, or stopped.

    A thrown value that is no data, such as NaN or an object with a function in it, is only named here.
    """
    if "thrown" in node and str(here.get("thrown", "")).startswith(("#<", "[object ", "NaN", "Infinity", "-Infinity")):
        return False
    return _comparable(here) != _comparable(node) and not is_stopped(here)


def _comparable(outcome: dict[str, Any]) -> dict[str, Any]:
    """Without the text of an engine's message: those that are promised are in the corpus.

    Ids are new every time.
    """
    outcome = json.loads(_ID.sub("ID", json.dumps(outcome)))
    name, _, message = str(outcome.get("error", "")).partition(": ")
    return outcome if message.startswith("m") or "error" not in outcome else {"error": name}


def node_outcomes(sources: Sequence[str]) -> list[dict[str, Any]]:
    """Their outcomes in Node; a program that never ends there is the generator's mistake, and said to be."""
    programs = [{"source": source, "signals": signals_of(source)} for source in sources]
    try:
        return run_in_node(programs)
    except subprocess.TimeoutExpired:
        if len(programs) == 1:
            return [{"hangs": True}]
        half = len(sources) // 2
        return node_outcomes(sources[:half]) + node_outcomes(sources[half:])


def run_both(sources: Sequence[str]) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """Their outcomes here, straight, and by index those in Node of the ones that are not stopped here.

    What takes longer than its budget here (values that grow with every turn) could keep Node busy for ever.
    """
    straight = [outcome_here(source, "straight") for source in sources]
    compared = [i for i, outcome in enumerate(straight) if not is_stopped(outcome)]
    return straight, dict(zip(compared, node_outcomes([sources[i] for i in compared]), strict=True))


def compare(seeds: Sequence[int]) -> Tally:
    """Writes and runs the programs of these seeds, in one Node process those that are not stopped here."""
    tally = Tally()
    writers = [Writer(seed) for seed in seeds]
    sources = [writer.program() for writer in writers]
    straight, in_node = run_both(sources)
    for index, (seed, writer, source) in enumerate(zip(seeds, writers, sources, strict=True)):
        tally.programs += 1
        tally.emitted.update(writer.used)
        if index not in in_node:
            tally.stopped += 1
            continue
        node = in_node[index]
        log = [line for line in node.get("value") or () if isinstance(line, str)]
        tally.returned += "value" in node
        tally.pieces_done += log.count('"done"')
        tally.pieces_thrown += sum(line.startswith('"piece"') for line in log)
        for way in ways_of(seed):
            here = straight[index] if way == "straight" else outcome_here(source, way)
            if differs(here, node):
                tally.differences.append(Difference(seed, source, way, here, node))
                break
    return tally


def first_difference(here: dict[str, Any], node: dict[str, Any]) -> str:
    """Where two outcomes part, as two lines of text."""
    one, two = here.get("value"), node.get("value")
    if not isinstance(one, list) or not isinstance(two, list):
        return f"  here {str(here)[:400]}\n  node {str(node)[:400]}"
    place = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    return f"  here [{place}] {one[place : place + 2]}\n  node [{place}] {two[place : place + 2]}"
