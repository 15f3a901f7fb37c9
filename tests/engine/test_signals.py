"""A wait that has lost a race takes no message: the next wait of that name gets it, in every mode."""

from __future__ import annotations

from typing import Any

import pytest

from rhythm.testing import evaluate

LATE = [(0.05, "go", "kept")]
PROGRAMS = {
    "race": 'const first = await Promise.race([signal("go"), sleep(10)])\nreturn [first, await signal("go")]',
    "any": 'await Promise.any([signal("go"), sleep(10)])\nreturn [null, await signal("go")]',
    "race of groups": 'await Promise.race([Promise.all([signal("go"), signal("other")]), sleep(10)])\n'
    'return [null, await signal("go")]',
    "timeout": 'try { await signal("go", { timeout: 10 }) } catch (e) {}\nreturn [null, await signal("go")]',
    "in a function": 'async function wait() { await Promise.race([signal("go"), sleep(10)]) }\n'
    'await wait()\nreturn [null, await signal("go")]',
    "again and again": "let turns = 0\n"
    'while (turns < 3) { await Promise.race([signal("go"), sleep(10)]); turns++ }\nreturn [null, await signal("go")]',
}


@pytest.mark.parametrize("mode", ["never", "await"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_message_is_for_the_next_wait(name: str, mode: Any) -> None:
    source = f"workflow(ctx, inputs) {{\n{PROGRAMS[name]}\n}}"
    outcome = evaluate(source, signals=LATE, snapshot=mode)

    assert [None, "kept"] == outcome.result


@pytest.mark.parametrize("mode", ["never", "await"])
def test_a_wait_that_the_program_still_holds_takes_its_message(mode: Any) -> None:
    source = """
    workflow(ctx, inputs) {
      const waiting = signal("go")
      const first = await Promise.race([waiting, sleep(10).then(() => "late")])
      return [first, await waiting, await signal("go")]
    }
    """
    outcome = evaluate(source, signals=[*LATE, (0.06, "go", "next")], snapshot=mode)

    assert ["late", "kept", "next"] == outcome.result


@pytest.mark.parametrize("mode", ["never", "await"])
def test_a_message_and_a_timeout_at_the_same_instant_lose_nothing(mode: Any) -> None:
    source = """
    workflow(ctx, inputs) {
      const first = await Promise.race([signal("go"), sleep(50).then(() => "late")])
      return first === "late" ? await signal("go") : first
    }
    """
    outcome = evaluate(source, signals=LATE, snapshot=mode)

    assert "kept" == outcome.result
