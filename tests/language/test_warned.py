"""Programs that compile with warnings: `// warning: [W104]` stands in its line. Nothing else is reported.

A chunk is the body of a workflow.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rhythm.engine import check_source
from rhythm.language.diagnostics import CODES

FOLDER = Path(__file__).parent
CHUNKS = re.split(r"^---\n", (FOLDER / "warned.flows").read_text(), flags=re.M)
_WARNING = re.compile(r"warning: \[(W\d\d\d)\]")


def expected(source: str) -> list[tuple[int, str]]:
    return [(number, code) for number, line in enumerate(source.split("\n"), 1) for code in _WARNING.findall(line)]


@pytest.mark.parametrize("number", range(len(CHUNKS)))
def test_program_is_warned_of_with_its_code_in_its_line(number: int) -> None:
    source = f"workflow(ctx, inputs) {{\n{CHUNKS[number]}}}"

    found = check_source(source, "warned.flow")

    assert expected(source) == sorted((diagnostic.line, diagnostic.code) for diagnostic in found)
    for diagnostic in found:
        assert diagnostic.severity == "warning"
        assert diagnostic.hint


def test_every_warning_is_covered() -> None:
    covered = {code for chunk in CHUNKS for _, code in expected(chunk)}

    assert {code for code in CODES if code.startswith("W1")} == covered  # W2: test_calls


def test_the_example_of_the_readme_is_not_warned_of() -> None:
    readme = (FOLDER.parents[1] / "README.md").read_text()
    flows = [text for text in re.findall(r"```\w*\n(.*?)```", readme, re.S) if re.search(r"\bworkflow\s*\(", text)]

    assert flows
    for flow in flows:
        assert [] == check_source(flow, "readme.flow")
