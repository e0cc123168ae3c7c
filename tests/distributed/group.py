"""Runs main.py as several processes of one run, on this machine."""

import multiprocessing
import os
import pathlib
import re
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from tests import xla_flags

ROOT = pathlib.Path(__file__).resolve().parents[2]

# One device a process, and a network that compiles in a second.
TINY = (
    f"--config={ROOT}/configs/uncrop.py:tiny",
    "--config.model.base_features=8",
    "--config.model.feature_multipliers=1,",
    "--config.model.attention=none",
    "--config.model.norm_groups=4",
    "--config.data.image_size=8",
    "--config.data.min_side=16",
    "--config.data.num_eval=6",
    "--config.eval.batch_size=4",
    "--config.train.batch_size=4",
    "--config.train.log_every=1",
    "--config.sample.num_steps=2",
)
# The server imports what all programs need, once; each process is a fork of it.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(
    ["palette_jax.programs.train", "palette_jax.evaluation.of_run"]
)


class Group:
    """Processes that run as one; `folder` gets a log of each, and the run in `run`."""

    def __init__(
        self,
        folder: pathlib.Path,
        count: int,
        *args: str,
        before: Callable[[int], None] | None = None,
    ):
        """Starts them; with 1, without flags that speak of others.

        Args:
          folder: of the logs and the run.
          count: of processes.
          *args: of main.py.
          before: called in each with its index, to prepare what is to happen.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{free_port()}"
        self._processes = []
        for index in range(count):
            joined = (
                f"--coordinator={address}",
                f"--num_processes={count}",
                f"--process_id={index}",
                "--join_timeout=300",
            )
            argv = (f"--workdir={folder / 'run'}", *(joined if count > 1 else ()))
            self._log(index).write_text("")
            process = _FORKSERVER.Process(
                target=_main,
                args=((*argv, *args), str(self._log(index)), index, before),
                daemon=True,  # A test that fails leaves no run that goes on for ever.
            )
            process.start()
            self._processes.append(process)

    def output(self, index: int = 0) -> str:
        """Returns all that one of them has printed."""
        return self._log(index).read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether all are alive."""
        return all(process.is_alive() for process in self._processes)

    def wait_for(self, pattern: str, *, timeout: float = 300) -> None:
        """Waits until the first has printed a pattern, or one has ended."""
        deadline = time.monotonic() + timeout
        while self.is_running and not re.search(pattern, self.output()):
            if time.monotonic() > deadline:
                self._kill()
                raise AssertionError(f"no {pattern!r} in {self.output()}")
            time.sleep(0.02)

    def signal(self, index: int, number: signal.Signals) -> None:
        """Sends a signal to one of them."""
        os.kill(self._processes[index].pid, number)

    def finish(self, *, timeout: float = 900) -> list[int]:
        """Waits for their end; returns their exit statuses, -9 where killed by that."""
        deadline = time.monotonic() + timeout
        for process in self._processes:
            process.join(max(deadline - time.monotonic(), 0))
        late = self._kill()
        assert not late, f"still running after {timeout} s: {self.output()}"
        return [process.exitcode for process in self._processes]

    def _kill(self) -> bool:
        """Ends all that run; returns whether any did."""
        late = [process for process in self._processes if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
        return bool(late)

    def _log(self, index: int) -> pathlib.Path:
        return self.folder / f"{index}.log"


def run(folder: pathlib.Path, count: int, *args: str) -> Group:
    """Runs main.py to its end, which must be a good one."""
    group = Group(folder, count, *args)
    codes = group.finish()
    assert codes == [0] * count, group.output()
    return group


def _main(
    args: tuple[str, ...], log: str, index: int, before: Callable[[int], None] | None
) -> None:
    """What the fork does: becomes `python main.py ARGS`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ["XLA_FLAGS"] = xla_flags.fast_to_compile(num_devices=1)
    _keep_what_is_compiled()
    if before:
        before(index)
    sys.argv = [str(ROOT / "main.py"), *args]
    sys.path.insert(0, str(ROOT))
    runpy.run_path(str(ROOT / "main.py"), run_name="__main__")


def _keep_what_is_compiled() -> None:
    """Lets every process write to the cache of compiled programs, not the first alone.

    On CPUs each has programs of its own, so all but the first would compile each time.
    """
    from jax._src import compiler, distributed

    write = compiler._cache_write

    def write_as_first(*args: Any) -> None:
        with mock.patch.object(distributed.global_state, "process_id", 0):
            write(*args)

    compiler._cache_write = write_as_first


def free_port() -> int:
    """Returns a port that no program listens to."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
