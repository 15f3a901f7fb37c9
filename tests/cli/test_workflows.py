"""check, publish and eval: diagnostics as people and programs see them, and running in memory."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from rhythm.model import TaskRegistration, WorkerRegistration
from rhythm.store import Store
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


def test_eval_sends_signals_at_their_times(rhythm: Rhythm) -> None:
    body = "const a = await signal('go'); const b = await signal('go'); return [a, b, Date.now() - ctx.startedAt]"
    rhythm.write("x.flow", f"workflow(ctx) {{ {body} }}\n")

    sent = ("--signal", '2h go {"by": "Ada"}', "--signal", "90m go")
    assert rhythm("eval", "x.flow", *sent, "--json", code=0).json == {"result": [None, {"by": "Ada"}, 7_200_000]}
    for wrong in ("go", "soon go", "1h go {"):
        result = rhythm("eval", "x.flow", "--signal", wrong, code=2)
        assert wrong.split()[0] in result.err or "--signal" in result.err


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


def test_check_compares_calls_with_the_signatures_of_tasks(rhythm: Rhythm) -> None:
    rhythm.write("shop.py", TASKS)
    rhythm.write("good.flow", CALLS)
    rhythm.write("bad.flow", 'workflow(ctx, inputs) {\n  await task("charge", {\n    amuont: 5\n  })\n}\n')

    good = rhythm("check", "good.flow", "--app", "shop", code=0)
    bad = rhythm("check", "bad.flow", "--app", "shop", code=1)

    assert good.out == ""
    assert "1 call cannot be compared, or not wholly" in good.err
    assert bad.out.splitlines() == [
        "bad.flow:2:24: error[F502]: `charge` needs the input `amount`",
        '  2 |   await task("charge", {',
        "    |                        ^ add it",
        "bad.flow:3:5: error[F503]: `charge` has no input `amuont`",
        "  3 |     amuont: 5",
        "    |     ^^^^^^ did you mean `amount`?",
    ]


def test_check_as_json_says_which_calls_it_could_not_compare(rhythm: Rhythm) -> None:
    rhythm.write("shop.py", TASKS)
    rhythm.write("good.flow", CALLS)

    (entry,) = rhythm("check", "good.flow", "--app", "shop", "--json", code=0).json_lines

    assert set(entry) == {"file", "line", "column", "code", "message", "hint", "severity"}
    assert (2, 45, "U102", "unchecked") == (entry["line"], entry["column"], entry["code"], entry["severity"])


def test_check_takes_the_tasks_of_the_project_and_says_when_there_are_none(rhythm: Rhythm) -> None:
    rhythm.write("shop.py", TASKS)
    rhythm.write("bad.flow", 'workflow(ctx, inputs) {\n  await task("chrage", { amount: 5 })\n}\n')

    assert "not compared with their signatures" in rhythm("check", "bad.flow", code=0).err
    rhythm.write("rhythm.toml", 'app = ["shop"]\n')
    assert "did you mean `charge`?" in rhythm("check", "bad.flow", code=1).out


def test_check_warns_of_children_that_are_not_among_the_files(rhythm: Rhythm) -> None:
    rhythm.write("flows/good.flow", GOOD)
    rhythm.write("flows/parent.flow", 'workflow() {\n  await child("good")\n  await child("goood")\n}\n')

    result = rhythm("check", "flows", code=0)

    assert result.out.startswith("flows/parent.flow:3:15: warning[W201]: ")
    assert "did you mean `good`?" in result.out


def test_check_with_a_task_whose_annotations_mean_nothing_is_wrong_usage(rhythm: Rhythm) -> None:
    rhythm.write("shop.py", TASKS.replace("float", "'flaot'"))
    rhythm.write("good.flow", CALLS)

    assert "its annotations cannot be resolved" in rhythm("check", "good.flow", "--app", "shop", code=2).err


async def test_publish_warns_of_calls_that_do_not_fit_what_workers_registered(rhythm_db: Rhythm) -> None:
    rhythm_db.write(
        "order.flow",
        'workflow() {\n  await task("charge", { amount: "5" })\n  await task("chrage")\n  await task("later")\n}\n',
    )
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}}
    async with await Store.connect(rhythm_db.env["RHYTHM_DATABASE_URL"]) as store:
        await store.register_worker(
            WorkerRegistration(uuid.uuid4(), "here", 1, tasks=[TaskRegistration("charge", input_schema=schema)])
        )

    result = await asyncio.to_thread(rhythm_db, "publish", "order.flow", "--json", code=0)

    assert "order.flow:2:34: warning[F504]: `amount` of `charge` should be a number, not a string" in result.err
    assert "order.flow:3:14: unchecked[U104]: no worker has registered a task named `chrage`" in result.err
    assert "did you mean `charge`?" in result.err
    assert "later" not in result.err
    assert "2 calls are of tasks that no worker has registered yet" in result.err
    unchecked = result.json["unchecked"]
    assert [(3, "U104", "unchecked"), (4, "U104", "unchecked")] == [
        (entry["line"], entry["code"], entry["severity"]) for entry in unchecked
    ]


def test_publish_warns_of_children_that_nobody_has_published(rhythm_db: Rhythm) -> None:
    rhythm_db.write("pack.flow", "workflow() { return 1 }\n")
    rhythm_db("publish", "pack.flow", code=0)
    rhythm_db.write("bill.flow", "workflow() { return 1 }\n")
    calls = 'await child("pack"); await child("bill"); await child("pakc"); await child("bill", {}, { ids: 5 })'
    rhythm_db.write("order.flow", f"workflow() {{\n  {calls}\n}}\n")

    result = rhythm_db("publish", "order.flow", "bill.flow", code=0)

    lines = [line for line in result.err.splitlines() if "warning" in line]
    assert lines == [
        "order.flow:2:57: warning[W201]: there is no workflow named `pakc` among these files, nor is one published",
        "order.flow:2:92: warning[F505]: `child` has no option `ids`",
    ]


def test_publish_takes_names_that_no_task_can_have(rhythm_db: Rhythm) -> None:
    rhythm_db.write("odd.flow", 'workflow() {\n  await task("a\\0b")\n  await task("\\ud800")\n  await task("😀")\n}\n')

    codes = [entry["code"] for entry in rhythm_db("publish", "odd.flow", "--json", code=0).json["unchecked"]]

    assert ["U104", "U104", "U104"] == codes


async def test_check_compares_calls_with_what_workers_have_registered(rhythm_db: Rhythm) -> None:
    rhythm_db.write("order.flow", 'workflow() {\n  await task("charge", { amount: "5" })\n  await task("chrage")\n}\n')
    rhythm_db.write("shop.py", TASKS)
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}}
    async with await Store.connect(rhythm_db.env["RHYTHM_DATABASE_URL"]) as store:
        await store.register_worker(
            WorkerRegistration(uuid.uuid4(), "here", 1, tasks=[TaskRegistration("charge", input_schema=schema)])
        )

    lines = (await asyncio.to_thread(rhythm_db, "check", "order.flow", "--registered", code=1)).out.splitlines()

    assert [line for line in lines if line.startswith("order.flow")] == [
        "order.flow:2:34: error[F504]: `amount` of `charge` should be a number, not a string",
        "order.flow:3:14: error[F501]: there is no task named `chrage`",
    ]


def test_types_come_from_sources_and_the_tasks_they_call(rhythm: Rhythm) -> None:
    rhythm.write("shop.py", TASKS)
    rhythm.write("flows/pay.flow", CALLS.replace("return paid", "return { by: inputs.by, done: true }"))

    text = rhythm("types", "flows", "--app", "shop", code=0).out
    told = rhythm("types", "flows", "--app", "shop", "-o", "flows.d.ts", code=0)

    assert "    pay: { inputs: { amount: number; by: unknown }; output: { by?: unknown; done: boolean } }\n" in text
    assert 'declare module "rhythm-flow"' in text
    assert (rhythm.folder / "flows.d.ts").read_text() == text
    assert told.out == ""


def test_types_of_a_workflow_with_errors_are_not_written(rhythm: Rhythm) -> None:
    rhythm.write("bad.flow", MISSPELT)

    assert "error[" in rhythm("types", "bad.flow", "-o", "bad.d.ts", code=1).out
    assert not (rhythm.folder / "bad.d.ts").exists()
