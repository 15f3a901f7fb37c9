"""Every case of the suite, for every adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.suite import ADAPTERS, NODE, Bench, Run, read_cases
from tests.conftest import Servers
from tests.support.pooler import PROGRAM, running_pooler
from tests.support.processes import Processes

CASES = read_cases()
POOLED = {  #: cases that are run through a pooler as well
    "many at once, in order",
    "options and what is told of an execution",
    "retries as registered",
    "a running task is cancelled",
    "a worker is killed: another takes over",
    "a burst of quick tasks keeps no others out",
    "the server ends all connections while tasks run",
}


@pytest.fixture(scope="module")
def benches(postgres_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bench]]:
    """One for each adapter of the tests that this process runs."""
    assert (NODE / "src" / "cli.js").exists(), "the Node.js adapter is not built: make node"
    server = postgres_servers.get("18")
    with ExitStack() as stack:

        class Benches(dict[str, Bench]):
            def __missing__(self, name: str) -> Bench:
                url = stack.enter_context(server.database(server.migrated_template()))
                processes = Processes(tmp_path_factory.mktemp(name))
                bench = self[name] = Bench(ADAPTERS[name], url, processes)
                stack.callback(bench.close)
                return bench

        yield Benches()


@pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed (CI has it)")
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_through_a_pooler(rhythm_url: str, tmp_path: Path, adapter: str) -> None:
    with running_pooler(rhythm_url, tmp_path / "pooler") as pooled, Processes(tmp_path) as processes:
        bench = Bench(ADAPTERS[adapter], rhythm_url, processes, pooled)
        try:
            for case in CASES:
                if case["case"] in POOLED:
                    Run(bench).case(case)
        finally:
            bench.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_case(benches: dict[str, Bench], adapter: str, case: dict[str, Any]) -> None:
    Run(benches[adapter]).case(case)
