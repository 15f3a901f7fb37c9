"""The Postgres layer: connections, the SQL functions, migrations, wake-ups, the embedded server.

`Store` has one async method per SQL function. The functions are the protocol; nothing is decided in Python.
"""

from rhythm.store.store import Store
from rhythm.store.wakeups import Wakeups

__all__ = ["Store", "Wakeups"]
