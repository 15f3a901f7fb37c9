"""Programs that compile and are stopped where run time alone can see what flows do not have.

`// stopped: TEXT` stands in the line where it happens; the text is part of the message. A chunk stands in the `try` of
a workflow: neither its `catch` nor its `finally` may run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest

from rhythm.testing import evaluate

CHUNKS = re.split(r"^---\n", (Path(__file__).parent / "stopped.flows").read_text(), flags=re.M)
_STOPPED = re.compile(r"// stopped: (.+)$")


@pytest.mark.parametrize("mode", ["never", "await"])
@pytest.mark.parametrize("number", range(len(CHUNKS)))
def test_program_is_stopped_where_it_says(number: int, mode: Literal["never", "await"]) -> None:
    body = CHUNKS[number]
    [(line, text)] = [
        (index, found[1])
        for index, row in enumerate(body.split("\n"), 2)
        if (found := _STOPPED.search(row)) is not None
    ]
    source = f"workflow(ctx) {{ try {{\n{body}\n}} catch (e) {{ return e }} finally {{ return 'went on' }} }}"

    outcome = evaluate(source, snapshot=mode)

    assert outcome.error is not None
    assert outcome.error.name == "UnsupportedError"
    assert text in str(outcome.error.message)
    assert f"(workflow.flow:{line}:" in str(outcome.error.stack).split("\n")[1]


@pytest.mark.parametrize("call", ['task("t")', "sleep(1)", 'signal("s")', 'child("c")'])
def test_nothing_is_started_before_the_workflow_runs_even_through_functions(call: str) -> None:
    source = f"const go = () => {call}\nconst early = go()\nworkflow(ctx) {{ return early }}"

    outcome = evaluate(source)

    assert outcome.error is not None
    assert outcome.error.name == "UnsupportedError"
    assert "before the workflow runs" in str(outcome.error.message)
    assert "(workflow.flow:1:" in str(outcome.error.stack).split("\n")[1]
