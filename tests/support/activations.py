"""Drives a workflow activation by activation, so that a test decides what is delivered when."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from rhythm.engine import Activation, Environment, Limits, Live, StartInfo, activate, compile_workflow, load_program
from rhythm.language.codegen import Program
from rhythm.model import Delivery

NOW_MS = 1_700_000_000_000.0
EXECUTION_ID = "00000000-0000-7000-8000-000000000001"


def program_of(source: str) -> Program:
    definition = compile_workflow(source, "flow.flow", "flow")
    return load_program(definition.ir_bytes, definition.hash)


def body(text: str) -> str:
    """A file whose workflow has this body."""
    return f"workflow(ctx, inputs) {{\n{text}\n}}\n"


class Driver:
    """One execution. Every activation goes on from the bytes of the last snapshot, unless ``live`` is set."""

    def __init__(self, program: Program | str, *, limits: Limits | None = None, live: bool = False) -> None:
        self.program = program_of(program) if isinstance(program, str) else program
        self.limits = limits
        self.use_live = live
        self.snapshot: bytes | None = None
        self.live: Live | None = None
        self.numbers = itertools.count(1)
        ids = itertools.count(1)
        self.environment = Environment(lambda: NOW_MS, lambda: 0.5, lambda: f"00000000-0000-7000-8000-{next(ids):012d}")

    def start(self, inputs: Any = None) -> Activation:
        info = StartInfo(EXECUTION_ID, "flow", self.program.hash, NOW_MS, json.dumps(inputs).encode())
        return self._keep(activate(self.program, environment=self.environment, start=info, limits=self.limits))

    def deliver(self, *deliveries: Delivery) -> Activation:
        state: dict[str, Any] = {"live": self.live} if self.use_live else {"snapshot": self.snapshot}
        activation = activate(
            self.program, environment=self.environment, deliveries=deliveries, limits=self.limits, **state
        )
        return self._keep(activation)

    def _keep(self, activation: Activation) -> Activation:
        if activation.outcome is None:
            self.snapshot, self.live = activation.snapshot, activation.live
        return activation

    def completed(self, operation: int, value: Any = None) -> Activation:
        return self.deliver(self.delivery("completed", operation, value))

    def failed(self, operation: int, name: str = "CardDeclined", message: str = "no") -> Activation:
        return self.deliver(self.delivery("failed", operation, {"name": name, "message": message, "type": "failed"}))

    def timer(self, operation: int) -> Activation:
        return self.deliver(Delivery(next(self.numbers), "timer", operation))

    def signal(self, name: str, value: Any = None) -> Activation:
        return self.deliver(Delivery(next(self.numbers), "signal", None, name, json.dumps(value).encode()))

    def cancel(self) -> Activation:
        return self.deliver(Delivery(next(self.numbers), "cancel"))

    def delivery(self, kind: str, operation: int | None, value: Any = None, name: str | None = None) -> Delivery:
        return Delivery(next(self.numbers), kind, operation, name, json.dumps(value).encode())


def result_of(activation: Activation) -> Any:
    """The output of a completed workflow."""
    assert activation.outcome is not None, "still suspended"
    value = json.loads(activation.outcome.payload)
    assert activation.outcome.status == "completed", value
    return value


def error_of(activation: Activation) -> dict[str, Any]:
    """The error of a failed or cancelled workflow."""
    assert activation.outcome is not None, "still suspended"
    assert activation.outcome.status != "completed"
    error: dict[str, Any] = json.loads(activation.outcome.payload)
    return error


def names_of(activations: Sequence[Any]) -> list[str]:
    """Names of started tasks and children."""
    return [item.name for item in activations]
