"""A FastAPI service with a worker in its lifespan: requests put work into a queue, the worker does it beside them.

    UNIMQ_URL=... uvicorn examples.fastapi_service:app

The worker runs on the server's own loop and installs no signal handlers: the server's shutdown drains it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from pydantic import BaseModel

import unimq
from unimq import AsyncClient, Queue, Worker

MAILS = Queue("mails")


class Mail(BaseModel):
    to: str
    text: str


sent: list[Mail] = []  # what stands for a mail server
worker = Worker(declare=[MAILS])


@worker.handler(MAILS, concurrency=4)
async def deliver(mail: Mail) -> None:
    sent.append(mail)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with worker, unimq.connect_async() as mq:
        app.state.mq = mq
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/mails", status_code=202)
async def post_mail(mail: Mail) -> dict[str, str]:
    mq: AsyncClient = app.state.mq
    receipt = await mq.send(MAILS, mail)  # confirmed by the broker before the answer
    return {"id": str(receipt.message_id)}


@app.get("/healthz")
async def healthz(response: Response) -> dict[str, Any]:
    health = worker.health()
    response.status_code = 200 if health.ok else 503
    return {"ok": health.ok, "problems": health.problems}
