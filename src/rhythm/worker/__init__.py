"""The worker: claims executions, runs them, reports. ``rhythm.Worker`` runs one inside an application.

worker         life cycle: connect, register, run, begin anew, stop
incarnation    one registration: its parts, what they tell each other, and how it ends
exchange       the loop of exchanges: reports out, claims in, and what to do when an answer is lost
runner         tasks: on the loop, or in threads
lanes          how many tasks of each kind run, wait, and are claimed
children       child processes for tasks that can be killed; child: what runs in them
transactional  tasks whose writes and outcome are one commit
activations    workflows: the thread they run on, and the cache of their heaps
heartbeat      the sign of life, from a thread and connection of its own
maintenance    what is due in the database
health         the port that says whether the worker is well
transitions    one log line for each change in the life of an execution
watchdog       the time and memory of one activation; usage: what a thread and its process have used
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rhythm.worker.worker import Worker

__all__ = ["Worker"]


def __getattr__(name: str) -> Any:
    # Late, because the testing kit needs only the watchdog.
    if name == "Worker":
        from rhythm.worker.worker import Worker

        return Worker
    raise AttributeError(f"module 'rhythm.worker' has no attribute {name!r}")
