"""What happens around the code of a flow, beside a yardstick of the same run, for bench_language.

compile     source to IR and IR to code, per KB of source; beside Python's own compilation of the generated text
load        the same from the stored IR, as a worker does once per definition
write, read a suspension to bytes and back; beside pickling the same data
step        one activation of a sequential step: settle, run, suspend; from a heap that was kept, and from its bytes
"""

from __future__ import annotations

import gc
import pickle
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from rhythm import engine
from rhythm.language import codegen
from rhythm.language import ir as flow_ir
from rhythm.language import snapshot as snapshots
from rhythm.language.promises import Realm
from rhythm.model import Delivery


class Stage(NamedTuple):
    """One figure: microseconds, and those of its yardstick."""

    name: str
    aim_us: float | None
    yardstick: str
    prepare: Callable[[], tuple[Callable[[], object], Callable[[], object], float]]  #: (ours, yardstick, divisor).


#: A workflow as people write them: helpers, tasks in parallel, compensation, data in between.
ORDER_FLOW = """
const APPROVAL_NEEDED_FROM = 500

async function isApproved(order, total) {
  if (total < APPROVAL_NEEDED_FROM) return true
  try {
    const decision = await signal("approval", { timeout: "3d" })
    return decision.approved === true
  } catch (error) {
    if (error.name !== "TimeoutError") throw error
    return false
  }
}

function totalOf(items) {
  let total = 0
  for (const { price, quantity } of items) total += price * quantity
  return Math.round(total * 100) / 100
}

async function reserve(order, part, undo) {
  const { reservation } = await task("reserve", { order: order.id, part, items: order.items.length })
  undo.push(() => task("release", { reservation }))
  return reservation
}

workflow(ctx, inputs) {
  const order = { ...inputs, startedAt: Date.now() }
  const undo = []
  const total = totalOf(order.items)
  if (!(await isApproved(order, total))) return { id: order.id, status: "declined" }
  try {
    const parts = ["stock", "payment", "carrier"]
    const reservations = await Promise.all(parts.map((part) => reserve(order, part, undo)))
    const lines = order.items
      .filter((item) => item.quantity > 0)
      .map((item, index) => `${index + 1}. ${item.sku} x ${item.quantity}`)
    for (let attempt = 1; attempt <= 3; attempt++) {
      const sent = await task("send", { id: order.id, lines, reservations }, { retries: 2 })
      if (sent.ok) return { id: order.id, status: "sent", total, tracking: sent.tracking ?? null }
      await sleep(`${attempt * 10}s`)
    }
    throw new Error("could not be sent")
  } catch (error) {
    for (const step of undo.reverse()) await step()
    return { id: order.id, status: "undone", reason: error.message }
  }
}
"""

STEP_FLOW = """
workflow(ctx, inputs) {
  let total = 0
  for (let i = 0; ; i++) {
    const answer = await task("step", { i })
    total += answer.i
  }
}
"""

INPUTS = msgspec.json.encode(
    {
        "id": "o-1001",
        "customer": {"name": "Ada Lovelace", "city": "London"},
        "items": [{"sku": f"sku-{k}", "quantity": k + 1, "price": 9.99 + k} for k in range(5)],
    }
)
ENVIRONMENT = engine.Environment(lambda: 1_764_000_000_000.0, lambda: 0.5, lambda: str(uuid.UUID(int=7)))


def _definition(source: str) -> engine.Definition:
    return engine.compile_workflow(source, "bench.flow", "bench")


def _start(source: str) -> tuple[codegen.Program, engine.Activation]:
    definition = _definition(source)
    program = engine.load_program(definition.ir_bytes, definition.hash)
    start = engine.StartInfo("e-1", "bench", definition.hash, 1_764_000_000_000.0, INPUTS)
    return program, engine.activate(program, environment=ENVIRONMENT, start=start)


def _suspended() -> tuple[codegen.Program, engine.Live, bytes, Any]:
    program, activation = _start(ORDER_FLOW)
    assert activation.live is not None, "it waits"
    assert activation.snapshot is not None, "it waits"
    assert activation.outstanding == 3, "three calls are outstanding"
    return program, activation.live, activation.snapshot, msgspec.msgpack.decode(activation.snapshot)


def _compile() -> tuple[Callable[[], object], Callable[[], object], float]:
    text = codegen.load(_definition(ORDER_FLOW).ir).source
    kilobytes = len(ORDER_FLOW) / 1024

    def ours() -> None:
        definition = _definition(ORDER_FLOW)
        codegen.load(definition.ir, definition.hash)

    return ours, lambda: compile(text, "<flow>", "exec"), kilobytes


def _load() -> tuple[Callable[[], object], Callable[[], object], float]:
    definition = _definition(ORDER_FLOW)
    text = codegen.load(definition.ir).source

    def ours() -> None:
        codegen.load(flow_ir.from_bytes(definition.ir_bytes), definition.hash, validated=True)

    return ours, lambda: compile(text, "<flow>", "exec"), len(ORDER_FLOW) / 1024


def _write() -> tuple[Callable[[], object], Callable[[], object], float]:
    _, live, _, plain = _suspended()
    return lambda: snapshots.encode(live.realm, live.root), lambda: pickle.dumps(plain, 5), 1.0


def _read() -> tuple[Callable[[], object], Callable[[], object], float]:
    program, _, data, plain = _suspended()
    pickled = pickle.dumps(plain, 5)

    def ours() -> None:
        snapshots.decode(program, data, Realm(now_ms=lambda: 0.0, random=lambda: 0.5))

    return ours, lambda: pickle.loads(pickled), 1.0  # noqa: S301 - our own bytes


def _step(*, kept: bool) -> tuple[Callable[[], object], Callable[[], object], float]:
    program, activation = _start(STEP_FLOW)
    assert activation.snapshot is not None, "it waits for a step"
    pickled = pickle.dumps(msgspec.msgpack.decode(activation.snapshot), 5)
    state = [activation]
    number = 1

    def ours() -> None:
        nonlocal number
        before = state[0]
        delivery = Delivery(number, "completed", number, None, b'{"i":1}')
        number += 1
        state[0] = engine.activate(
            program,
            environment=ENVIRONMENT,
            live=before.live if kept else None,
            snapshot=None if kept else before.snapshot,
            deliveries=(delivery,),
        )
        assert state[0].outstanding == 1, "it waits for the next step"

    return ours, lambda: pickle.dumps(pickle.loads(pickled), 5), 1.0  # noqa: S301 - our own bytes


_COMPILES = "Python compiling the generated text"
_PICKLES = "pickle of the same data"
STAGES = [
    Stage("compile, per KB of source", None, _COMPILES, _compile),
    Stage("load from the IR, per KB of source", 3_000.0, _COMPILES, _load),
    Stage("write a suspension", 120.0, _PICKLES, _write),
    Stage("read a suspension", 80.0, _PICKLES, _read),
    Stage("step from a kept heap", None, _PICKLES + ", both ways", lambda: _step(kept=True)),
    Stage("step from its snapshot", None, _PICKLES + ", both ways", lambda: _step(kept=False)),
]


def measure_stage(stage: Stage, repeat: int) -> tuple[float, float]:
    """Best microseconds of both, taking turns."""
    ours, yardstick, divisor = stage.prepare()
    best = [float("inf"), float("inf")]
    for _ in range(repeat):
        gc.collect()
        gc.disable()
        for index, function in enumerate((ours, yardstick)):
            for _ in range(20):
                began = time.thread_time()
                function()
                best[index] = min(best[index], time.thread_time() - began)
        gc.enable()
    return best[0] * 1e6 / divisor, best[1] * 1e6 / divisor
