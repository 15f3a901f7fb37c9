"""saq: an asyncio queue on Redis (not durable as Redis is configured here)."""

import asyncio

import peer
import uvloop
from saq import Queue, Worker


async def noop(context, *, i):
    peer.mark(i)


class SaqPeer(peer.Peer):
    async def open(self):
        self.queue = Queue.from_url(self.url)
        await self.queue.connect()

    async def prepare(self):
        await self.queue.redis.flushall()

    async def fill(self, kind, count):
        for part in peer.portions(count, 50):
            await asyncio.gather(*(self.queue.enqueue("noop", i=i) for i in part))

    async def start(self, index):
        await self.queue.enqueue("noop", i=index)

    async def work(self):
        await Worker(Queue.from_url(self.url), functions=[noop], concurrency=peer.SETTINGS["concurrency"]).start()


peer.run(SaqPeer, uvloop.run)
