"""How processes find each other; tests/distributed lets real ones meet."""

import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

import jax
import pytest

from palette_jax import processes
from palette_jax.errors import UserError


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What JAX was asked to join, instead of joining."""
    asked: list[tuple] = []

    def initialize(*args: Any, **options: Any) -> None:
        # JAX aborts at its own timeout: `join` has to give up a minute before.
        asked.append((*args, options["initialization_timeout"] - 60))

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    return asked


@pytest.mark.parametrize(
    ("tasks", "gpus", "devices"),
    [("1(x2)", "0,1,2,3", [0, 1, 2, 3]), ("2", "0,1", None), ("1(x2)", "", None)],
)
def test_a_step_of_slurm_says_how_many_it_waits_for_and_uses_all_gpus(
    joined: list[tuple],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tasks: str,
    gpus: str,
    devices: list[int] | None,
) -> None:
    caplog.set_level(logging.INFO, logger="absl")
    for name, value in {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "0",
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "CUDA_VISIBLE_DEVICES": gpus,
    }.items():
        monkeypatch.setenv(name, value)
    processes.join(timeout=9)
    assert joined == [(None, None, None, devices, 9)]
    assert caplog.messages == ["waiting for 2 hosts"]


def test_a_process_of_its_own_waits_for_no_one(
    joined: list[tuple], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="absl")
    processes.join()
    assert joined == [(None, None, None, None, 1800)]
    assert not caplog.messages


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_processes": 2}, "set all three, or none"),
        (
            {"coordinator": "host", "num_processes": 2, "process_id": 0},
            "expected --coordinator=HOST:PORT, got 'host'",
        ),
        (
            {"coordinator": "host:99999", "num_processes": 2, "process_id": 0},
            "from 1 to 65535",
        ),
        (
            {"coordinator": "host:1", "num_processes": 2, "process_id": 2},
            "expected --process_id below --num_processes=2, got 2",
        ),
    ],
)
def test_flags_that_do_not_say_where_the_others_are_are_refused(
    joined: list[tuple], given: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        processes.join(**given)
    assert not joined


SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of a terminal, until the test is over."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_to_stop_at_the_next_poll(number: signal.Signals) -> None:
    stop = processes.StopFlag()
    assert not stop.poll()
    os.kill(os.getpid(), number)
    assert not stop.is_set and stop.poll() and stop.is_set


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_was_ignored_still_is() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As nohup does.
    stop = processes.StopFlag()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.poll()


@pytest.mark.usefixtures("handlers")
def test_a_second_ctrl_c_ends_at_once() -> None:
    stop = processes.StopFlag()
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.poll()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
