"""DBOS Transact for Python: a library that checkpoints workflows' steps in PostgreSQL."""

import sys
import time

import peer
from dbos import DBOS, DBOSClient

WORKFLOWS = {"task": "noop", "workflow": "three_steps"}
VERSION = "v1"

DBOS(
    config={
        "name": "bench",
        "system_database_url": sys.argv[1],
        "log_level": "CRITICAL",
        "sys_db_pool_size": 20,
        "application_version": VERSION,
        "max_executor_threads": 64,
    }
)


@DBOS.step()
def step(x):
    return x + 1


@DBOS.workflow()
def noop(i):
    peer.mark(i)


@DBOS.workflow()
def three_steps(i):
    step(step(step(0)))
    peer.mark(i)


@DBOS.workflow()
def many_steps(count):
    x = 0
    for _ in range(count):
        x = step(x)
    peer.mark(0)


def options(name):
    return {"workflow_name": name, "queue_name": "q", "app_version": VERSION}


class DbosPeer(peer.Peer):
    def open(self):
        if sys.argv[2] != "prepare":
            self.client = DBOSClient(system_database_url=self.url)

    def prepare(self):
        DBOS.launch()

    def fill(self, kind, count):
        for part in peer.portions(count, 500):
            with self.client._sys_db.engine.begin() as connection:
                for i in part:
                    self.client.enqueue_in_transaction(connection, options(WORKFLOWS[kind]), i)

    def start(self, index):
        self.client.enqueue(options("noop"), index)

    def start_steps(self, count):
        self.client.enqueue(options("many_steps"), count)

    def work(self):
        DBOS.launch()
        DBOS.register_queue(
            "q",
            worker_concurrency=peer.SETTINGS["concurrency"],
            polling_interval_sec=peer.SETTINGS["poll"],
            on_conflict="always_update",
        )
        while True:
            time.sleep(1)


peer.run(DbosPeer)
