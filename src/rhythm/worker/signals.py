"""Signals for tests: named moments in the life of a worker, to wait for instead of sleeping.

await worker.signals.claimed.wait()
"""

from __future__ import annotations

import asyncio


class Signals:
    """Each is set when it happens and stays set; a test that wants the next time clears it first."""

    def __init__(self) -> None:
        self.registered = asyncio.Event()  #: the incarnation is known to the database
        self.claimed = asyncio.Event()  #: claims have come
        self.reported = asyncio.Event()  #: reports have been confirmed
        self.idle = asyncio.Event()  #: an exchange found nothing to claim
        self.drained = asyncio.Event()  #: it holds nothing any more and will claim nothing
