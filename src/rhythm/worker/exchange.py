"""The loop of exchanges: reports out, claims in.

While one exchange is in flight, reports gather; the next one carries all of them and asks for more work. At most
IN_FLIGHT_MAX are in flight, on connections of their own, so that Postgres and Python overlap. A batch of claims is
split by the first exchange that reports some of its members: until its answer brings the new tokens, no other exchange
reports members of that batch. What an answer brings begins only when the next exchange is on its way: so Postgres finds
more while Python runs it.

Unknown outcomes. When an exchange fails because the database went away, nobody knows whether it was committed. Its
reports stay here, nothing more is sent until every other exchange has ended, and then the database is asked what this
incarnation holds (``held``): what it still holds is sent again, under its present token; what it does not hold any more
was committed, or taken over, and is dropped; what it holds and we have never seen was claimed by the lost answer, and
is run. So nothing is guessed and nothing is sent twice. A lost exchange may still be running on the server, or not have
reached it yet: the question waits for the first, and shuts out the second (each begins a new ``epoch``). It is asked
again every AUDIT_SECONDS, for what was ended by others meanwhile.

The same execution twice. Answers of two exchanges may come in another order than they were committed: one may bring a
new claim on what the other has just reported. So a record is dropped by identity, never by id.

Data errors. If an exchange fails on data, its reports are sent in halves until the culprit stands alone; that one fails
with OutcomeRefused, the others go through.

Suspects. An execution that was lost before is claimed alone, by a worker that runs nothing else meanwhile, so that
only the culprit can take a worker down. A worker that hears of one claims nothing until its hands are free, but not for
long: what it holds may take hours, and others may be free sooner.

Queues with limits. What their gates let pass is claimed singly, and only as much as would begin at once
(``Lane.free``). When a rate is all that keeps something here from passing, the answer says for how long, and the loop
looks again then.

Without a trusted heartbeat others may be about to take over: the incarnation is cut off. It claims nothing more, and
the loop winds up: what the rest of the worker still has to report or to hand back (see ``incarnation``) is sent when
the database answers, after ``held`` as above; then the incarnation is over. What is claimed by an answer that comes
when nothing is to be claimed any more goes back as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from rhythm.errors import DatabaseUnavailable, IncarnationDead, InvalidInput, RhythmError
from rhythm.faults import FailPoint
from rhythm.model import (
    CLAIM_COUNT_MAX,
    Claim,
    Continuation,
    ExchangeRequest,
    ExchangeResult,
    TaskOutcome,
    WorkflowCommit,
    WorkflowOutcome,
)
from rhythm.store import Store
from rhythm.store.connection import Backoff
from rhythm.worker.heartbeat import Heartbeat
from rhythm.worker.held import Held, Report
from rhythm.worker.lanes import Lane
from rhythm.worker.signals import Signals

IN_FLIGHT_MAX: Final = 2
REPORTS_MAX: Final = 500  #: reports in one exchange
CLEARING_SECONDS: Final = 5.0  #: how long a worker claims nothing to get its hands free for a suspect
CLEARING_PAUSE_SECONDS: Final = 30.0  #: before it tries again, when what it holds takes longer
CLAIM_BYTES_FULL: Final = 1 << 20  #: claims larger than this may have been cut short by their limit of bytes
SETTLE_SECONDS: Final = 0.03  #: without news, until a worker that holds something asks to be notified of more
AUDIT_SECONDS: Final = 60.0  #: at least this often what is held here is compared with the database
SENT_TURNS: Final = 2  #: of the event loop until a launched exchange has been written to its connection
BATCH_FIRST: Final = 32  #: tasks in the first claims; doubled while batches run through

logger = logging.getLogger("rhythm.worker")


Wanted = list[tuple[Lane, int, int]]  # of which lanes how many tasks to claim, and how many would begin at once


class Work:
    """What the loop needs to know of the rest of the worker; implemented by the worker."""

    def lanes(self) -> Sequence[Lane]:
        """The kinds of tasks it runs, and how many more of each to claim."""
        raise NotImplementedError

    def workflows_ahead(self) -> int:
        """How many workflows may be claimed and not yet committed."""
        raise NotImplementedError

    def accept(self, held: list[Held]) -> None:
        """Runs what was claimed."""
        raise NotImplementedError

    def confirmed(self, report: Report, version: int | None) -> None:
        """A report was committed; ``version`` is the one its heap now has, None when it was only taken note of."""
        raise NotImplementedError

    def cut_off(self) -> None:
        """Stops everything; leaves with the exchange what is to be reported or handed back."""
        raise NotImplementedError


class Exchange:
    """The exchange loop of one incarnation."""

    def __init__(
        self,
        store: Store,
        incarnation: uuid.UUID,
        work: Work,
        *,
        queues: Sequence[int],
        singles: Sequence[int],
        poll_interval: float,
        signals: Signals,
        fail_point: FailPoint | None,
    ) -> None:
        self.store = store
        self.incarnation = incarnation
        self.heartbeat: Heartbeat  # set before run(): it wants to know when the exchange last turned
        self.work = work
        self.queues = queues
        self.singles = singles  #: names of tasks claimed singly
        self.poll_interval = poll_interval
        self.signals = signals
        self.fail_point = fail_point
        self.held: dict[uuid.UUID, Held] = {}
        self.arrived: list[Held] = []  #: claimed, and to begin once what is to be asked for next is on its way
        self.reports: list[Report] = []  #: ready to be sent
        self.hand_backs: list[Held] = []
        self.workflows_out = 0  #: claimed workflows that are not committed yet
        self.claiming = True
        self.winding_up = False  #: cut off: over when nothing is left to send
        self.turned_at = time.monotonic()
        self.answered_at = self.turned_at  #: when the database last answered
        self.unanswered = False  #: it was not there at the last call
        self.batch = BATCH_FIRST
        self._splitting: set[int] = set()  # batches whose new tokens are on their way
        self._flights: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._uncertain = False
        self._epoch = 0  # how often the database was asked what is held
        self._claims_in_flight = 0
        self._look = True  # something may be there to claim
        self._over: str | None = None  # why this incarnation is over
        self._listening = False  # the database notifies this incarnation of what becomes claimable
        self._settled = False  # nothing has happened for SETTLE_SECONDS
        self._crowded = False  # no room was left when it last looked
        self._clearing_until = 0.0  # claims nothing until then, for a suspect's sake
        self._clear_again_at = 0.0
        self._suspects_held = 0
        self._pass_at = math.inf  # when a rate lets something pass that could be run here
        self._audit_at = time.monotonic() + AUDIT_SECONDS
        self._backoff = Backoff()
        self._trouble = Backoff()  # of exchanges that the database understands, but cannot do

    # --- from the rest of the worker ---

    def hint(self) -> None:
        """Something may be there to claim."""
        self._look = True
        self._wake.set()

    def room(self) -> None:
        """A task has ended: there may be room again for what could not be claimed before."""
        if self._crowded:
            self.hint()

    def report(self, report: Report) -> None:
        """Takes a report to send."""
        self.reports.append(report)
        self._wake.set()

    def hand_back(self, held: Sequence[Held]) -> None:
        """Takes executions to give back uncharged."""
        self.hand_backs.extend(held)
        self._wake.set()

    def settled(self, held: Held) -> None:
        """Its outcome was reported by other means, or refused: it is not held any more."""
        self._drop(held)
        self.signals.reported.set()
        self.hint()

    def end(self, why: str) -> None:
        """This incarnation is over: nothing more is sent."""
        self._over = self._over or why
        self._wake.set()

    @property
    def is_idle(self) -> bool:
        """Nothing is held, on its way, or to be sent."""
        return not self.held and self.is_settled

    @property
    def is_settled(self) -> bool:
        """Nothing is on its way or to be sent, and what the database has taken in is known."""
        return not (self.reports or self.hand_backs or self._flights or self._uncertain)

    # --- the loop ---

    async def run(self) -> None:
        """Runs until cancelled. Raises IncarnationDead when this incarnation is over."""
        try:
            while True:
                self.turned_at = time.monotonic()
                if self._over is not None:
                    raise IncarnationDead(self._over)
                if not self.winding_up and not self.heartbeat.is_trusted:
                    await self._wind_up()
                elif self._uncertain or time.monotonic() > self._audit_at:
                    await self._reconcile()
                elif self._launch():
                    continue
                elif self.arrived:
                    await self._begin()
                elif self.winding_up and self.is_settled:
                    self.end("this worker was cut off from the database; what had begun is lost")
                else:
                    await self._sleep()
        finally:
            for flight in self._flights:
                flight.cancel()
            await asyncio.gather(*self._flights, return_exceptions=True)

    async def _begin(self) -> None:
        """Has the rest of the worker run what was claimed, once what was launched is on its way to Postgres."""
        await asyncio.sleep(0)  # the flight that brought it lands
        if self._launch():
            for _ in range(SENT_TURNS):
                await asyncio.sleep(0)
        for lane in self.work.lanes():
            lane.arrived = 0
        arrived = [held for held in self.arrived if not held.ended]
        self.arrived = []
        if self.claiming:
            self.work.accept(arrived)
        else:
            self.hand_back(arrived)

    async def _sleep(self) -> None:
        ask_to_be_notified = not self._listening and not self._flights and self._may_be_notified(*self._wanted())
        pause = min(self.poll_interval, self.heartbeat.turn_seconds)
        pause = min(pause, max(self._pass_at - time.monotonic(), 0.0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(SETTLE_SECONDS, pause) if ask_to_be_notified else pause):
                await self._wake.wait()
        if not self._wake.is_set():
            self._look = True  # polling is the promise
            self._settled = True
        self._wake.clear()

    def _launch(self) -> bool:
        """Starts one exchange if there is reason for one. Returns whether it did."""
        if len(self._flights) >= IN_FLIGHT_MAX:
            return False
        reports = self._sendable()
        backs = self._returnable(reports)
        tasks, workflows = self._wanted()
        if self._pass_at <= time.monotonic():
            self._pass_at = math.inf
            self._look = True
        # a report may have made something claimable: the next step of a workflow, a retry
        look = self._look or bool(reports)
        claims = (bool(tasks) or workflows > 0) and look and not (self._claims_in_flight and not reports)
        if not (reports or backs or claims):
            return False
        if not claims:
            tasks, workflows = [], 0
        # Noted here and not when the task begins: the next look must already see it.
        batches = {report.held.batch for report in reports} | {held.batch for held in backs}
        self._splitting |= batches
        if claims:
            self._claims_in_flight += 1
            self._look = False
        for lane, count, _ in tasks:
            lane.asked += count
        flight = asyncio.create_task(self._fly(reports, backs, tasks, workflows), name="rhythm-exchange")
        self._flights.add(flight)
        flight.add_done_callback(partial(self._landed, reports, backs, batches, claims, tasks))
        return True

    def _landed(
        self,
        reports: list[Report],
        backs: list[Held],
        batches: set[int],
        claims: bool,
        tasks: Wanted,
        flight: asyncio.Task[None],
    ) -> None:
        # Here and not in the flight: one that is cancelled before its first step never runs its own last lines.
        self._flights.discard(flight)
        self._splitting -= batches
        if claims:
            self._claims_in_flight -= 1
        for lane, count, _ in tasks:
            lane.asked -= count
        self._wake.set()
        error = None if flight.cancelled() else flight.exception()
        if error is None and not flight.cancelled():
            return
        self.reports[:0] = reports
        self.hand_backs[:0] = backs
        self._uncertain = True
        if isinstance(error, IncarnationDead):
            self.end("this worker was declared dead; what it held has been taken over")
        elif isinstance(error, DatabaseUnavailable):
            self.unanswered = True
            logger.warning("exchange failed, its outcome is unknown: %s", error)
        elif error is not None:
            logger.error("exchange failed: %s", error, exc_info=error)

    def _wanted(self) -> tuple[Wanted, int]:
        """How many tasks of which lanes, and how many workflows to claim."""
        if not self.claiming or self._suspects_held or not self.heartbeat.has_beaten or not self._hands_free():
            return [], 0
        workflows = max(min(self.work.workflows_ahead() - self.workflows_out, self.batch), 0)
        lanes = [lane for lane in self.work.lanes() if lane.name_ids]
        counts = _shares([min(self.batch, lane.room()) for lane in lanes], CLAIM_COUNT_MAX)
        tasks = [(lane, n, min(n, lane.free())) for lane, n in zip(lanes, counts, strict=True) if n > 0]
        self._crowded = workflows == 0 or len(tasks) < len(lanes)
        return tasks, workflows

    def _hands_free(self) -> bool:
        """False while this worker waits for what it holds to end, to be able to take a suspect."""
        if not self._clearing_until:
            return True
        if self.held or self._flights:
            if time.monotonic() < self._clearing_until:
                return False
            self._clear_again_at = time.monotonic() + CLEARING_PAUSE_SECONDS
        self._clearing_until = 0.0
        return True

    def _sendable(self) -> list[Report]:
        """Takes the reports that may be sent now: not those of a batch that is being split."""
        if not self._splitting and len(self.reports) <= REPORTS_MAX:
            taken, self.reports = self.reports, []
        else:
            taken = []
            kept: list[Report] = []
            for report in self.reports:
                busy = len(taken) >= REPORTS_MAX or report.held.batch in self._splitting
                (kept if busy else taken).append(report)
            self.reports = kept
        return taken

    def _returnable(self, reports: Sequence[Report]) -> list[Held]:
        if not self.hand_backs:
            return []
        # What has ended meanwhile is reported and not handed back, or was already: never both.
        reporting = {id(report.held) for report in reports} | {id(report.held) for report in self.reports}
        backs = [held for held in self.hand_backs if not held.ended and id(held) not in reporting]
        self.hand_backs = [held for held in backs if held.batch in self._splitting]
        return [held for held in backs if held.batch not in self._splitting]

    # --- one exchange ---

    async def _fly(self, reports: list[Report], backs: list[Held], tasks: Wanted, workflows: int) -> None:
        """Sends one exchange; what a failure means is seen to where it lands."""
        try:
            await self._send(reports, backs, tasks, workflows)
        except (DatabaseUnavailable, IncarnationDead):
            raise
        except Exception:
            await asyncio.sleep(self._trouble.next_seconds())
            raise

    async def _send(self, reports: list[Report], backs: list[Held], tasks: Wanted, workflows: int) -> None:
        request = self._request(reports, backs, tasks, workflows)
        self._settled = False
        try:
            result = await self.store.exchange(request)
        except (DatabaseUnavailable, IncarnationDead):
            raise
        except Exception as error:
            if not _is_about_data(error):
                raise
            await self._bisect(reports, backs, error)
            self._look = True
            return
        self._answered()
        self._trouble.reset()
        self._settle(result, reports, backs)
        self._take(result, tasks, workflows)
        self._listening = request.idle and not result.claims

    def _answered(self) -> None:
        self.answered_at = time.monotonic()
        self.unanswered = False

    def _request(self, reports: list[Report], backs: list[Held], tasks: Wanted, workflows: int) -> ExchangeRequest:
        outcomes: list[TaskOutcome] = []
        commits: list[WorkflowCommit] = []
        continuations: list[Continuation] = []
        for report in reports:
            token = report.held.token
            if report.outcome is not None:
                outcome = report.outcome
                outcomes.append(outcome if outcome.token == token else msgspec.structs.replace(outcome, token=token))
                if report.continuation is not None:
                    continuations.append(Continuation(child_id=report.held.claim.id, commit=report.continuation))
            else:
                assert report.commit is not None, "a report has an outcome or a commit"
                if report.commit.token != token:
                    report.commit = _with_token(report.commit, token)
                commits.append(report.commit)
        alone = (
            not self._claims_in_flight > 1 and len(self.held) == len(reports) + len(backs) and len(self._flights) <= 1
        )
        return ExchangeRequest(
            incarnation=self.incarnation,
            epoch=self._epoch,
            task_outcomes=outcomes,
            workflow_commits=commits,
            continuations=continuations,
            hand_backs=[(held.token, held.claim.id) for held in backs],
            queues=self.queues,
            names=[id_ for lane, _, _ in tasks for id_ in lane.name_ids],
            singles=self.singles,
            task_limits=[(len(lane.name_ids), count) for lane, count, _ in tasks],
            task_free=[free for _, _, free in tasks],
            workflow_limit=workflows,
            alone=alone,
            idle=self._wants_notice(reports, tasks, workflows),
            parents=bool(tasks),
        )

    def _may_be_notified(self, tasks: Wanted, workflows: int) -> bool:
        """Whether notifications are of use: not to a worker that has tasks, but room only for workflows."""
        return bool(tasks) or (workflows > 0 and not any(lane.name_ids for lane in self.work.lanes()))

    def _wants_notice(self, reports: Sequence[Report], tasks: Wanted, workflows: int) -> bool:
        """Whether this worker sleeps if it gets nothing: it holds nothing, or only what takes its time."""
        if not self._may_be_notified(tasks, workflows):
            return False
        return self._settled or not self.held.keys() - {r.held.claim.id for r in reports}

    def _settle(self, result: ExchangeResult, reports: Sequence[Report], backs: Sequence[Held]) -> None:
        """What the answer says about what was sent."""
        for report in reports:
            claim = report.held.claim
            self._drop(report.held)
            if claim.id in result.refused:
                logger.warning(
                    "execution_id=%s attempt=%d refused: it was taken over or has finished", claim.id, claim.attempt
                )
                continue
            version: int | None = None
            if report.continuation is not None:
                if report.continuation.id in result.continued:
                    version = report.continuation.version + 1
            elif report.commit is not None:
                version = report.commit.version + 1
            self.work.confirmed(report, version)
        for held in backs:
            self._drop(held)
        for execution_id, token in result.retokened.items():
            still = self.held.get(execution_id)
            if still is not None:
                still.token = token
        if reports:
            self.signals.reported.set()

    def _drop(self, held: Held) -> None:
        if held.ended:
            return
        held.ended = True
        if self.held.get(held.claim.id) is held:
            del self.held[held.claim.id]
        if held.claim.kind == "workflow":
            self.workflows_out -= 1
        if held.claim.lost:
            self._suspects_held -= 1

    def _take(self, result: ExchangeResult, tasks: Wanted, workflows: int) -> None:
        claims = result.claims
        if claims:
            if self.fail_point is not None:
                self.fail_point.passed("claimed")
            self._hold(claims)
            self.signals.claimed.set()
            names = Counter(claim.name for claim in claims if claim.kind == "task")
            full = []
            for lane, count, _ in tasks:
                came = sum(names[name] for name in names if name in lane.names)
                lane.arrived += came
                if came >= count:
                    full.append(count)
            if self.batch in full:
                self.batch = min(self.batch * 2, CLAIM_COUNT_MAX)
            if full or len(claims) - names.total() >= workflows > 0 or _bytes(claims) > CLAIM_BYTES_FULL:
                self._look = True  # a limit ended the claim: more may be there
        elif result.check_again:
            self._look = True
        elif tasks or workflows:
            self.signals.idle.set()
        now = time.monotonic()
        if tasks or workflows:
            self._pass_at = math.inf if result.next_pass_seconds is None else now + result.next_pass_seconds
        if result.suspects_waiting and not self._clearing_until and now >= self._clear_again_at:
            self._clearing_until = now + CLEARING_SECONDS
            self._look = True
        self._wake.set()

    def _hold(self, claims: Sequence[Claim]) -> None:
        taken = []
        for claim in claims:
            held = Held(claim)
            self.held[claim.id] = held
            if claim.kind == "workflow":
                self.workflows_out += 1
            if claim.lost:
                self._suspects_held += 1
            taken.append(held)
        self.arrived += taken

    # --- when something is wrong ---

    async def _bisect(self, reports: list[Report], backs: list[Held], error: Exception) -> None:
        if len(reports) + len(backs) > 1:
            logger.warning("an exchange of %d reports was refused as a whole: %s", len(reports), error)
            middle = max(1, len(reports) // 2)
            await self._send(reports[:middle], [], [], 0)
            await self._send(reports[middle:], backs, [], 0)
            return
        if not reports:
            logger.error("handing back failed: %s", error)
            for held in backs:
                self._drop(held)
            return
        (report,) = reports
        claim = report.held.claim
        if _is_refusal(report):
            # It stays held, and is handed back when this worker drains: running it again here would end the same way.
            logger.error("execution_id=%s its failure cannot be stored either: %s", claim.id, error)
            return
        logger.error("execution_id=%s its outcome cannot be stored: %s", claim.id, error)
        await self._send([_refusal(report, error)], [], [], 0)

    async def _wind_up(self) -> None:
        """No heartbeat was confirmed for too long: this incarnation ends when the rest of it has been sent."""
        logger.error(
            "no confirmed heartbeat: this incarnation ends; it holds %d executions and has %d reports to send",
            len(self.held), len(self.reports),
        )  # fmt: skip
        self.claiming = False
        self.winding_up = True
        for flight in self._flights:
            flight.cancel()
        await asyncio.gather(*self._flights, return_exceptions=True)
        self.work.cut_off()
        self._uncertain = True

    async def _reconcile(self) -> None:
        """Asks the database what this incarnation holds, and goes by that."""
        if self._flights:
            await asyncio.wait(self._flights, timeout=min(self.poll_interval, self.heartbeat.turn_seconds))
            return
        self._epoch += 1
        known = [mine.claim for mine in self.held.values()]
        patience = None if self.winding_up else self.heartbeat.trusted_seconds
        try:
            async with asyncio.timeout(patience):
                held = await self.store.held(self.incarnation, known, epoch=self._epoch)
        except TimeoutError:
            return  # cut off
        except DatabaseUnavailable:
            self.unanswered = True
            await asyncio.sleep(self._backoff.next_seconds())
            return
        except Exception:
            logger.exception("asking for the claims failed")
            await asyncio.sleep(self._backoff.next_seconds())
            return
        self._answered()
        if self._uncertain:
            count = len(held.tokens)
            logger.info("the database answers again: %d of %d executions are still held", count, len(self.held))
        self._uncertain = False
        self._audit_at = time.monotonic() + AUDIT_SECONDS
        self._backoff.reset()
        for execution_id, mine in list(self.held.items()):
            token = held.tokens.get(execution_id)
            if token is not None:
                mine.token = token
            else:
                self._drop(mine)
        self.reports = [report for report in self.reports if not report.held.ended]
        self.hand_backs = [back for back in self.hand_backs if not back.ended]
        unknown = [claim for claim in held.claims if claim.id not in self.held]
        if unknown:
            verb = "running" if self.claiming else "handing back"
            logger.warning("%s %d executions whose claims were not known here", verb, len(unknown))
            self._hold(unknown)
        self._look = True


def _shares(wanted: Sequence[int], count_max: int) -> list[int]:
    """What each gets of ``count_max``: what it wants, or as much as the others that want more than there is."""
    shares = [0] * len(wanted)
    left = count_max
    for done, index in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        shares[index] = max(0, min(wanted[index], left // (len(wanted) - done)))
        left -= shares[index]
    return shares


def _bytes(claims: Sequence[Claim]) -> int:
    return sum(len(claim.inputs) + len(claim.snapshot or b"") for claim in claims)


def _is_about_data(error: Exception) -> bool:
    """Whether one of the reports may be to blame; everything else would hit the next exchange just the same."""
    if isinstance(error, InvalidInput):
        return True
    if isinstance(error, RhythmError):
        return False
    state = getattr(error, "sqlstate", None)
    return not (isinstance(state, str) and state[:2] in _NOT_ABOUT_DATA)


#: Classes of SQLSTATE: syntax and privileges, features, configuration, transaction and authorization states.
_NOT_ABOUT_DATA: Final = frozenset({"42", "0A", "F0", "25", "28", "2D", "40", "55"})


def _with_token(commit: WorkflowCommit, token: int) -> WorkflowCommit:
    return msgspec.structs.replace(commit, token=token)


_REFUSED: Final = "OutcomeRefused"


def _is_refusal(report: Report) -> bool:
    if report.outcome is not None:
        return report.outcome.status == "failed" and _REFUSED.encode() in report.outcome.payload[:40]
    assert report.commit is not None, "a report has an outcome or a commit"
    ended = report.commit.outcome
    return ended is not None and _REFUSED.encode() in ended.payload[:40]


def _refusal(report: Report, error: Exception) -> Report:
    """The report of a failure in place of one that the database cannot store."""
    failure: dict[str, Any] = {
        "name": _REFUSED,
        "message": f"the database refuses the outcome: {error}"[:2000],
        "type": "failed",
    }
    payload = json.dumps(failure, ensure_ascii=True).encode("ascii")
    held = report.held
    if report.outcome is not None:
        return Report(held, outcome=TaskOutcome(held.token, held.claim.id, "failed", payload, retryable=False))
    assert report.commit is not None, "a report has an outcome or a commit"
    outcome = WorkflowOutcome("failed", payload, keep_snapshot=True)
    commit = WorkflowCommit(
        token=held.token,
        id=held.claim.id,
        version=report.commit.version,
        seen_through=report.commit.seen_through,
        outcome=outcome,
    )
    return Report(held, commit=commit)
