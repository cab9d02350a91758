"""The FastAPI app beside this file, with each request made a task."""

from agentd_worker import Worker
from agentd_worker.asgi import AgentdMiddleware
from asgi import app

app.add_middleware(AgentdMiddleware, worker=Worker())
