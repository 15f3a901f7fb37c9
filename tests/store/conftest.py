"""A store on a database of its own, and a bench to play worker with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.store.bench import Bench


@pytest.fixture
async def bench(rhythm_url: str) -> AsyncIterator[Bench]:
    """On the wheel's PostgreSQL 18; every test must leave the invariants whole."""
    async with Bench.on(rhythm_url) as made:
        yield made
        assert [] == await made.store.breaches()


@pytest.fixture
async def any_bench(any_rhythm_url: str) -> AsyncIterator[Bench]:
    """The same on every server that tests run on."""
    async with Bench.on(any_rhythm_url) as made:
        yield made
        assert [] == await made.store.breaches()
