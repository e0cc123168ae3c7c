"""That Ctrl+C ends a program while the device computes."""

import signal
import subprocess
import sys
import time

import pytest

from palette_jax import interruptible

# XLA is busy for minutes: the main thread hears nothing before it is done.
_BUSY = """
import atexit, sys, threading, time
import jax, jax.numpy as jnp
from palette_jax import interruptible

# Not called by an end that is out of order, at which JAX does not abort.
atexit.register(lambda: print("in order", flush=True))

busy = threading.Event()

def work():
    turns = lambda x: jax.lax.fori_loop(0, 10**9, lambda i, x: jnp.sin(x), x)
    print("busy", flush=True)
    busy.set()
    jax.block_until_ready(jax.jit(turns)(jnp.ones(10_000)))

if "--as-it-starts" in sys.argv:
    start = threading.Thread.start

    def interrupted(thread):
        threading.Thread.start = start
        start(thread)
        busy.wait()
        raise KeyboardInterrupt

    threading.Thread.start = interrupted

try:
    interruptible.call(work)
except KeyboardInterrupt:
    print("stopped", flush=True)
    if "--as-it-starts" in sys.argv:
        time.sleep(2)  # The device is busy by now.
    sys.exit(interruptible.leave(130))
"""


def test_an_interrupt_ends_the_program_in_a_step() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _BUSY], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "busy\n"
    time.sleep(2)  # Compiled by now, or not: both have to end.
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and process.stdout.read() == "stopped\n"


def test_an_interrupt_as_a_computation_starts() -> None:
    process = subprocess.run(
        [sys.executable, "-c", _BUSY, "--as-it-starts"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert process.returncode == 130
    assert process.stdout.split() == ["busy", "stopped"]


def test_results_and_errors_come_through() -> None:
    assert interruptible.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        interruptible.call(lambda: 1 // 0)
    assert interruptible.leave(3) == 3
