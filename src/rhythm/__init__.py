"""Rhythm: durable workflows by snapshot instead of replay, and a task queue, on Postgres alone.

The public names, resolved at first use, so that importing rhythm costs almost nothing and the command
line answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "BlockingClient": "rhythm.client",
    "BlockingExecution": "rhythm.client",
    "Client": "rhythm.client",
    "CompileError": "rhythm.errors",
    "ConfigurationError": "rhythm.errors",
    "DatabaseUnavailable": "rhythm.errors",
    "Execution": "rhythm.client",
    "ExecutionCancelled": "rhythm.errors",
    "ExecutionFailed": "rhythm.errors",
    "ExecutionFinished": "rhythm.errors",
    "ExecutionInfo": "rhythm.model",
    "ExecutionNotFound": "rhythm.errors",
    "InvalidDuration": "rhythm.errors",
    "InvalidInput": "rhythm.errors",
    "LogLine": "rhythm.model",
    "NotConfigured": "rhythm.errors",
    "OutputInvalid": "rhythm.errors",
    "OutputTooLarge": "rhythm.errors",
    "PayloadTooLarge": "rhythm.errors",
    "Retry": "rhythm.tasks",
    "RetryRefused": "rhythm.errors",
    "RhythmError": "rhythm.errors",
    "SchemaMismatch": "rhythm.errors",
    "SignalRefused": "rhythm.errors",
    "Start": "rhythm.client",
    "StartRefused": "rhythm.errors",
    "Task": "rhythm.tasks",
    "TaskAbandoned": "rhythm.tasks",
    "TaskContext": "rhythm.tasks",
    "TaskInputInvalid": "rhythm.errors",
    "TaskNotRetryable": "rhythm.errors",
    "TaskProcessDied": "rhythm.errors",
    "TaskRetryAfter": "rhythm.errors",
    "WaitTimeout": "rhythm.errors",
    "Worker": "rhythm.worker",
    "connect": "rhythm.client",
    "connect_sync": "rhythm.client",
    "database_url": "rhythm.config",
    "task": "rhythm.tasks",
}

__version__ = "0.1.0"
__all__ = [
    "BlockingClient",
    "BlockingExecution",
    "Client",
    "CompileError",
    "ConfigurationError",
    "DatabaseUnavailable",
    "Execution",
    "ExecutionCancelled",
    "ExecutionFailed",
    "ExecutionFinished",
    "ExecutionInfo",
    "ExecutionNotFound",
    "InvalidDuration",
    "InvalidInput",
    "LogLine",
    "NotConfigured",
    "OutputInvalid",
    "OutputTooLarge",
    "PayloadTooLarge",
    "Retry",
    "RetryRefused",
    "RhythmError",
    "SchemaMismatch",
    "SignalRefused",
    "Start",
    "StartRefused",
    "Task",
    "TaskAbandoned",
    "TaskContext",
    "TaskInputInvalid",
    "TaskNotRetryable",
    "TaskProcessDied",
    "TaskRetryAfter",
    "WaitTimeout",
    "Worker",
    "connect",
    "connect_sync",
    "database_url",
    "task",
]

if TYPE_CHECKING:
    from rhythm.client import (
        BlockingClient,
        BlockingExecution,
        Client,
        Execution,
        Start,
        connect,
        connect_sync,
    )
    from rhythm.config import database_url
    from rhythm.errors import (
        CompileError,
        ConfigurationError,
        DatabaseUnavailable,
        ExecutionCancelled,
        ExecutionFailed,
        ExecutionFinished,
        ExecutionNotFound,
        InvalidDuration,
        InvalidInput,
        NotConfigured,
        OutputInvalid,
        OutputTooLarge,
        PayloadTooLarge,
        RetryRefused,
        RhythmError,
        SchemaMismatch,
        SignalRefused,
        StartRefused,
        TaskInputInvalid,
        TaskNotRetryable,
        TaskProcessDied,
        TaskRetryAfter,
        WaitTimeout,
    )
    from rhythm.model import ExecutionInfo, LogLine
    from rhythm.tasks import Retry, Task, TaskAbandoned, TaskContext, task
    from rhythm.worker import Worker


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        raise AttributeError(f"module 'rhythm' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
