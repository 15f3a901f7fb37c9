"""The main job: durable orders, with a worker killed in the middle.

Starts two worker processes, 240 orders (each with small random delays and failures), kills one worker
with SIGKILL while it holds work, starts another, and at the end compares what the workflows say with
what the tasks wrote into the shop's own ledger. Exit status 1 if a single order is off.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.chdir(HERE)
sys.path.insert(0, str(HERE))
os.environ.setdefault("RHYTHM_HEARTBEAT_TIMEOUT", "2s")  # a dead worker is noticed after this; the default is 30 s

import asyncpg  # noqa: E402  (after chdir: the example runs from any folder)
import ledger  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402

import rhythm  # noqa: E402

WORKFLOW = HERE / "workflows" / "fulfilOrder.flow"
ORDERS = int(os.environ.get("ORDERS", "240"))
KILL_AFTER = 0.3  # share of the orders that has ended when the worker is killed
GIVE_UP_AFTER = "120s"
console = Console(width=None if sys.stdout.isatty() else 110)


def approval_needed_from() -> float:
    """The amount that the workflow says; it is there to be changed."""
    found = re.search(r"^const APPROVAL_NEEDED_FROM = ([\d_.]+)", WORKFLOW.read_text(), re.MULTILINE)
    return float(found[1]) if found else 500.0


@dataclass
class Order:
    id: str
    amount: float
    large: bool  #: somebody has to approve it
    answer: str  #: what they say then: "yes", "no", or "silence"
    execution: rhythm.Execution | None = None
    outcome: dict | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> dict:
        return {"orderId": self.id, "amount": self.amount, "items": ["book", "pen"]}

    @property
    def expected(self) -> str:
        if self.large and self.answer != "yes":
            return "declined"
        return "refunded" if self.id.endswith("7") else "shipped"


def invent_orders() -> list[Order]:
    stamp, limit = time.strftime("%H%M%S"), approval_needed_from()
    orders = []
    for number in range(ORDERS):
        amount = random.randrange(*((50_000, 90_000) if number % 12 == 0 else (500, 40_000))) / 100
        answer = random.choice(["yes", "yes", "no", "silence"])
        orders.append(Order(f"o-{stamp}-{number:04}", amount, amount >= limit, answer))
    return orders


class Workers:
    """`rhythm worker` processes, as one would start them on any machine."""

    def __init__(self, url: str) -> None:
        self.environment = {**os.environ, "RHYTHM_DATABASE_URL": url}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.logs = HERE / ".rhythm"
        self.logs.mkdir(exist_ok=True)

    def start(self) -> int:
        number = len(self.processes) + 1
        with open(self.logs / f"worker-{number}.log", "wb") as log:
            command = [sys.executable, "-m", "rhythm", "worker"]
            self.processes.append(
                subprocess.Popen(command, env=self.environment, cwd=HERE, stdout=log, stderr=subprocess.STDOUT)
            )
        return number

    def kill(self, number: int) -> None:
        process = self.processes[number - 1]
        process.send_signal(signal.SIGKILL)
        process.wait()

    def check(self) -> None:
        for number, process in enumerate(self.processes, 1):
            if process.poll() not in (None, -signal.SIGKILL):
                log = (self.logs / f"worker-{number}.log").read_text(errors="replace")
                raise SystemExit(f"worker {number} ended with status {process.returncode}:\n{log[-2000:]}")

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def approve(client: rhythm.Client, order: Order) -> None:
    """Plays the person who decides on a large order; a silent one runs into the workflow's timeout."""
    if order.large and order.answer != "silence":
        await asyncio.sleep(random.uniform(0.0, 1.0))
        await client.signal(order.execution.id, "approval", {"approved": order.answer == "yes"})


async def follow(order: Order, progress: Progress, bar: int) -> None:
    try:
        order.outcome = await order.execution.result(timeout=GIVE_UP_AFTER)
    except rhythm.RhythmError as error:
        order.faults.append(f"{type(error).__name__}: {error}")
    progress.advance(bar)


async def run_orders(client: rhythm.Client, workers: Workers, orders: list[Order]) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("orders ended", total=len(orders))
        starts = [rhythm.Start("fulfilOrder", order.inputs, key=order.id) for order in orders]
        for order, execution_id in zip(orders, await client.start_many(starts), strict=True):
            order.execution = client.execution(execution_id)
        pending = {asyncio.create_task(follow(order, progress, bar)) for order in orders}
        approvers = asyncio.gather(*[approve(client, order) for order in orders])
        killed = False
        while pending:
            _, pending = await asyncio.wait(pending, timeout=0.1)
            workers.check()
            if not killed and len(orders) - len(pending) >= KILL_AFTER * len(orders):
                killed = True
                workers.kill(1)
                progress.console.print(f"[red]worker 1 killed with SIGKILL[/], {len(pending)} orders under way")
                progress.console.print(f"worker {workers.start()} started")
        await approvers


async def audit(url: str, orders: list[Order]) -> None:
    """Compares every order's outcome with the ledger the tasks wrote."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "select order_id, entry, count(*) as n from shop_ledger where order_id = any($1) group by 1, 2",
            [order.id for order in orders],
        )
    finally:
        await connection.close()
    entries: dict[str, Counter[str]] = {order.id: Counter() for order in orders}
    for row in rows:
        entries[row["order_id"]][row["entry"]] = row["n"]
    done = {
        "shipped": Counter(charge=1, reserve=1, ship=1),
        "refunded": Counter(charge=1, reserve=1, release=1, refund=1),
        "declined": Counter(),
    }
    for order in orders:
        if order.outcome is None:
            continue
        status = order.outcome["status"]
        if status != order.expected:
            order.faults.append(f"ended as {status!r}, expected {order.expected!r}: {order.outcome}")
        if +entries[order.id] != done.get(status):
            order.faults.append(f"{status}, but the ledger says {dict(entries[order.id])}")


def summary(orders: list[Order], seconds: float) -> int:
    ends = Counter(order.outcome["status"] for order in orders if order.outcome)
    faults = [order for order in orders if order.faults]
    lost = sum(1 for order in orders if order.outcome is None)
    table = Table(show_header=False)
    for status in ("shipped", "refunded", "declined"):
        table.add_row(status, str(ends[status]))
    table.add_row("lost", str(lost))
    table.add_row("not as the ledger says", str(len(faults) - lost))
    console.print(f"{len(orders)} orders in {seconds:.1f} s, one worker killed")
    console.print(table)
    for order in faults[:10]:
        console.print(f"[red]{order.id}[/]: {'; '.join(order.faults)}", highlight=False)
    if faults:
        console.print(f"[red]{len(faults)} orders are off.[/]")
        return 1
    console.print("[green]Every order ended exactly once and as it should; every charge was shipped or refunded.[/]")
    return 0


async def main() -> int:
    url = rhythm.database_url()
    workers = Workers(url)
    async with rhythm.connect(url) as client:
        await client.migrate()
        try:
            await client.publish("workflows")
        except rhythm.CompileError as error:
            for found in error.diagnostics:
                print(f"{found.file}:{found.line}:{found.column}: {found.severity}[{found.code}]: {found.message}")
            return 1
        await (await ledger.pool()).execute(ledger.TABLE)
        try:
            console.print(f"workers {workers.start()} and {workers.start()} started")
            first = await client.start("processOrder", {"orderId": "o-1", "amount": 25.0})
            await first.result(timeout="30s")
            console.print(f"processOrder, the example of the README: execution {first.id} completed")
            orders = invent_orders()
            started = time.monotonic()
            await run_orders(client, workers, orders)
            seconds = time.monotonic() - started
        finally:
            workers.stop()
            with contextlib.suppress(Exception):
                await (await ledger.pool()).close()
    await audit(url, orders)
    return summary(orders, seconds)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
