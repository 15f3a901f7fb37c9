"""A process that uses the embedded server until its standard input ends: `embedded_user.py JSON`.

Prints "ready URL" once it has the server. Everything is imported before the user is changed, as another user may
not be able to read this Python installation.
"""

import json
import os
import sys
from pathlib import Path

from rhythm.store import embedded


def main() -> None:
    options = json.loads(sys.argv[1])
    embedded.SYSTEM_ROOT = Path(options["system_root"])
    if options["user"] is not None:
        os.setgroups([])
        os.setgid(options["user"])
        os.setuid(options["user"])
    server = embedded.EmbeddedServer(options["data_root"], binaries=Path(options["binaries"]))
    sys.stdout.write(f"ready {server.ensure_running()}\n")
    sys.stdout.flush()
    sys.stdin.read()


main()
