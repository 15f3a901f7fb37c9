"""dramatiq: processes and threads on Redis (not durable as Redis is configured here)."""

import os
import sys

import dramatiq
import peer
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=os.environ.get("BENCH_REDIS") or sys.argv[1])
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(i):
    peer.mark(i)


class DramatiqPeer(peer.Peer):
    def prepare(self):
        broker.client.flushall()

    def fill(self, kind, count):
        for i in range(count):
            noop.send(i)

    def start(self, index):
        noop.send(index)

    def work(self):
        os.environ.update(BENCH_REDIS=self.url, dramatiq_queue_prefetch="200")
        os.chdir(os.path.dirname(os.path.abspath(__file__)))
        command = os.path.join(os.path.dirname(sys.executable), "dramatiq")
        os.execv(command, [command, "-p", "1", "-t", str(peer.SETTINGS["threads"]), "on_dramatiq"])


if __name__ == "__main__":
    peer.run(DramatiqPeer)
