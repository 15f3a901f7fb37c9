"""procrastinate: LISTEN/NOTIFY queue on psycopg."""

import sys

import peer
import procrastinate

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=sys.argv[1], min_size=2, max_size=20))


@app.task(queue="q", name="noop")
async def noop(i):
    peer.mark(i)


class ProcrastinatePeer(peer.Peer):
    async def open(self):
        await app.open_async()

    async def close(self):
        await app.close_async()

    async def prepare(self):
        await app.schema_manager.apply_schema_async()

    async def fill(self, kind, count):
        for part in peer.portions(count):
            await noop.batch_defer_async(*[{"i": i} for i in part])

    async def start(self, index):
        await noop.defer_async(i=index)

    async def work(self):
        async with app.open_async():
            await app.run_worker_async(
                queues=["q"], concurrency=peer.SETTINGS["concurrency"], wait=True, install_signal_handlers=False
            )


peer.run(ProcrastinatePeer)
