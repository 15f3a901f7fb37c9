"""Rhythm itself, behind the same commands as its peers."""

import asyncio
import os
import sys
from pathlib import Path

import peer

import rhythm
from rhythm.bench.harness import WORKFLOWS

WORKER = [sys.executable, "-m", "rhythm", "worker", "--app", "rhythm.bench.workload", "-q", "bench", "-q", "default"]
NAMES = {"task": "mark", "workflow": "threeMarked"}


class RhythmPeer(peer.Peer):
    async def open(self):
        self.client = rhythm.connect(self.url)
        await self.client.__aenter__()

    async def close(self):
        await self.client.__aexit__(None, None, None)

    async def prepare(self):
        await self.client.migrate()
        await self.client.publish(WORKFLOWS, Path(__file__).parents[1] / "workflows")
        # A worker registers the tasks: before, starts of their names would wait for them.
        worker = await asyncio.create_subprocess_exec(*WORKER, env=os.environ | {"RHYTHM_DATABASE_URL": self.url})
        try:
            await (await self.client.start("mark", {"i": 0})).result(timeout=peer.WAIT_SECONDS)
        finally:
            worker.terminate()
            await worker.wait()

    async def fill(self, kind, count):
        for part in peer.portions(count, 50_000):
            await self.client.start_many([rhythm.Start(NAMES[kind], {"i": i}) for i in part])

    async def start(self, index):
        await self.client.start("mark", {"i": index})

    async def start_steps(self, count):
        await (await self.client.start("manySteps", {"steps": count})).result(timeout=600)
        peer.mark(0)

    def work(self):
        os.execve(WORKER[0], WORKER, os.environ | {"RHYTHM_DATABASE_URL": self.url})


peer.run(RhythmPeer)
