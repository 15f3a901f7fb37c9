"""One task of each kind, at the top of a module as those in processes must be."""

from __future__ import annotations

import asyncio

import rhythm


@rhythm.task
async def everyPlain(i: int) -> int:
    return i


@rhythm.task
async def everySuspending(i: int) -> int:
    await asyncio.sleep(0)
    return i


@rhythm.task
def everyThreaded(i: int) -> int:
    return i


@rhythm.task(transactional=True)
async def everyTransactional(i: int, context: rhythm.TaskContext) -> int:
    return i


@rhythm.task(process=True)
def everyProcess(i: int) -> int:
    return i
