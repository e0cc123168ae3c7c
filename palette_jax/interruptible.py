"""Computations that Ctrl+C stops at once, whatever the device is doing.

Python handles a signal only when the main thread returns from XLA, which may take
minutes. So the computation has its own thread.
"""

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_POLL = 0.1  # Seconds.
_running: set[threading.Event] = set()  # Of computations that have not ended.

T = TypeVar("T")


def start(function: Callable[[], None]) -> threading.Event:
    """Starts a computation that may outlive the call; returns an event of its end."""
    # Before Python 3.13, `Thread.join` treats a thread as ended if it was interrupted
    # while it waited.
    ended = threading.Event()

    def work() -> None:
        try:
            function()
        finally:
            _running.discard(ended)
            ended.set()  # Last: after it, `leave` may be called.

    thread = threading.Thread(target=work, daemon=True, name="computation")
    # Before the start, because an interrupt may come while the thread already runs.
    _running.add(ended)
    thread.start()
    return ended


def call(function: Callable[[], T]) -> T:
    """Returns a function's result or raises its error, or an interrupt at once."""
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["result"] = function()
        except BaseException as error:
            outcome["error"] = error

    ended = start(work)
    while not ended.wait(_POLL):
        pass
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def leave(status: int) -> int:
    """Returns the exit status; ends the process with it if a computation still runs.

    JAX aborts a process that exits normally during a computation.
    """
    if _running:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
