"""What has finished is kept for as long as `[retention]` says, and no longer."""

from __future__ import annotations

import pytest

import rhythm
from tests.worker.conftest import Shop


async def test_finished_executions_go_when_their_time_is_over(shop: Shop) -> None:
    (shop.folder / "rhythm.toml").write_text('[retention]\nfinished = "1h"\n')
    expected = await shop.start_orders(5)
    suspended = await shop.client.start("slow", {"seconds": 0, "mark": "later"}, delay="30d")
    shop.worker()
    await shop.check(expected)
    await shop.query("update rhythm.clock set moved_by = '59 minutes'")
    assert len(await shop.client.list()) >= len(expected)

    await shop.query("update rhythm.clock set moved_by = '62 minutes'")

    async def gone() -> bool:
        return [found.id for found in await shop.client.list()] == [suspended.id]

    await shop.until(gone, "what has finished is gone")
    with pytest.raises(rhythm.ExecutionNotFound):
        await shop.client.wait(next(iter(expected)))
    assert [0] == [row["n"] for row in await shop.query("select count(*) as n from rhythm.outcomes")]
    assert list(await shop.client.store.breaches()) == []
