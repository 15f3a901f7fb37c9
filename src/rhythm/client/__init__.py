"""The client: starts executions, asks about them, waits for them, signals them, publishes workflows.

``connect()`` gives the asynchronous client, ``connect_sync()`` its blocking twin. Both are thin: the
database does the work. Single starts that arrive while a round trip is in flight travel together in the
next one, so many concurrent callers on one client cost few commits.
"""

from rhythm.client.blocking import BlockingClient, BlockingExecution, connect_sync
from rhythm.client.client import Client, Execution, connect
from rhythm.client.starts import Start

__all__ = ["BlockingClient", "BlockingExecution", "Client", "Execution", "Start", "connect", "connect_sync"]
