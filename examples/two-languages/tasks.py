"""The part of the team that writes Python."""

import rhythm


@rhythm.task
async def priceOrder(items: list[str]) -> int:
    """Cents."""
    return sum(250 + 10 * len(item) for item in items)


@rhythm.task
async def writeInvoice(orderId: str, cents: int, label: str) -> str:
    return f"{orderId}: {cents / 100:.2f}, sent as {label}"
