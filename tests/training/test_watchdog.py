"""A run that hangs tells where, and ends; one that is slow goes on."""

import os
import pathlib
import signal
import subprocess
import sys
import time

_START = """
import pathlib, threading, time
from palette_jax.training import watchdog
watchdog._HANGS_AFTER, watchdog._AT_LEAST, watchdog._POLL = 2, 1, 0.1

def commit(step):
    folder = pathlib.Path("checkpoints", str(step))
    folder.mkdir(parents=True)
    (folder / "commit_success.txt").touch()

def hangs(seconds=1000):
    time.sleep(seconds)

commit(4)
"""
_DOG = """
with watchdog.Watchdog(".") as dog:
    dog.step(0.1)
    print("watched", flush=True)
"""


def _start(folder: pathlib.Path, program: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", _START + program],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(folder: pathlib.Path, program: str) -> tuple[int, str]:
    process = _start(folder, program)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def test_a_hang_writes_where_every_thread_is_and_then_ends_the_process(
    tmp_path: pathlib.Path,
) -> None:
    thread = "    threading.Thread(target=waits_for_data).start()\n    hangs()\n"
    waits = "\ndef waits_for_data():\n    time.sleep(1000)\n"
    code, errors = _run(tmp_path, waits + _DOG + thread)
    # The run has not saved since it was started: an error, which launchers count.
    assert code == 1, errors
    traces, _, said = errors.partition("error: ")
    assert traces.count("Timeout") == 1, errors
    assert "in hangs" in traces and "in waits_for_data" in traces
    assert said == (
        "expected a step within 2 s, got none; the stack traces above say where it"
        " hangs; the last finished checkpoint is step 4; run the same command again\n"
    )


def test_a_run_that_has_saved_since_its_start_asks_to_be_run_again(
    tmp_path: pathlib.Path,
) -> None:
    code, errors = _run(tmp_path, _DOG + "    commit(8)\n    hangs()\n")
    assert code == 75 and "checkpoint is step 8;" in errors, errors


def test_a_disk_that_hangs_too_does_not_keep_the_process(
    tmp_path: pathlib.Path,
) -> None:
    disk = """
    watchdog._TO_LOOK = 1
    watchdog.manifest.committed_steps = hangs
    hangs()
"""
    code, errors = _run(tmp_path, _DOG + disk)
    assert code == 1 and "checkpoint is not known;" in errors, errors


def test_a_step_that_ends_after_all_and_what_is_no_step_go_on(
    tmp_path: pathlib.Path,
) -> None:
    slow = """
    for _ in range(3):
        dog.step(0.1)
        hangs(1.5)  # Long enough for the traces.
    dog.step(1.0)  # As slow as usual.
    hangs(3)
    dog.step(None)  # To be compiled.
    hangs(3)
    dog.step(0.1)
    dog.pause()
    hangs(3)
time.sleep(3)  # The run has ended.
"""
    code, errors = _run(tmp_path, _DOG + slow)
    assert code == 0, errors
    assert errors.count("Timeout") == 4 and "error:" not in errors, errors


def test_a_process_that_was_suspended_goes_on(tmp_path: pathlib.Path) -> None:
    process = _start(tmp_path, _DOG + "    hangs(1)\n    dog.pause()\n    hangs(1)\n")
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "error:" not in errors, errors
