"""Computations that Ctrl+C ends at once, whatever the device is doing.

Python hears of a signal only when the main thread is back from XLA, which may take
minutes. So the computation has a thread of its own.
"""

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_NAME = "computation"
_POLL = 0.1  # Seconds.

T = TypeVar("T")


def start(function: Callable[[], None]) -> threading.Thread:
    """Starts a thread that may be left behind when the program ends."""
    thread = threading.Thread(target=function, daemon=True, name=_NAME)
    thread.start()
    return thread


def call(function: Callable[[], T]) -> T:
    """Returns or raises what a function does; an interrupt is raised without delay."""
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["result"] = function()
        except BaseException as error:
            outcome["error"] = error

    thread = start(work)
    while thread.is_alive():
        thread.join(_POLL)
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def leave(status: int) -> int:
    """Returns the exit status, unless computations are left: then the process ends.

    JAX aborts a process that ends in order while it computes.
    """
    if any(thread.name == _NAME for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
