"""A short run of the random programs, and of the bugs planted for them; `make fuzz` and `make mutants` run longer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rhythm
from tests.language.fuzz import compare
from tests.language.fuzz.coverage import failings, table
from tests.language.fuzz.generator import GRAMMAR, Writer
from tests.language.fuzz.minimise import minimise
from tests.language.fuzz.mutants import MUTANTS, Mutant, hunt, mutated

PROGRAMS = 60
MUTANTS_MIN = 20  #: What the promise says.
#: Mutants that fall within few programs.
SAMPLE = ("for(;;) without a copy per iteration", "return does not run finally")


@pytest.fixture(scope="module")
def tally() -> compare.Tally:
    return compare.compare(range(PROGRAMS))


def test_no_program_differs_and_every_row_is_written(tally: compare.Tally) -> None:
    assert failings(tally) == []
    assert f"{PROGRAMS} programs, 0 differences" in table(tally)


def test_a_seed_is_a_program() -> None:
    assert Writer(7).program() == Writer(7).program() != Writer(8).program()


def test_productions_need_only_kinds_that_there_are() -> None:
    bodies = {"body", "loop", "case", "fbody", "abody", "jump"}
    for production in (p for group in GRAMMAR.values() for p in group):
        for kind in re.findall(r"@([a-z]+\d?)", production.text):
            assert kind in GRAMMAR or kind in bodies or kind.removesuffix("var") in GRAMMAR, production.text


LONG = """workflow(ctx, inputs) {
const out = []
for (const v of [1, 2]) {
out.push(v)
}
const f = (v) => [v, "b" + v]
try {
out.push(f("ug"), f(1))
} finally {
out.push("end")
}
return out
}"""


def test_a_difference_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    real = compare.run_here
    monkeypatch.setattr(compare, "run_here", lambda *given: _with_a_bug(real(*given)))
    here = compare.outcome_here(LONG, "straight")
    (node,) = compare.node_outcomes([LONG])

    assert compare.differs(here, node)
    assert "for" not in minimise(LONG, "straight")


def _with_a_bug(outcome: dict[str, object]) -> dict[str, object]:
    return {key: str(value).replace("bug", "gub") if "bug" in str(value) else value for key, value in outcome.items()}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_has_its_place(mutant: Mutant) -> None:
    path = Path(rhythm.__file__).parent / "language" / (mutant.module.replace(".", "/") + ".py")

    compile(mutated(mutant, path.read_text()), str(path), "exec")


def test_planted_bugs_are_noticed() -> None:
    assert len(MUTANTS) >= MUTANTS_MIN
    found = hunt([mutant for mutant in MUTANTS if mutant.name in SAMPLE], 60, processes=1)

    assert len(found) == len(SAMPLE)
    assert None not in found.values()
