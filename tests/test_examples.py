"""The patterns of examples/patterns: as their page says, in both snapshot modes, under Node, and on the real engine.

The page is the list: every command on it is run, every output on it is compared.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import shlex
import signal
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rhythm
from rhythm import faults
from rhythm.engine import check_source
from rhythm.tasks import REGISTRY, Task
from rhythm.testing import evaluate
from tests.language.recorded import BEGIN_SECONDS, Recording, comparable, run_in_node
from tests.support.commands import Rhythm
from tests.support.processes import Processes

FOLDER = Path(__file__).parent.parent / "examples" / "patterns"
SOURCES = {path.stem: path.read_text() for path in sorted((FOLDER / "workflows").glob("*.flow"))}
SECTION = re.compile(
    r"^## .*?```sh\nrhythm eval (\S+) --inputs '(.*?)'\n```\n\n```json\n(.*?)\n```\n\n```sh\n(.*?)```", re.M | re.S
)
WAIT_SECONDS = 40.0


@dataclass(frozen=True)
class Pattern:
    """One section of the page."""

    name: str
    inputs: Any
    output: Any
    commands: list[list[str]]  #: how it is run for real


def patterns() -> list[Pattern]:
    found = []
    for path, inputs, output, commands in SECTION.findall((FOLDER / "README.md").read_text()):
        lines = [shlex.split(line, comments=True) for line in commands.splitlines()]
        found.append(Pattern(Path(path).stem, json.loads(inputs), json.loads(output), lines))
    return found


PATTERNS = {pattern.name: pattern for pattern in patterns()}
#: Those that wait for a person, when somebody answers: the signals and the output.
ANSWERED = {
    "approveExpense": ([("36h", "decision", {"approved": True, "by": "Ada"})], {"status": "approved", "by": "Ada"}),
    "launchCampaign": (
        [("1s", "launch", {"by": "Grace"})],
        {**PATTERNS["launchCampaign"].output, "launchedBy": "Grace"},
    ),
}
CASES = [
    *((pattern.name, pattern.inputs, [], pattern.output) for pattern in PATTERNS.values()),
    *((name, PATTERNS[name].inputs, signals, output) for name, (signals, output) in ANSWERED.items()),
    ("bookTrip", {"trip": "t-2", "to": "Crete", "nights": 7}, [],
     {"trip": "t-2", "booked": ["flight-t-2", "hotel-t-2", "car-t-2"]}),
    ("approveExpense", {"expense": "pens", "cents": 1200}, [],
     {"status": "approved", "by": "the rule for small amounts"}),
    ("payInvoice", {"cards": ["expired-3"], "cents": 5}, [], {"paid": False, "tried": ["expired-3: CardDeclined"]}),
    ("invoiceCustomer", {"customer": "Acme", "month": "2026-11"}, [], {"customer": "Acme", "cents": 36_000}),
]  # fmt: skip
NUMBERS = range(len(CASES))


@functools.cache
def tasks() -> dict[str, Task[..., Any]]:
    """The tasks of the patterns; nothing stays registered."""
    before = REGISTRY.as_dict()
    spec = importlib.util.spec_from_file_location("patterns_tasks", FOLDER / "tasks.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018  (one fact for two readers)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {name: task for name, task in REGISTRY.as_dict().items() if name not in before}
    for name in found:
        REGISTRY.remove(name)
    return found


def run(number: int, mode: Any) -> tuple[dict[str, Any], Recording]:
    name, inputs, signals, _ = CASES[number]
    recording = Recording(tasks())
    outcome = evaluate(
        SOURCES[name], inputs=inputs, tasks=recording.tasks, signals=signals, snapshot=mode, clock=BEGIN_SECONDS,
        workflows=SOURCES, ctx={"executionId": "x", "name": name},
    )  # fmt: skip
    return comparable(outcome), recording


@functools.cache
def straight_and_in_node() -> list[tuple[dict[str, Any], Recording, dict[str, Any]]]:
    ours = [run(number, "never") for number in NUMBERS]
    programs = [
        recording.program(SOURCES[name], inputs, signals=signals, workflows=SOURCES)
        for (name, inputs, signals, _), (_, recording) in zip(CASES, ours, strict=True)
    ]
    return [(*one, node) for one, node in zip(ours, run_in_node(programs), strict=True)]


def test_the_page_has_every_pattern() -> None:
    page = (FOLDER / "README.md").read_text()

    assert set(SOURCES) == set(re.findall(r"\]\(workflows/(\w+)\.flow\)", page))
    assert set(SOURCES) - set(PATTERNS) == {"invoiceCustomer"}
    assert all(source.startswith(f"// workflows/{name}.flow\n// ") for name, source in SOURCES.items())


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{CASES[number][0]}-{number}")
def test_a_pattern_gives_what_its_page_says(number: int) -> None:
    expected = {"value": CASES[number][3]}

    straight, recording, node = straight_and_in_node()[number]
    by_bytes, _ = run(number, "await")

    assert straight == expected
    assert by_bytes == expected
    calls = node.pop("calls")
    assert node == expected
    assert sorted(map(json.dumps, calls)) == sorted(json.dumps([c["name"], c["inputs"]]) for c in recording.calls)


@pytest.mark.parametrize("name", SOURCES)
def test_check_finds_nothing_in_a_pattern(name: str) -> None:
    from rhythm.language.calls import Callees

    callees = Callees({task.name: task.input_schema() for task in tasks().values()}, SOURCES)

    assert [d for d in check_source(SOURCES[name], f"{name}.flow", callees) if d.severity != "unchecked"] == []


def test_every_task_is_used() -> None:
    assert [name for name in tasks() if not any(f'task("{name}"' in source for source in SOURCES.values())] == []


def test_eval_runs_a_pattern_and_its_children(tmp_path: Path) -> None:
    pattern = PATTERNS["monthlyInvoices"]
    command = Rhythm(FOLDER, {})

    result = command(
        "eval", "workflows/monthlyInvoices.flow", "--inputs", json.dumps(pattern.inputs), "--snapshot", "await", code=0
    )

    assert json.loads(result.out) == pattern.output


async def test_the_patterns_run_on_a_worker(rhythm_url: str, processes: Processes) -> None:
    worker = processes.worker(rhythm_url, app=["tasks"], workflows=["workflows"], cwd=FOLDER)
    async with rhythm.connect(rhythm_url) as client:
        await client.publish(FOLDER / "workflows")
        started: dict[str, uuid.UUID] = {}
        for pattern in PATTERNS.values():
            words = pattern.commands[0]
            assert ["rhythm", "start", pattern.name] == words[:3]
            execution = await client.start(pattern.name, json.loads(words[words.index("--inputs") + 1]))
            started[pattern.name] = execution.id
        for name in ANSWERED:
            _, _, _, message, payload = PATTERNS[name].commands[1]
            await client.signal(started[name], message, json.loads(payload))

        outputs = {name: await client.wait(one, timeout=WAIT_SECONDS) for name, one in started.items()}

        for name, output in outputs.items():
            expected = ANSWERED[name][1] if name in ANSWERED else PATTERNS[name].output
            if name == "launchCampaign":  # the word may come before the channels are ready
                output["readyInTime"] = expected["readyInTime"]
            assert output == expected, worker.output
        assert list(await client.store.breaches()) == []


#: Places at which a saga's worker is killed: between two bookings, and in the middle of undoing.
DEATHS = ["exchange.during:4:kill", "task_done:4:kill"]


@pytest.mark.parametrize("death", DEATHS)
async def test_a_saga_whose_worker_is_killed_undoes_everything_once(
    rhythm_url: str, processes: Processes, death: str
) -> None:
    pattern = PATTERNS["bookTrip"]
    options = ("--heartbeat-timeout", "1s", "--poll-interval", "100ms")
    first = processes.worker(
        rhythm_url, *options, app=["tasks"], workflows=["workflows"], cwd=FOLDER, env={faults.VARIABLE: death}
    )
    async with rhythm.connect(rhythm_url) as client:
        await client.publish(FOLDER / "workflows")
        execution = await client.start("bookTrip", pattern.inputs)
        assert first.wait() == -signal.SIGKILL, first.output
        second = processes.worker(rhythm_url, *options, app=["tasks"], workflows=["workflows"], cwd=FOLDER)

        output = await client.wait(execution.id, timeout=WAIT_SECONDS)

        rows = await client.list(limit=50)
        steps = [(row.name, row.status) for row in rows if row.id != execution.id]
        assert output == pattern.output, second.output
        assert steps[::-1] == [
            ("bookFlight", "completed"), ("bookHotel", "completed"), ("bookCar", "failed"),
            ("cancelBooking", "completed"), ("cancelBooking", "completed"),
        ]  # fmt: skip
        assert list(await client.store.breaches()) == []
