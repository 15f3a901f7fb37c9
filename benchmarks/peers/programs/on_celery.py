"""Celery: the solo pool on Redis, results ignored (not durable as Redis is configured here)."""

import os
import sys

import peer
from celery import Celery

app = Celery("on_celery", broker=os.environ.get("BENCH_REDIS") or sys.argv[1])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=64, broker_connection_retry_on_startup=True)


@app.task(name="noop")
def noop(i):
    peer.mark(i)


class CeleryPeer(peer.Peer):
    def prepare(self):
        app.control.purge()

    def fill(self, kind, count):
        for i in range(count):
            noop.delay(i)

    def start(self, index):
        noop.delay(index)

    def work(self):
        os.environ.update(BENCH_REDIS=self.url)
        os.chdir(os.path.dirname(os.path.abspath(__file__)))
        command = [sys.executable, "-m", "celery", "-A", "on_celery", "worker", "-P", "solo", "--without-gossip"]
        os.execv(
            sys.executable,
            [*command, "--without-mingle", "--without-heartbeat", "-l", "CRITICAL", "-n", f"w{os.getpid()}"],
        )


if __name__ == "__main__":
    peer.run(CeleryPeer)
