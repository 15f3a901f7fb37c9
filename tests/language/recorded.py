"""Workflows with real tasks, here and under Node: what each task gave here is what Node's tasks give.

    recording = Recording(tasks)
    outcome = evaluate(source, tasks=recording.tasks, ...)
    node = run_in_node([recording.program(source, inputs)])[0]

Node then has to come to the same result, by the same calls.
"""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rhythm import payloads
from rhythm.durations import parse_seconds
from rhythm.failures import failure_payload
from rhythm.tasks import Task, TaskContext
from rhythm.testing import Later, evaluate
from rhythm.testing.evaluate import Outcome

ORACLE = Path(__file__).parent / "node_oracle.js"
NODE_SECONDS_MAX = 120  #: for the programs of one call
BEGIN_SECONDS = 1_700_000_000  #: where the oracle's clock begins


class Recording:
    """Tasks for `evaluate` that keep what they were called with and what they gave."""

    def __init__(self, tasks: Mapping[str, Callable[..., Any]]) -> None:
        self.calls: list[dict[str, Any]] = []
        self.tasks = {name: self._recorded(name, function) for name, function in tasks.items()}

    def _recorded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        async def call(inputs: Any, /) -> Any:
            entry = {"name": name, "inputs": inputs}
            self.calls.append(entry)
            try:
                answer = await _answer(function, inputs)
                later = answer if isinstance(answer, Later) else Later(value=answer, delay="1ms")
                entry["delay"] = parse_seconds(later.delay) * 1000
                if later.error is not None:
                    raise later.error
                entry["value"] = payloads.decode(payloads.encode(later.value, "output"))
            except Exception as error:
                entry["error"] = payloads.decode(failure_payload(error))
                raise
            return answer

        return call

    def program(
        self, source: str, inputs: Any, *, signals: Sequence[Any] = (), workflows: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The same for Node."""
        return {
            "source": source,
            "inputs": inputs,
            "signals": list(signals),
            "outcomes": self.calls,
            "workflows": dict(workflows or {}),
        }


async def _answer(function: Callable[..., Any], inputs: Any) -> Any:
    if isinstance(function, Task):
        arguments = function.bind(payloads.encode(inputs, "inputs"))
        if function.context_parameter is not None:
            arguments[function.context_parameter] = TaskContext(name=function.name)
        answer = function.function(**arguments)
        answer = await answer if inspect.isawaitable(answer) else answer
        return answer if isinstance(answer, Later) else payloads.decode(function.encode(answer))
    parameters = list(inspect.signature(function).parameters.values())
    raw = len(parameters) == 1 and parameters[0].kind is inspect.Parameter.POSITIONAL_ONLY
    answer = function(inputs) if raw else function(**inputs)
    return await answer if inspect.isawaitable(answer) else answer


def run_in_node(programs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each program gives under Node: ``value``, ``error`` or ``thrown``, and ``calls`` if any were recorded."""
    node = shutil.which("node")
    assert node, "Node 20 is the judge of the language"
    done = subprocess.run(
        [node, str(ORACLE)],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        timeout=NODE_SECONDS_MAX,
        env={"TZ": "UTC"},
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    return [{k: json.loads(v) if k in ("value", "thrown") else v for k, v in one.items()} for one in results]


def comparable(outcome: Outcome) -> dict[str, Any]:
    """An outcome of `evaluate` as `run_in_node` shows it, without calls."""
    if outcome.error is None:
        return {"value": outcome.result}
    if outcome.error.has_thrown:
        return {"thrown": outcome.error.thrown}
    return {"error": f"{outcome.error.name}: {outcome.error.message}"}


# What the corpus and the random programs may call.


class CardDeclined(Exception):
    """What tasks fail with."""


def echo(inputs: Any, /) -> Any:
    return inputs


def fail(message: str) -> None:
    raise CardDeclined(message)


def later(value: Any, delay: float) -> Later:
    return Later(value=value, delay=_seconds(delay))


def later_fail(message: str, delay: float) -> Later:
    return Later(error=CardDeclined(message), delay=_seconds(delay))


def _seconds(duration: float | str) -> float | str:
    return duration if isinstance(duration, str) else duration / 1000


TASKS = {"echo": echo, "fail": fail, "later": later, "laterFail": later_fail}


def run_here(source: str, signals: Sequence[Any], mode: Literal["never", "await"]) -> dict[str, Any]:
    """The outcome here, with snapshots as ``mode`` says. Signals are [after, name, payload], numbers milliseconds."""
    given = [(_seconds(after), name, payload) for after, name, payload in signals]
    return comparable(evaluate(source, tasks=TASKS, snapshot=mode, signals=given, clock=BEGIN_SECONDS))
