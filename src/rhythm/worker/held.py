"""What a worker holds: one record per execution it has claimed and not yet reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from rhythm.model import Claim, Parent, TaskOutcome, WorkflowCommit
from rhythm.store.marshal import MEMBERS_BITS

if TYPE_CHECKING:
    from rhythm.engine import Live


class Held:
    """One claimed execution. ``token`` changes when the batch it came in is split."""

    __slots__ = ("abandoned", "began_at", "begun", "cancel_asked", "claim", "ended", "kill", "running", "token")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.token = claim.token
        self.running: asyncio.Task[None] | None = None  #: of an async task that has really suspended
        self.begun = False  #: a task that was called
        self.began_at = 0.0  #: time.monotonic()
        self.kill: Callable[[], None] | None = None  #: ends the process in which it runs
        self.cancel_asked = False
        self.abandoned: str | None = None  #: why nobody waits for it any more, for whoever asks its context
        self.ended = False  #: not held any more; the same execution may be held again, in another record

    @property
    def batch(self) -> int:
        """The claim its token belongs to; the same for all members of a batch."""
        return self.token >> MEMBERS_BITS


class Report:
    """How the work on a held execution ended, ready to be sent."""

    __slots__ = ("commit", "continuation", "held", "live", "outcome")

    def __init__(
        self,
        held: Held,
        *,
        outcome: TaskOutcome | None = None,
        commit: WorkflowCommit | None = None,
        live: Live | None = None,
        continuation: WorkflowCommit | None = None,
    ) -> None:
        self.held = held
        self.outcome = outcome  #: of a task
        self.commit = commit  #: of a workflow
        self.live = live  #: heap for the cache, once the commit (or continuation) is confirmed
        self.continuation = continuation  #: the parent's next step, with the outcome of a task


class ParentStep:
    """A finished task whose parent this worker may continue in the same exchange."""

    __slots__ = ("held", "outcome", "parent")

    def __init__(self, held: Held, outcome: TaskOutcome, parent: Parent) -> None:
        self.held = held
        self.outcome = outcome
        self.parent = parent
