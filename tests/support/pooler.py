"""A PgBouncer in transaction mode in front of a server: no session lasts longer than a transaction.

The pool is smaller than the number of clients in any test and is handed round in turn, so that statements of one client
run on ever other connections; nobody resets a connection, as in transaction mode.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from rhythm.store.embedded import choose_account

TIMEOUT_SECONDS = 20.0
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
_CONFIGURATION = """\
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
min_pool_size = 3
max_client_conn = 200
server_round_robin = 1
server_reset_query =
logfile = {folder}/pgbouncer.log
pidfile =
"""


@contextlib.contextmanager
def running_pooler(url: str, folder: Path) -> Iterator[str]:
    """A pooler in front of the server of `url`; the URL of the same database through it."""
    assert PROGRAM is not None, "asked for only where it is installed"
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    user = parts.username or "postgres"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = free.getsockname()[1]
    folder.mkdir()
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        _CONFIGURATION.format(
            host=query.get("host", [parts.hostname])[0],
            port=parts.port or 5432,
            user=user,
            listen=listen,
            folder=folder,
        )
    )
    account = choose_account()  # it does not run as root
    command = [PROGRAM, "-q", str(configuration)]
    if account is not None:
        shutil.chown(folder, account.user, account.group)
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o077 == 0:
                parent.chmod(parent.stat().st_mode | 0o011)  # pytest's own folders
        process = subprocess.Popen(command, user=account.user, group=account.group, extra_groups=[])
    else:
        process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", listen)):
                break
            log = (folder / "pgbouncer.log").read_text() if (folder / "pgbouncer.log").exists() else "no log"
            assert process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.02)
        yield f"postgresql://{user}@127.0.0.1:{listen}{parts.path}"
    finally:
        process.kill()
        process.wait()
