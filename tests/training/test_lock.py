"""One process at a time writes to a run; a dead one keeps nobody out."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from palette_jax.errors import UserError
from palette_jax.training.lock import LockError, RunLock

_HOLD = """
import sys, time
from palette_jax.training.lock import RunLock
lock = RunLock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def _hold(workdir: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-c", _HOLD, str(workdir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_until_the_first_is_dead(
    tmp_path: pathlib.Path,
) -> None:
    owner = _hold(tmp_path)
    try:
        with pytest.raises(LockError, match=f"process {owner.pid} on .*--workdir"):
            RunLock(tmp_path)
    finally:
        owner.kill()
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)  # Leaves a zombie.
    with RunLock(tmp_path):  # SIGKILL left the file; its owner is dead.
        pass
    owner.wait()
    assert not list(tmp_path.iterdir())


def test_of_many_that_start_together_one_gets_the_lock(tmp_path: pathlib.Path) -> None:
    program = _HOLD.replace("time.sleep(60)", "time.sleep(3)")
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    results = [process.communicate()[0] for process in processes]
    assert results.count(b"held\n") == 1


def _owner_elsewhere(workdir: pathlib.Path, **changed: object) -> dict:
    with RunLock(workdir):
        owner = json.loads((workdir / "lock.json").read_text())
    owner |= {"host": "elsewhere", "token": "other", **changed}
    (workdir / "lock.json").write_text(json.dumps(owner))
    return owner


def test_an_owner_on_another_host_is_alive_while_its_heart_beats(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = _owner_elsewhere(tmp_path)
    wait = time.sleep

    def beat(seconds: float) -> None:
        owner["beat"] += 1
        (tmp_path / "lock.json").write_text(json.dumps(owner))
        wait(seconds)

    monkeypatch.setattr(time, "sleep", beat)
    with pytest.raises(LockError, match="on elsewhere"):
        RunLock(tmp_path, beat=0.05)
    monkeypatch.setattr(time, "sleep", wait)
    with RunLock(tmp_path, beat=0.05):
        pass


def test_a_requeued_job_takes_its_own_lock_over_at_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _owner_elsewhere(tmp_path, job="17", restart="0")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with RunLock(tmp_path, beat=1e6):  # It would wait for days.
        owner = json.loads((tmp_path / "lock.json").read_text())
        assert owner["pid"] == os.getpid()


def test_a_process_whose_lock_was_taken_over_stops_writing(
    tmp_path: pathlib.Path,
) -> None:
    with RunLock(tmp_path, beat=0.05) as lock:
        lock.check()
        _steal = {"token": "other", "host": "elsewhere", "pid": 1, "time": "now"}
        (tmp_path / "lock.json").write_text(json.dumps(_steal))
        deadline = time.monotonic() + 10
        with pytest.raises(LockError, match="elsewhere"):
            while time.monotonic() < deadline:
                lock.check()
                time.sleep(0.02)
    assert json.loads((tmp_path / "lock.json").read_text())["token"] == "other"


def test_a_workdir_that_cannot_be_made_is_one_sentence(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected to write to the workdir"):
        RunLock(tmp_path / "file" / "run")


def test_the_heart_beats_as_long_as_the_lock_is_held(tmp_path: pathlib.Path) -> None:
    """Another host takes the lock of an owner whose file stays as it is."""
    seen: set[int] = set()
    deadline = time.monotonic() + 10
    with RunLock(tmp_path, beat=0.02):
        while len(seen) < 3 and time.monotonic() < deadline:
            seen.add(json.loads((tmp_path / "lock.json").read_text())["beat"])
            time.sleep(0.01)
    assert len(seen) == 3


def test_a_process_with_the_number_of_a_dead_owner_is_not_the_owner(
    tmp_path: pathlib.Path,
) -> None:
    here = {"host": socket.gethostname(), "pid": os.getpid()}
    _owner_elsewhere(tmp_path, **here)
    with pytest.raises(LockError, match=f"process {os.getpid()}"):
        RunLock(tmp_path)
    (tmp_path / "lock.json").unlink()
    _owner_elsewhere(tmp_path, **here, start="another boot 17")
    with RunLock(tmp_path):
        pass
