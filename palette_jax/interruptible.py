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
_left: list[threading.Thread] = []  # Nobody waits for them any more.

T = TypeVar("T")


def start(function: Callable[[], None]) -> threading.Thread:
    """Starts a thread that may be left behind when the program ends."""
    thread = threading.Thread(target=function, daemon=True, name="computation")
    thread.start()
    return thread


def end(thread: threading.Thread, seconds: float) -> None:
    """Waits for a thread that was told to end, and leaves it behind if it does not."""
    thread.join(seconds)
    if thread.is_alive():
        _left.append(thread)


def call(function: Callable[[], T]) -> T:
    """Returns or raises what a function does; an interrupt is raised without delay."""
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["result"] = function()
        except BaseException as error:
            outcome["error"] = error

    thread = start(work)
    try:
        while thread.is_alive():
            thread.join(_POLL)
    except KeyboardInterrupt:
        end(thread, 0)
        raise
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def leave(status: int) -> int:
    """Returns the exit status; ends the process with it if computations are left.

    JAX aborts a process that ends in order while it computes.
    """
    if any(thread.is_alive() for thread in _left):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
