from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import rhythm
from fastapi import FastAPI, Response


@rhythm.task(queue="mail", retries=5)
async def sendReceipt(orderId: str) -> dict[str, str]:
    return {"sent": orderId}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with rhythm.connect() as client, rhythm.Worker() as worker:
        app.state.rhythm, app.state.worker = client, worker
        yield  # the server handles SIGTERM; then the worker drains here


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{order_id}", status_code=202)
async def place_order(order_id: str) -> dict[str, str]:
    execution = await app.state.rhythm.start(sendReceipt, {"orderId": order_id}, key=f"receipt-{order_id}")
    return {"execution": str(execution.id)}


@app.get("/health")
async def health(response: Response) -> dict[str, str]:
    problem = app.state.worker.health()
    response.status_code = 503 if problem else 200
    return {"worker": problem or "ok"}
