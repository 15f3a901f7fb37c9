"""The corpus: every program runs straight, through a snapshot at every suspension, and under Node; all three agree.

A file holds programs separated by lines of ``---``. A program says what it gives beside the line where it happens:
``// expect: JSON``, ``// throws: Name: message`` or ``// thrown: JSON``; ``// signals: [[after, name, payload], …]``
sends signals. A program without ``workflow(`` is the body of one.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.language.recorded import run_here, run_in_node

FOLDER = Path(__file__).parent / "corpus"
_EXPECTATION = re.compile(r"//\s*(expect|throws|thrown):\s*(.+)$", re.M)
_SIGNALS = re.compile(r"//\s*signals:\s*(.+)$", re.M)
_WORKFLOW = re.compile(r"^(async function )?workflow\s*\(", re.M)


@dataclass(frozen=True)
class Program:
    place: str
    source: str
    kind: str
    expected: Any
    signals: list[Any]


def _programs() -> list[Program]:
    found = []
    for path in sorted(FOLDER.glob("*.flows")):
        line = 1
        for chunk in re.split(r"^---\n", path.read_text(), flags=re.M):
            place = f"{path.stem}:{line}"
            line += chunk.count("\n") + 1
            if not chunk.strip():
                continue
            says = _EXPECTATION.search(chunk)
            assert says, f"{place} says nothing about what it gives"
            expected = says[2].strip() if says[1] == "throws" else json.loads(says[2])
            signals = _SIGNALS.search(chunk)
            source = chunk if _WORKFLOW.search(chunk) else f"workflow(ctx, inputs) {{\n{chunk}\n}}"
            found.append(Program(place, source, says[1], expected, json.loads(signals[1]) if signals else []))
    return found


PROGRAMS = _programs()


@functools.cache
def node_results() -> list[dict[str, Any]]:
    return run_in_node([{"source": p.source, "signals": p.signals} for p in PROGRAMS])


def said(program: Program) -> dict[str, Any]:
    if program.kind == "expect":
        return {"value": program.expected}
    return {"error" if program.kind == "throws" else "thrown": program.expected}


@pytest.mark.parametrize("mode", ["never", "await"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.place)
def test_program_gives_what_it_says(program: Program, mode: Any) -> None:
    assert said(program) == run_here(program.source, program.signals, mode)


def test_there_are_many_programs() -> None:
    assert len(PROGRAMS) >= 800


@pytest.mark.parametrize("number", range(len(PROGRAMS)), ids=lambda number: PROGRAMS[number].place)
def test_node_gives_the_same(number: int) -> None:
    assert said(PROGRAMS[number]) == node_results()[number]
