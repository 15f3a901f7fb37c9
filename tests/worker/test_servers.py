"""A worker on every server that tests run on; what the store does there, `tests/store/` tries in detail."""

from __future__ import annotations

from pathlib import Path

from tests.support.processes import Processes
from tests.worker.conftest import open_shop


async def test_a_worker_works_on_every_server(any_postgres_url: str, tmp_path: Path, processes: Processes) -> None:
    async with open_shop(any_postgres_url, tmp_path, processes) as shop:
        shop.worker()
        expected = await shop.start_orders(20)

        await shop.check(expected)
