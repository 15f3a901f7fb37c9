"""check and eval: diagnostics as people and programs see them, and running in memory."""

from __future__ import annotations

import pytest

from tests.support.commands import Rhythm

GOOD = "workflow(ctx, inputs) {\n  return { twice: inputs.n * 2 }\n}\n"
MISSPELT = 'workflow(ctx, inputs) {\n\tlet sent = await taks("send", {})\n  return sent\n}\n'
CALLS = 'workflow(ctx, inputs) {\n  let paid = await task("charge", { amount: inputs.amount })\n  return paid\n}\n'
TASKS = """\
import rhythm

@rhythm.task
async def charge(amount: float) -> dict:
    if amount < 0:
        raise ValueError("negative amount")
    return {"charged": amount}
"""


def test_check_prints_place_source_line_mark_and_hint(rhythm: Rhythm) -> None:
    rhythm.write("flows/good.flow", GOOD)
    rhythm.write("flows/bad.flow", MISSPELT)

    lines = rhythm("check", "flows", code=1).out.splitlines()

    assert lines[0].startswith("flows/bad.flow:2:19: error[")
    assert "taks" in lines[0]
    assert lines[1] == '  2 | \tlet sent = await taks("send", {})'
    assert lines[2].startswith("    | \t                 ^^^^ ")
    assert "task" in lines[2]


def test_check_as_json_gives_one_object_per_diagnostic(rhythm: Rhythm) -> None:
    rhythm.write("bad.flow", MISSPELT)

    (entry,) = rhythm("check", "bad.flow", "--json", code=1).json_lines

    assert set(entry) == {"file", "line", "column", "code", "message", "hint", "severity"}
    assert (entry["file"], entry["line"], entry["column"], entry["severity"]) == ("bad.flow", 2, 19, "error")


def test_check_of_good_files_prints_no_data(rhythm: Rhythm) -> None:
    rhythm.write("good.flow", GOOD)

    result = rhythm("check", "good.flow", code=0)

    assert result.out == ""
    assert "1 file checked" in result.err


def test_check_never_fails_on_bytes_that_are_not_text(rhythm: Rhythm) -> None:
    (rhythm.folder / "odd.flow").write_bytes(b"workflow(\xff\xfe) {")

    assert "not UTF-8" in rhythm("check", "odd.flow", code=2).err


@pytest.mark.parametrize("snapshot", ["never", "await"])
def test_eval_runs_a_workflow_with_its_tasks(rhythm: Rhythm, snapshot: str) -> None:
    rhythm.write("order.flow", CALLS)
    rhythm.write("shop.py", TASKS)
    arguments = ["eval", "order.flow", "--app", "shop", "--inputs", '{"amount": 25}', "--snapshot", snapshot]

    assert rhythm(*arguments, "--json", code=0).json == {"result": {"charged": 25}}
    assert rhythm(*arguments, code=0).out.split() == ['{"charged":', "25}"]


def test_eval_reads_inputs_from_files_and_standard_input(rhythm: Rhythm) -> None:
    rhythm.write("good.flow", GOOD)
    rhythm.write("inputs.json", '{"n": 4}')

    assert rhythm("eval", "good.flow", "--inputs", "@inputs.json", "--json", code=0).json == {"result": {"twice": 8}}
    assert rhythm("eval", "good.flow", "-i", "@-", "--json", stdin='{"n": 5}', code=0).json == {"result": {"twice": 10}}


def test_eval_of_a_failing_workflow_gives_the_error(rhythm: Rhythm) -> None:
    rhythm.write("order.flow", CALLS)
    rhythm.write("shop.py", TASKS)
    arguments = ["eval", "order.flow", "--app", "shop", "--inputs", '{"amount": -1}']

    assert rhythm(*arguments, "--json", code=1).json == {"error": {"name": "ValueError", "message": "negative amount"}}
    result = rhythm(*arguments, code=1)
    assert result.out == ""
    assert "ValueError: negative amount" in result.err


def test_eval_of_a_workflow_that_throws_a_value_gives_the_value(rhythm: Rhythm) -> None:
    rhythm.write("odd.flow", "workflow(ctx, inputs) {\n  throw { code: 7 }\n}\n")

    assert rhythm("eval", "odd.flow", "--json", code=1).json == {"thrown": {"code": 7}}


def test_eval_of_a_file_with_errors_is_wrong_input(rhythm: Rhythm) -> None:
    rhythm.write("bad.flow", MISSPELT)

    (entry,) = rhythm("eval", "bad.flow", "--json", code=2).json_lines

    assert (entry["file"], entry["line"], entry["column"]) == ("bad.flow", 2, 19)


def test_control_characters_from_elsewhere_do_not_reach_the_terminal(rhythm: Rhythm) -> None:
    rhythm.write("odd.flow", "workflow(ctx, inputs) {\n  throw new Error(inputs.text)\n}\n")
    inputs = '{"text": "\\u001b[31mred[bold]"}'

    result = rhythm("eval", "odd.flow", "--inputs", inputs, code=1)

    assert "\x1b" not in result.err
    assert r"\x1b[31mred[bold]" in result.err


def test_a_terminal_without_utf8_still_gets_everything(rhythm: Rhythm) -> None:
    rhythm.write("odd.flow", "workflow(ctx, inputs) {\n  return inputs.text\n}\n")
    env = {"PYTHONIOENCODING": "latin-1"}

    result = rhythm("eval", "odd.flow", "--inputs", '{"text": "\\u0142"}', env=env, code=0)

    assert result.out == '"\\u0142"\n'
