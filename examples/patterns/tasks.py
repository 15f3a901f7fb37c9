"""The tasks of the patterns: stand-ins for the services of a real system, each a few lines of ordinary Python.

They wait a little, as a network would, and fail where the workflow has something to show: no car in Atlantis,
an expired card, a bank that asks for patience. Replace their bodies and keep the workflows.
"""

import asyncio
from collections import Counter
from typing import Any

import rhythm

Json = dict[str, Any]


async def work() -> None:
    """The time that a real service would take."""
    await asyncio.sleep(0.01)


# bookTrip.flow


class NoCarLeft(Exception):
    """Trying again will not help: the workflow undoes what it has booked."""


@rhythm.task
async def bookFlight(trip: str, to: str) -> Json:
    await work()
    return {"booking": f"flight-{trip}"}


@rhythm.task
async def bookHotel(trip: str, nights: int) -> Json:
    await work()
    return {"booking": f"hotel-{trip}"}


@rhythm.task
async def bookCar(trip: str, at: str) -> Json:
    await work()
    if at == "Atlantis":
        raise NoCarLeft(f"no car left in {at}")
    return {"booking": f"car-{trip}"}


@rhythm.task(retries=10)
async def cancelBooking(booking: str) -> Json:
    await work()
    return {"booking": booking}


# approveExpense.flow


@rhythm.task
async def askForApproval(expense: str, cents: int, answerTo: str) -> None:
    await work()  # a mail with a link to the page that sends the signal `decision` to this execution


@rhythm.task
async def payExpense(expense: str, cents: int) -> None:
    await work()


# resizeImages.flow


@rhythm.task
def resizeImage(name: str, width: int) -> Json:
    return {"file": f"/tmp/{width}-{name}", "bytes": width * 40}  # a def: it runs in a thread


@rhythm.task
async def uploadImage(file: str) -> Json:
    await work()
    return {"url": "https://images.example" + file.removeprefix("/tmp")}


# checkLinks.flow


@rhythm.task
async def fetchStatus(link: str) -> Json:
    await work()
    return {"status": 404 if "old" in link else 200}


# exportReport.flow

_questions: Counter[str] = Counter()  # how often each export was asked about: the other company's server


@rhythm.task
async def beginExport(report: str) -> Json:
    await work()
    return {"exportId": f"export-{report}"}


@rhythm.task
async def exportState(exportId: str) -> Json:
    await work()
    _questions[exportId] += 1
    if _questions[exportId] % 4:
        return {"done": False}
    return {"done": True, "url": f"https://exports.example/{exportId}.csv"}


# payInvoice.flow


class CardDeclined(Exception):
    """This card is not charged, now or later."""


class TryLater(Exception):
    """The bank asks for patience. What an exception has in `data` reaches the workflow as `error.data`."""

    def __init__(self, after_ms: int) -> None:
        super().__init__(f"try again in {after_ms} ms")
        self.data = {"afterMs": after_ms}


_charges: Counter[str] = Counter()


@rhythm.task
async def charge(card: str, cents: int) -> Json:
    await work()
    if card.startswith("expired"):
        raise CardDeclined(f"the card {card} has expired")
    _charges[card] += 1
    if card.startswith("busy") and _charges[card] % 2:
        raise TryLater(50)
    return {"id": f"payment-{card}-{cents}"}


# supportAgent.flow


@rhythm.task
async def askModel(messages: list[Json]) -> Json:
    """Where a language model would be asked. This one looks the order up, refunds it, and says so."""
    await work()
    if len(messages) == 1:
        return {"content": "Let me look.", "calls": [{"tool": "findOrder", "inputs": {"orderId": "o-7"}}]}
    result = messages[-1]["results"][0]
    if "paidCents" in result:
        refund = {"orderId": result["orderId"], "cents": result["paidCents"]}
        later = {"tool": "waitForParcel", "inputs": {"hours": 0}}
        return {"content": "It was lost.", "calls": [{"tool": "refund", "inputs": refund}, later]}
    return {"content": f"We have refunded {result['refundedCents']} cents.", "calls": []}


@rhythm.task
async def findOrder(orderId: str) -> Json:
    await work()
    return {"orderId": orderId, "paidCents": 2_500, "parcel": "lost"}


@rhythm.task
async def refundOrder(orderId: str, cents: int) -> Json:
    await work()
    return {"refundedCents": cents}


# importCustomers.flow

_PAGES = [["Ada", "Grace"], ["Barbara"], ["Frances", "Jean"]]


@rhythm.task
async def readPage(cursor: int | None) -> Json:
    await work()
    number = cursor or 0
    return {"customers": _PAGES[number], "next": number + 1 if number + 1 < len(_PAGES) else None}


@rhythm.task
async def storeCustomer(customer: str) -> None:
    await work()


# translatePages.flow


@rhythm.task
async def loadPage(page: str) -> Json:
    await work()
    return {"text": f"text of {page}"}


@rhythm.task
async def translate(text: str, to: str) -> Json:
    await work()
    return {"text": f"{text}, in {to}"}


@rhythm.task
async def savePage(page: str, text: str) -> Json:
    await work()
    return {"path": f"/{page}.html"}


# launchCampaign.flow


@rhythm.task
async def prepareChannel(name: str, campaign: str) -> None:
    await work()


@rhythm.task
async def publishChannel(name: str, campaign: str) -> Json:
    await work()
    return {"url": f"https://{name}.example/{campaign}"}


# monthlyInvoices.flow and invoiceCustomer.flow


@rhythm.task
async def workedHours(customer: str, month: str) -> Json:
    await work()
    return {"hours": 0 if customer == "Quiet & Sons" else len(customer), "centsPerHour": 9_000}


@rhythm.task
async def sendInvoice(customer: str, cents: int) -> None:
    await work()
