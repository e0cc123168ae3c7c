"""Computations that Ctrl+C ends at once, whatever the device is doing.

Python hears of a signal only when the main thread is back from XLA, which may take
minutes. So the computation has a thread of its own.
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
    """Starts a computation that may be left behind; the event tells its end."""
    # `Thread.join` takes a thread for ended that was interrupted while it waited
    # (before Python 3.13).
    ended = threading.Event()

    def work() -> None:
        try:
            function()
        finally:
            ended.set()
            _running.discard(ended)

    thread = threading.Thread(target=work, daemon=True, name="computation")
    # Before the start, in which an interrupt may come while the thread runs already.
    _running.add(ended)
    thread.start()
    return ended


def call(function: Callable[[], T]) -> T:
    """Returns or raises what a function does; an interrupt is raised without delay."""
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

    JAX aborts a process that ends in order while it computes.
    """
    if _running:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
