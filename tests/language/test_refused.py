"""Programs that must be refused, each with the code of the problem beside the line it is reported in.

`// error: [F203]` stands in the line of the diagnostic; a line may have several. Nothing else may be reported: one
mistake gives one error, without echoes. A chunk without ``workflow(`` at the start of a line is the body of one.
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from rhythm.engine import check_source, compile_workflow
from rhythm.errors import CompileError
from rhythm.language.diagnostics import CODES, Diagnostic
from rhythm.language.nodes import EXPRESSION_NESTING_MAX, STATEMENT_NESTING_MAX
from rhythm.language.parser import SOURCE_LENGTH_MAX

FOLDER = Path(__file__).parent / "refused"
_ERROR = re.compile(r"error: \[(F\d\d\d)\]")
_FILE = re.compile(r"^(async function )?workflow\s*\(|^function workflow_|^function f\(\) \{ return \{ workflow", re.M)


@dataclass(frozen=True)
class Chunk:
    place: str
    source: str
    expected: tuple[tuple[int, str], ...]  #: (line, code)


def _chunks() -> list[Chunk]:
    found = []
    for path in sorted(FOLDER.glob("*.flows")):
        first = 1
        for text in re.split(r"^---\n", path.read_text(), flags=re.M):
            source = text if _FILE.search(text) else f"workflow(ctx, inputs) {{\n{text}}}"
            says = [
                (number, code) for number, line in enumerate(source.split("\n"), 1) for code in _ERROR.findall(line)
            ]
            assert says, f"{path.stem}:{first} says nothing about what is wrong"
            found.append(Chunk(f"{path.stem}:{first}", source, tuple(says)))
            first += text.count("\n") + 1
    return found


CHUNKS = _chunks()


def errors_of(source: str) -> list[Diagnostic]:
    return [diagnostic for diagnostic in check_source(source, "refused.flow") if diagnostic.severity == "error"]


@pytest.mark.parametrize("chunk", CHUNKS, ids=lambda chunk: chunk.place)
def test_program_is_refused_with_its_code_in_its_line(chunk: Chunk) -> None:
    found = errors_of(chunk.source)

    assert chunk.expected == tuple((diagnostic.line, diagnostic.code) for diagnostic in found)
    for diagnostic in found:
        assert diagnostic.message
        assert diagnostic.column >= 1
        assert 0 <= diagnostic.start <= diagnostic.end <= len(chunk.source)
        assert diagnostic.hint


def test_there_are_many_chunks() -> None:
    assert len(CHUNKS) >= 150


def test_a_refused_program_does_not_compile() -> None:
    chunk = CHUNKS[0]

    with pytest.raises(CompileError) as caught:
        compile_workflow(chunk.source, "refused.flow", "refused")

    assert [(d.line, d.code) for d in caught.value.diagnostics if d.severity == "error"] == list(chunk.expected)


def nested(before: str, inner: str, after: str, count: int) -> str:
    return f"workflow() {{ return {before * count}{inner}{after * count} }}"


DEEP = {
    "parentheses": nested("(", "1", ")", EXPRESSION_NESTING_MAX + 1),
    "arrays": nested("[", "1", "]", EXPRESSION_NESTING_MAX + 1),
    "objects": nested("{a: ", "1", "}", EXPRESSION_NESTING_MAX + 1),
    "signs": nested("- ", "1", "", EXPRESSION_NESTING_MAX + 1),
    "powers": nested("2 ** ", "1", "", EXPRESSION_NESTING_MAX + 1),
    "conditions": nested("1 ? 2 : ", "1", "", EXPRESSION_NESTING_MAX + 1),
    "half as many conditions": nested("1 ? 2 : ", "1", "", EXPRESSION_NESTING_MAX // 2 + 1),
    "optional chains": nested("", "({})", "?.a", EXPRESSION_NESTING_MAX // 2 + 1),
    "arrows": nested("() => ", "1", "", EXPRESSION_NESTING_MAX + 1),
    "templates": nested("`${", "1", "}`", EXPRESSION_NESTING_MAX + 1),
    "patterns": f"workflow() {{ let {'[' * 600}a{']' * 600} = 1 }}",
    "blocks": f"workflow() {{ {'{' * (STATEMENT_NESTING_MAX + 1)}{'}' * (STATEMENT_NESTING_MAX + 1)} }}",
    "loops": f"workflow() {{ {'while (1) ' * (STATEMENT_NESTING_MAX * 2 + 1)};  }}",
    "functions": nested("function () { return ", "1", "}", STATEMENT_NESTING_MAX + 1),
}


@functools.cache
def deep_codes(name: str) -> frozenset[str]:
    return frozenset(diagnostic.code for diagnostic in errors_of(DEEP[name]))


@pytest.mark.parametrize("name", DEEP)
def test_deep_nesting_is_refused(name: str) -> None:
    assert "F110" in deep_codes(name)


@pytest.mark.parametrize("depth", [3_000, 30_000])
@pytest.mark.parametrize(
    "opening", ["(", "[", "{", "!", "a.b(", "`${", "async () => ", "if (1) ", "f(x => ", "new ", "? "]
)
def test_hopeless_nesting_is_a_diagnostic(opening: str, depth: int) -> None:
    assert errors_of("workflow() { " + opening * min(depth, 200_000 // len(opening)))


def test_a_large_source_is_refused() -> None:
    found = errors_of("workflow() { return 1 }" + " " * SOURCE_LENGTH_MAX)

    assert [(1, "F111")] == [(diagnostic.line, diagnostic.code) for diagnostic in found]


def test_front_matter_of_earlier_versions_is_refused_with_a_hint() -> None:
    found = errors_of("```toml\nretries = 3\n```\nworkflow() { return 1 }\n")

    assert (1, "F406") == (found[0].line, found[0].code)
    assert found[0].hint


def test_every_error_code_is_covered() -> None:
    covered = {code for chunk in CHUNKS for _, code in chunk.expected} | {"F110", "F111"}

    assert {code for code in CODES if code.startswith("F") and not code.startswith("F5")} == covered  # F5: test_calls


def test_the_number_of_errors_is_bounded() -> None:
    assert len(check_source("workflow() {" + "missing;\n" * 500 + "}", "refused.flow")) == 100


@pytest.mark.parametrize(
    "noise", ["ctx\n+ 1\n", "if (task('a')) {}\n", "ctx == ctx + task('a')\n"], ids=["lines", "conditions", "data"]
)
def test_warnings_never_crowd_out_an_error(noise: str) -> None:
    source = "workflow(ctx) {\n" + noise * 300 + "const c = 1; c = 2; return missing\n}"
    found = check_source(source, "refused.flow")

    assert ["F302", "F301"] == [diagnostic.code for diagnostic in found if diagnostic.severity == "error"]
    assert 100 == sum(diagnostic.severity == "warning" for diagnostic in found)


CROWDED = {
    "slashes that begin no regular expression": "x = " + "/[" * 120_000,
    "unknown names beside thousands of others": "let "
    + ",".join(f"abcde{i:05}" for i in range(8_000))
    + ";"
    + "".join(f"abcdf{i:05};" for i in range(300)),
    "a sum of thousands of terms": "return " + "+".join(["ctx"] * 30_000),
}


@pytest.mark.parametrize("name", CROWDED)
def test_time_does_not_explode(name: str) -> None:
    started = time.process_time()
    check_source("workflow(ctx) { " + CROWDED[name] + " }", "refused.flow")

    assert time.process_time() - started < 10
