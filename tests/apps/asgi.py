"""A FastAPI app as its tutorial writes it: it knows nothing of agentd. For uvicorn and hypercorn."""

import asyncio
import os

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse

app = FastAPI()


@app.get("/", response_class=PlainTextResponse)
async def who() -> str:
    return f"{os.environ.get('VERSION', '-')} {os.environ['AGENTD_WORKER']} {os.getpid()}\n"


@app.get("/long", response_class=PlainTextResponse)
async def long(s: float) -> str:
    await asyncio.sleep(s)
    return "done\n"


@app.get("/sse")
async def sse(s: float) -> StreamingResponse:
    async def events():
        for n in range(int(s / 0.2)):
            yield f"data: {n}\n\n"
            await asyncio.sleep(0.2)
        yield "data: end\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
