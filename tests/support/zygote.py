"""A process that has imported everything and forks workers from itself: a worker is there in a tenth of the time.

Reads one JSON object per line from its standard input and answers each with one line:
{"command": [...], "cwd": folder, "env": {...}, "log": file}   the number of the new process, in a session of its own
{"wait": number}                                                its exit status, negative for the signal that killed it
On Linux its children die with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback

import asyncpg  # noqa: F401  (imported once, here)
import uvloop  # noqa: F401

import rhythm
import rhythm.cli.worker
import rhythm.client.publishing
import rhythm.worker.worker  # noqa: F401
from rhythm import faults

PR_SET_PDEATHSIG = 1


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                run(order)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def run(order: dict[str, object]) -> None:
    """The child: `rhythm COMMAND` as if it had been started."""
    code = 1
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.chdir(str(order["cwd"]))
        os.environ.clear()
        os.environ.update(order["env"])  # type: ignore[call-overload]
        faults._current = faults.from_environment()
        sys.path.insert(0, str(order["cwd"]))
        sys.argv = ["rhythm", *order["command"]]  # type: ignore[misc]
        from rhythm.cli import main as command

        command()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:  # noqa: BLE001  (the end of a process)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
