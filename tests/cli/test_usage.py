"""The command without a database: help, wrong usage, wrong input, nothing configured, nothing reachable."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Rhythm

COMMANDS = [
    "init", "dev", "worker", "start", "wait", "show", "logs", "list", "signal", "cancel", "retry", "queues",
    "workers", "check", "types", "publish", "eval", "migrate", "config", "bench", "db", "db start", "db stop",
    "db url", "db psql", "db reset", "queues pause", "queues resume", "queues limit",
]  # fmt: skip
README = Path(__file__).parents[2] / "README.md"
ID = "0192f0c1-7e3a-7c55-9a55-2f8c54e0a1b2"
NEEDING_A_DATABASE = [
    ["start", "x"], ["wait", ID], ["show", ID], ["logs", ID], ["list"], ["signal", ID, "go"], ["cancel", ID],
    ["queues"], ["workers"], ["migrate"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(rhythm: Rhythm, command: str) -> None:
    result = rhythm(*command.split(), "--help", code=0)

    assert re.search(rf"Example: .*rhythm {command}", result.out)


def test_help_lists_every_command_and_answers_at_once(rhythm: Rhythm) -> None:
    result = rhythm("--help", code=0)
    command = [sys.executable, "-X", "importtime", "-m", "rhythm", "--help"]
    imported = subprocess.run(command, capture_output=True, text=True).stderr

    for command in COMMANDS:
        assert re.search(rf"^  {command.split()[0]} ", result.out, re.MULTILINE)
    # What would make it slow: the database driver, validation, the compiler. None of them is loaded for this.
    for module in ("asyncpg", "pydantic", "rhythm.engine", "rhythm.client"):
        assert not re.search(rf"\| +{re.escape(module)}$", imported, re.MULTILINE), f"--help imports {module}"


def test_the_console_script_is_the_same_command() -> None:
    script = subprocess.run([f"{sys.prefix}/bin/rhythm", "--version"], capture_output=True, text=True)
    module = subprocess.run([sys.executable, "-m", "rhythm", "--version"], capture_output=True, text=True)

    assert script.stdout == module.stdout == "rhythm 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["strat"], "No such command 'strat'"),
        (["start"], "Missing argument 'NAME'"),
        (["start", "x", "--bogus"], "No such option: --bogus"),
        (["start", "x", "--inputs", "{"], "--inputs is not JSON"),
        (["start", "x", "--inputs", "[1]"], "--inputs must be a JSON object like"),
        (["start", "x", "--inputs", '{"a": NaN}'], "NaN is not a JSON number"),
        (["start", "x", "--inputs", "[" * 100_000], "--inputs is nested too deeply"),
        (["start", "x", "--inputs", "@missing.json"], "--inputs: cannot read missing.json: No such file"),
        (["start", "x", "--timeout", "1m"], "use it together with --wait"),
        (["start", "x", "--wait", "--timeout", "soon"], "'soon' is not a duration"),
        (["signal", ID, "go", "{'a': 1}"], "the payload is not JSON"),
        (["list", "--status", "sleeping"], "the statuses are pending, running"),
        (["list", "--kind", "job"], "the kinds are task, workflow"),
        (["queues", "limit", "mail"], "give at least one limit, or --none to remove them; not both"),
        (["queues", "limit", "mail", "--none", "--rate", "5/s"], "not both"),
        (["queues", "limit", "mail", "--rate", "fast"], "'fast' is not a rate; write for example '100/1m' or '5/s'"),
        (["queues", "limit", "mail", "--concurrency", "0"], "should be greater than or equal to 1"),
        (["check", "missing"], "no such file or folder: missing"),
        (["check", "."], "no .flow file in the folder"),
        (["eval", "missing.flow"], "no such file: missing.flow"),
        (["worker", "--heartbeat-timeout", "0.1s"], "shorter than 1 s"),
        (["worker", "--processes", "0"], "not a whole number from 1"),
        (["worker", "--app", "tasks.py"], "try --app tasks"),
        (["worker", "--app", "no_such_module"], "There is no module 'no_such_module'"),
        (["worker"], "Name the module of your tasks with --app MODULE"),
        (["migrate", "--database-url", "mysql://a:sesame@b/c"], "mysql://a:***@b/c"),
    ],
)
def test_wrong_usage_and_input_say_what_is_wrong(rhythm: Rhythm, arguments: list[str], expected: str) -> None:
    result = rhythm(*arguments, code=2)

    assert expected in " ".join(result.err.split())
    assert result.out == ""


@pytest.mark.parametrize("arguments", NEEDING_A_DATABASE, ids=lambda arguments: arguments[0])
def test_nothing_configured_is_said_with_both_ways_out(rhythm: Rhythm, arguments: list[str]) -> None:
    result = rhythm(*arguments, code=3)

    assert "RHYTHM_DATABASE_URL" in result.err
    assert "rhythm init" in result.err
    assert result.out == ""


@pytest.mark.parametrize("arguments", NEEDING_A_DATABASE, ids=lambda arguments: arguments[0])
def test_an_unreachable_database_is_named_without_its_password(rhythm: Rhythm, arguments: list[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url = f"postgresql://app:sesame@127.0.0.1:{port}/orders"

    result = rhythm(*arguments, env={"RHYTHM_DATABASE_URL": url}, code=3)

    assert f"postgresql://app:***@127.0.0.1:{port}/orders" in result.err
    assert "sesame" not in result.err + result.out


def test_production_never_starts_an_embedded_database(rhythm: Rhythm) -> None:
    rhythm.write("rhythm.toml", "")

    result = rhythm("list", env={"RHYTHM_ENV": "production"}, code=3)

    assert "RHYTHM_DATABASE_URL" in result.err
    assert not (rhythm.folder / ".rhythm").exists()


def test_a_misspelt_key_in_the_file_stops_every_command(rhythm: Rhythm) -> None:
    rhythm.write("rhythm.toml", 'databse_url = "postgresql://db/x"\n')

    result = rhythm("list", code=2)

    assert "did you mean 'database_url'?" in result.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import missing_library\n", "Cannot import 'shop': No module named 'missing_library'"),
        ("value = 1 / 0\n", "shop.py:1: ZeroDivisionError: division by zero"),
        ("def f(:\n", "shop.py:1: SyntaxError"),
        ("value = 1\n", "the modules shop declare no task"),
    ],
)
def test_mistakes_in_task_modules_are_shown_with_their_place(rhythm: Rhythm, text: str, expected: str) -> None:
    rhythm.write("shop.py", text)

    result = rhythm("worker", "--app", "shop", code=2)

    assert expected in result.err


def test_config_shows_values_sources_and_no_password(rhythm: Rhythm) -> None:
    rhythm.write("rhythm.toml", 'queues = ["orders", "mail"]\n')
    env = {"RHYTHM_DATABASE_URL": "postgresql://app:sesame@db/x", "RHYTHM_POLL_INTERVAL": "250ms"}

    entries = {entry["key"]: entry for entry in rhythm("config", "--json", env=env, code=0).json_lines}

    assert entries["queues"] == {
        "key": "queues",
        "value": ["orders", "mail"],
        "source": str(rhythm.folder / "rhythm.toml"),
    }
    assert entries["poll_interval"] == {"key": "poll_interval", "value": 0.25, "source": "RHYTHM_POLL_INTERVAL"}
    assert entries["database_url"]["value"] == "postgresql://app:***@db/x"
    assert entries["processes"] == {"key": "processes", "value": 1, "source": "default"}
    assert "sesame" not in rhythm("config", env=env, code=0).out


def test_init_writes_a_project_once(rhythm: Rhythm) -> None:
    rhythm("init", "shop", code=0)

    assert sorted(str(path.relative_to(rhythm.folder)) for path in rhythm.folder.rglob("*.*")) == [
        "shop/rhythm.toml",
        "shop/tasks.py",
        "shop/workflows/processOrder.flow",
    ]
    assert "exists already; nothing was written" in rhythm("init", "shop", code=2).err


def test_the_project_of_init_runs_what_the_readme_starts(rhythm: Rhythm) -> None:
    rhythm("init", code=0)
    inputs = '{"orderId": "o-1", "amount": 25}'

    assert f"rhythm start processOrder --inputs '{inputs}' --wait" in README.read_text(encoding="utf-8")
    rhythm("check", "workflows", code=0)
    result = rhythm("eval", "workflows/processOrder.flow", "--inputs", inputs, "--json", code=0)
    assert result.json == {"result": {"success": True, "txn_id": "txn-o-1"}}
