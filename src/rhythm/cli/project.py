"""Projects: init writes one that runs, config says what is set where."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rhythm.cli import options, output
from rhythm.cli.queues import limits_text
from rhythm.errors import InvalidInput

_FILES = {
    "rhythm.toml": """\
# Rhythm's configuration; the keys are listed by `rhythm config`.
# Without database_url a PostgreSQL of this project's own is started, with its data in .rhythm/
app = ["tasks"]
workflows = ["workflows"]
""",
    "tasks.py": '''\
"""Tasks: ordinary Python, called by workflows by name."""

import rhythm


@rhythm.task(queue="orders")
async def chargeCard(orderId: str, amount: float):
    # Normal Python - use time.now(), random(), external APIs
    # No determinism rules
    return {"success": True, "txn_id": f"txn-{orderId}"}


@rhythm.task(queue="orders")
async def shipOrder(orderId: str):
    return {"shipped": True}
''',
    "workflows/processOrder.flow": """\
// workflows/processOrder.flow
workflow(ctx, inputs) {
  let payment = await task("chargeCard", {
    orderId: inputs.orderId,
    amount: inputs.amount
  })

  await task("shipOrder", { orderId: inputs.orderId })
  return payment
}
""",
}
_NODE_FILES = {
    "rhythm.toml": _FILES["rhythm.toml"].replace('app = ["tasks"]\n', ""),
    "package.json": """\
{
  "name": "tasks",
  "private": true,
  "type": "module",
  "scripts": { "worker": "rhythm-flow worker ./tasks.js" },
  "dependencies": { "rhythm-flow": "^0.1.0" }
}
""",
    "tasks.js": """\
// Tasks: ordinary JavaScript, called by workflows by name.
import { task } from "rhythm-flow"

export const chargeCard = task("chargeCard", { queue: "orders" }, async ({ orderId, amount }) => {
  // Normal JavaScript - use Date.now(), Math.random(), external APIs
  // No determinism rules
  return { success: true, txnId: `txn-${orderId}` }
})

export const shipOrder = task("shipOrder", { queue: "orders" }, async ({ orderId }) => ({ shipped: true }))
""",
    "workflows/processOrder.flow": _FILES["workflows/processOrder.flow"],
}


def init(
    directory: Annotated[str, typer.Argument(metavar="[DIR]", help="Default: here.", show_default=False)] = ".",
    node: Annotated[bool, typer.Option("--node", help="With tasks in Node.js instead of Python.")] = False,
) -> None:
    """Writes a small project that runs.

    Files that exist are never overwritten: then nothing is written at all.

    Example: rhythm init shop
    """
    folder = Path(directory)
    files = _NODE_FILES if node else _FILES
    taken = [name for name in files if (folder / name).exists()]
    if taken:
        raise InvalidInput(f"{folder / taken[0]} exists already; nothing was written.")
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            output.line(str(path))
    except OSError as error:
        raise InvalidInput(f"cannot write to {folder}: {error.strerror}") from None
    change = "" if directory == "." else f"cd {shlex.quote(directory)} && "
    output.message(
        f"Now run `{change}rhythm dev` in one terminal, "
        f"{f'`{change}npm install && npm run worker` in another, ' if node else ''}and in another: "
        """rhythm start processOrder --inputs '{"orderId": "o-1", "amount": 25}' --wait"""
    )


def config(as_json: options.Json = False) -> None:
    """Lists the configuration keys, their values, and who set them.

    Example: rhythm config
    """
    from rhythm.config import KEYS, load, mask_passwords

    loaded = load()
    rows = []
    for key in KEYS:
        value = _plain(getattr(loaded, key))
        if isinstance(value, str):
            value = mask_passwords(value)
        rows.append((key, value, loaded.sources.get(key, "default")))
    if as_json:
        for key, value, source in rows:
            output.json_line({"key": key, "value": value, "source": source})
    else:
        output.table(("KEY", "VALUE", "SET BY"), [(key, _shown(value), source) for key, value, source in rows])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: limits_text(limits) for name, limits in value.items()}
    return [str(part) for part in value] if isinstance(value, tuple) else value


def _shown(value: Any) -> str | None:
    if not value and value not in (False, 0):
        return None
    if isinstance(value, dict):
        return "; ".join(f"{name}: {limits}" for name, limits in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, list) else str(value)
