"""pgqueuer: LISTEN/NOTIFY queue on asyncpg."""

from datetime import timedelta

import asyncpg
import peer
import uvloop
from pgqueuer import PgQueuer, Queries
from pgqueuer.db import AsyncpgDriver


class PgQueuerPeer(peer.Peer):
    async def open(self):
        self.connection = await asyncpg.connect(self.url)
        self.queries = Queries(AsyncpgDriver(self.connection))

    async def close(self):
        await self.connection.close()

    async def prepare(self):
        await self.queries.install()

    async def fill(self, kind, count):
        for part in peer.portions(count):
            await self.queries.enqueue(["noop"] * len(part), [b"%d" % i for i in part], [0] * len(part))

    async def start(self, index):
        await self.queries.enqueue("noop", b"%d" % index)

    async def work(self):
        pool = await asyncpg.create_pool(self.url, min_size=4, max_size=8)
        queue = PgQueuer.from_asyncpg_pool(pool)

        @queue.entrypoint("noop")
        async def noop(job):
            peer.mark(int(job.payload))

        await queue.run(batch_size=peer.SETTINGS["batch_size"], dequeue_timeout=timedelta(seconds=5))


peer.run(PgQueuerPeer, uvloop.run)
