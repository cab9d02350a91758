"""Tell agentd about your tasks: they finish or go on elsewhere when it replaces your worker, and effects happen once."""

from .link import Refused
from .task import AsyncTask, Cancelled, Checkpoint, Drained, Duplicate, Indeterminate, Task
from .worker import Kv, Worker

__all__ = [
    "AsyncTask", "Cancelled", "Checkpoint", "Drained", "Duplicate", "Indeterminate", "Kv", "Refused", "Task", "Worker",
]
