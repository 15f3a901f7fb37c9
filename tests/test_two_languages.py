"""One workflow over tasks of both languages, as examples/two-languages and the quick start of docs/node.md have it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.support.commands import Rhythm
from tests.support.processes import ROOT, Process, Processes, clean_environment

EXAMPLE = ROOT / "examples" / "two-languages"
COMMAND = str(ROOT / "node" / "dist" / "src" / "cli.js")


def install(folder: Path, *others: str) -> None:
    """What `npm install` does with the package in a folder, and with others that its own tests use."""
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "rhythm-flow").symlink_to(ROOT / "node")
    for name in others:
        (folder / "node_modules" / name).parent.mkdir(exist_ok=True)
        (folder / "node_modules" / name).symlink_to(ROOT / "node" / "node_modules" / name)


@pytest.fixture
def shop(tmp_path: Path, rhythm_url: str) -> Rhythm:
    folder = tmp_path / "shop"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", ".rhythm"))
    install(folder)
    return Rhythm(folder, {"RHYTHM_DATABASE_URL": rhythm_url, "RHYTHM_HEARTBEAT_TIMEOUT": "2s"})


def node_worker(rhythm: Rhythm, processes: Processes) -> Process:
    worker = processes.start(["node", COMMAND, "worker", "./tasks.js"], cwd=rhythm.folder, env=rhythm.env)
    worker.wait_for_output("worker ready")
    return worker


def start(rhythm: Rhythm, *arguments: str) -> str:
    """What start.js prints."""
    command = ["node", "start.js", *arguments]
    done = subprocess.run(
        command, cwd=rhythm.folder, env=clean_environment(rhythm.env), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_workers_of_both_languages_on_one_queue_never_touch_each_others_tasks(
    shop: Rhythm, processes: Processes
) -> None:
    shop("publish", "workflows", code=0)
    python = processes.rhythm("worker", cwd=shop.folder, env=shop.env)
    python.wait_for_output("worker ready")
    node = node_worker(shop, processes)

    sent = [json.loads(start(shop, f"o-{number}")) for number in range(3)]
    refused = json.loads(start(shop, "o-9", "AQ"))

    assert [order["sent"] for order in sent] == [True] * 3
    assert sent[1]["invoice"].startswith("o-1: 5.70, sent as NZ-")
    assert refused == {"sent": False, "reason": "TaskNotRetryable: nobody delivers there"}
    with psycopg.connect(shop.env["RHYTHM_DATABASE_URL"]) as connection:
        rows = connection.execute(
            "select name, attempts, lost from rhythm.list_executions(p_kind => 'task', p_limit => 100)"
        ).fetchall()
    assert {(attempts, lost) for _, attempts, lost in rows} == {(1, 0)}
    assert sorted({name for name, _, _ in rows}) == ["priceOrder", "printLabel", "writeInvoice"]
    assert "printing" in node.output
    assert "printLabel" not in python.output

    wrong = 'workflow() {\n  await task("printLabel", { orderId: 7 })\n}\n'
    shop.write("wrong.flow", wrong)
    found = shop("check", "wrong.flow", "--registered", code=1).out
    assert "error[F502]: `printLabel` needs the input `country`" in found
    assert "error[F504]: `orderId` of `printLabel` should be a string, not a number" in found
    shop("check", "workflows", "--registered", code=0)
    types = shop("types", "workflows", "--registered", code=0).out
    assert "inputs: { items: string[]; orderId: string; country: string }" in types


def test_a_node_worker_that_is_killed_is_taken_over_by_another(shop: Rhythm, processes: Processes) -> None:
    shop.write(
        "tasks.js",
        'import { task } from "rhythm-flow"\n'
        'task("printLabel", async ({ country }, ctx) => {\n'
        '  if (ctx.attempt === 1) process.kill(process.pid, "SIGKILL")\n'
        "  return { label: `${country}-${ctx.attempt}` }\n"
        "})\n",
    )
    shop("publish", "workflows", code=0)
    processes.rhythm("worker", cwd=shop.folder, env=shop.env).wait_for_output("worker ready")
    first = node_worker(shop, processes)
    started = processes.start(["node", "start.js"], cwd=shop.folder, env=shop.env)
    first.wait(30)
    node_worker(shop, processes)
    started.wait(40)

    assert json.loads(started.output)["invoice"] == "o-1: 5.70, sent as NZ-2"


def test_the_quick_start_needs_no_python_of_the_users(embedded_project: Rhythm, processes: Processes) -> None:
    rhythm = embedded_project
    rhythm("init", "--node", code=0)
    install(rhythm.folder)
    processes.rhythm("dev", cwd=rhythm.folder).wait_for_output("worker ready")
    # it asks the command `rhythm`, which is on the path, for the database
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    worker = processes.start(["node", COMMAND, "worker", "./tasks.js"], cwd=rhythm.folder, env={"PATH": path})
    worker.wait_for_output("worker ready")

    done = rhythm("start", "processOrder", "--inputs", '{"orderId": "o-1", "amount": 25}', "--wait", code=0)

    assert json.loads(done.out) == {"success": True, "txnId": "txn-o-1"}
    assert list(rhythm.folder.rglob("*.py")) == []


def test_the_typescript_on_the_pages_compiles(tmp_path: Path) -> None:
    install(tmp_path, "zod", "pg", "@types/node", "@types/pg")
    given = 'import type { Client } from "rhythm-flow"\nimport type { Pool } from "pg"\n'
    declared = "declare const pool: Pool, client: Client, orderId: string\n"
    names = []
    for page in ("docs/node.md", "node/README.md"):
        for number, block in enumerate(re.findall(r"^```ts\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)):
            names.append(f"{page.replace('/', '_')}_{number}.ts")
            imports = re.findall(r"^import .*\n", block, re.M)
            own = [name for name in ("task", "connect") if re.search(rf"\b{name}\(", block)]
            if own and not any('"rhythm-flow"' in line for line in imports):
                imports.append(f'import {{ {", ".join(own)} }} from "rhythm-flow"\n')
            rest = re.sub(r"^import .*\n", "", block, flags=re.M)
            needs = given + declared if "pool" in block else ""
            text = "".join(imports) + needs + rest + "export {}\n"
            (tmp_path / names[-1]).write_text(text)
    options = {
        "target": "ES2022", "lib": ["ES2023", "ESNext.Disposable"], "module": "NodeNext", "strict": True,
        "noEmit": True, "skipLibCheck": True, "types": ["node"],
    }  # fmt: skip
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": names}))

    compiler = ROOT / "node" / "node_modules" / ".bin" / "tsc"
    done = subprocess.run([str(compiler), "-p", str(tmp_path)], capture_output=True, text=True, timeout=120)

    assert len(names) >= 5
    assert done.stdout == ""
