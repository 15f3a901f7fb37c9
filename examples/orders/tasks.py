# tasks.py
import rhythm


@rhythm.task(queue="orders")
async def chargeCard(orderId: str, amount: float):
    # Normal Python - use time.now(), random(), external APIs
    # No determinism rules
    return {"success": True, "txn_id": "..."}


@rhythm.task(queue="orders")
async def shipOrder(orderId: str):
    return {"shipped": True}
