"""Absurd: durable steps as SQL functions, driven by a thin Python SDK."""

import peer
import psycopg
from absurd_sdk import Absurd
from absurdctl import BUNDLED_SCHEMA_SQL

TASKS = {"task": "noop", "workflow": "three_steps"}


def application(url):
    app = Absurd(url, queue_name="q")

    @app.register_task(name="noop")
    def noop(parameters, context):
        peer.mark(parameters["i"])

    @app.register_task(name="three_steps")
    def three_steps(parameters, context):
        for name in ("a", "b", "c"):
            context.step(name, lambda: 1)
        peer.mark(parameters["i"])

    @app.register_task(name="many_steps")
    def many_steps(parameters, context):
        for number in range(parameters["count"]):
            context.step(f"s{number}", lambda: 1)
        peer.mark(0)

    return app


class AbsurdPeer(peer.Peer):
    def open(self):
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.app = application(self.url)

    def prepare(self):
        self.connection.execute(BUNDLED_SCHEMA_SQL)
        self.app.create_queue("q")

    def fill(self, kind, count):
        for part in peer.portions(count):  # it has no bulk start: one statement calls its function for each
            self.connection.execute(
                "select count(*) from generate_series(%s::int, %s::int) i, "
                "lateral absurd.spawn_task('q', %s, jsonb_build_object('i', i), '{}'::jsonb)",
                (part[0], part[-1], TASKS[kind]),
            )

    def start(self, index):
        self.app.spawn("noop", {"i": index})

    def start_steps(self, count):
        self.app.spawn("many_steps", {"count": count})

    def work(self):
        application(self.url).start_worker(
            concurrency=1, batch_size=peer.SETTINGS["batch_size"], poll_interval=0.005, claim_timeout=120
        )


peer.run(AbsurdPeer)
