"""The tasks of workflows/fulfilOrder.flow: plain Python with small delays and the failures of real life."""

import asyncio
import random

import ledger

import rhythm

RETRY = rhythm.Retry(initial="50ms", max="500ms")


class PaymentGatewayBusy(Exception):
    """A passing fault: the retry policy deals with it."""


class NoCarrier(Exception):
    """Nobody delivers there. Trying again will not help, so the workflow has to undo what it did."""


async def work() -> None:
    await asyncio.sleep(random.uniform(0.005, 0.05))


@rhythm.task(queue="orders", retries=8, retry=RETRY, timeout="10s")
async def chargePayment(context: rhythm.TaskContext, orderId: str, amount: float) -> dict:
    await work()
    if random.random() < 0.1:
        raise PaymentGatewayBusy("the gateway answered 503")
    await ledger.write(context.idempotency_key, orderId, "charge", round(amount * 100))
    return {"txnId": "txn_" + orderId}


@rhythm.task(queue="orders", retries=8, retry=RETRY, timeout="10s")
async def refundPayment(context: rhythm.TaskContext, orderId: str, txnId: str) -> None:
    await work()
    await ledger.write(context.idempotency_key, orderId, "refund")


@rhythm.task(queue="orders", retries=8, retry=RETRY, timeout="10s")
async def reserveStock(context: rhythm.TaskContext, orderId: str, items: list[str]) -> None:
    await work()
    await ledger.write(context.idempotency_key, orderId, "reserve")


@rhythm.task(queue="orders", retries=8, retry=RETRY, timeout="10s")
async def releaseStock(context: rhythm.TaskContext, orderId: str) -> None:
    await work()
    await ledger.write(context.idempotency_key, orderId, "release")


@rhythm.task(queue="orders", retries=8, retry=rhythm.Retry(initial="50ms", no_retry_on=(NoCarrier,)), timeout="10s")
async def shipParcel(context: rhythm.TaskContext, orderId: str) -> dict:
    await work()
    if orderId.endswith("7"):  # every tenth order goes where no carrier goes
        raise NoCarrier(f"no carrier takes {orderId}")
    await ledger.write(context.idempotency_key, orderId, "ship")
    return {"tracking": "parcel-" + orderId}
