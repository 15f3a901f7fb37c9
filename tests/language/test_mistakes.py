"""Typical mistakes, and what is said about each: `mistakes.flows` has the program, then one line for each diagnostic.

    var total = 0
    //> 1:1-4 error F201 `var` is not supported -- write `let` or `const`

Places are line:column-end in the chunk. A chunk is the body of a workflow, or begins with ``// file`` and is all of it.
``python -m tests.language.test_mistakes`` writes the lines anew; the difference is to be read like code.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rhythm.engine import check_source

FILE = Path(__file__).parent / "mistakes.flows"
CHUNKS = re.split(r"^---\n", FILE.read_text(), flags=re.M)
SAID = "//> "


def described(chunk: str) -> tuple[str, list[str]]:
    """A chunk's program, and what is said about it."""
    program = "".join(line for line in chunk.splitlines(keepends=True) if not line.startswith(SAID))
    whole = program.startswith("// file")
    found = check_source(program if whole else f"workflow(ctx, inputs) {{\n{program}}}\n", "mistake.flow")
    lines = 0 if whole else 1
    return program, [
        f"{SAID}{d.line - lines}:{d.column}-{d.column + d.end - d.start} {d.severity} {d.code} {d.message} -- {d.hint}"
        for d in found
    ]


@pytest.mark.parametrize("number", range(len(CHUNKS)))
def test_a_mistake_is_named_and_answered(number: int) -> None:
    chunk = CHUNKS[number]
    _, said = described(chunk)

    assert said == [line for line in chunk.splitlines() if line.startswith(SAID)]
    assert said
    for line in said:
        message, hint = line.split(" -- ")
        assert hint
        assert not message.endswith(".")
    assert sum(" error " in line for line in said) <= chunk.count("\n") - len(said), "no more errors than lines"


def test_there_are_many_mistakes() -> None:
    assert len(CHUNKS) >= 120


if __name__ == "__main__":
    FILE.write_text(
        "---\n".join(program + "".join(f"{line}\n" for line in said) for program, said in map(described, CHUNKS))
    )
