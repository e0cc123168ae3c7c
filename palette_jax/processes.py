"""Several processes that train as one: how they meet, and how they end together."""

import contextlib
import os
import re
import signal
import sys
import traceback
import types
from collections.abc import Iterator

import jax
from absl import logging
from jax.experimental import multihost_utils

from palette_jax.errors import UserError

EXIT_STOPPED = 75  # What `sysexits.h` calls a temporary failure: run me again.

# Seconds without a sign of life after which all others end with an error.
_HEARTBEAT = 30


class JoinError(UserError):
    """Flags that do not say where the other processes are."""


class Stopped(Exception):
    """Raised where there is nothing to save when told to stop."""


def join(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 1800,
) -> None:
    """Meets the other processes of the run; alone, it returns at once.

    Call it before anything touches a device. On a TPU slice, under SLURM, Open MPI and
    on GKE, JAX finds out all there is to know; elsewhere every process is told. What
    fails here ends the process.

    Args:
      coordinator: `host:port` of the first process, any free port.
      num_processes: how many there are.
      process_id: which one this is, counted from 0.
      timeout: seconds to wait for the others.

    Raises:
      JoinError: if only some of the three are given.
    """
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given) and None in given:
        raise JoinError(
            "expected all of --coordinator=HOST:PORT, --num_processes and --process_id,"
            f" got coordinator={coordinator}, num_processes={num_processes} and"
            f" process_id={process_id}; give all three, or none where JAX finds them"
        )
    if coordinator is not None:
        if ":" not in coordinator:
            raise JoinError(
                f"expected --coordinator=HOST:PORT, got {coordinator!r}; add a free"
                " port of that host"
            )
        logging.info("waiting for %d hosts at %s", num_processes, coordinator)
    elif count := _announced():
        logging.info("waiting for %d hosts", count)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            _local_devices(),
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=_HEARTBEAT,
        )
    except ValueError as error:
        if coordinator is None and "coordinator_address should be" in str(error):
            return  # No cluster that JAX knows: a process of its own.
        raise JoinError(f"cannot join the other processes: {error}") from error
    if jax.process_count() > 1:
        logging.info(
            "all %d hosts are here, with %d devices; the log is that of host 0",
            jax.process_count(),
            jax.device_count(),
        )
    if jax.process_index() > 0:
        logging.set_verbosity(logging.WARNING)


def are_joined() -> bool:
    """Returns whether `join` found other processes, or a cluster that has only one."""
    return jax.distributed.is_initialized()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Lets processes end together, well or with an error.

    A process that fails does so at once: at a regular exit it would wait for the
    others, which wait for it. They notice, and end with an error as well.
    """
    try:
        yield
        if jax.process_count() > 1:
            # One may have a table to write for longer than JAX waits at the exit.
            multihost_utils.sync_global_devices("the end")
    except (Exception, KeyboardInterrupt) as error:
        if not are_joined():
            raise
        if isinstance(error, UserError):
            print(f"error: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


class StopFlag:
    """Notes SIGTERM and SIGUSR1, which schedulers send ahead of the end.

    Joined processes stop at the same place, whichever of them was told: JAX's own
    preemption service listens for SIGTERM, or a platform's notice, on each of them.

    Attributes:
      is_set: whether to stop, as of the last `poll`.
    """

    def __init__(self):
        """Begins to listen."""
        self.is_set = False
        self._told = False
        self._polls = 0
        if not are_joined():
            signal.signal(signal.SIGTERM, self._tell)
        signal.signal(signal.SIGUSR1, self._tell)

    def poll(self) -> bool:
        """Returns whether to stop now; all processes must ask equally often."""
        self._polls += 1
        if are_joined():
            if multihost_utils.reached_preemption_sync_point(self._polls):
                logging.warning("told to stop: saving and stopping")
                self.is_set = True
        else:
            self.is_set = self._told
        return self.is_set

    def _tell(self, number: int, frame: types.FrameType | None) -> None:
        if are_joined():
            os.kill(os.getpid(), signal.SIGTERM)
            return
        logging.warning("got %s: saving and stopping", signal.Signals(number).name)
        self._told = True


def _announced() -> int | None:
    """Returns how many processes there are in the cluster that JAX finds itself in."""
    from jax._src.clusters import ClusterEnv  # Nothing public tells before they meet.

    for cluster in ClusterEnv._cluster_types:
        if not cluster.opt_in_only_method and cluster.is_env_present():
            return cluster.get_process_count()
    return None


def _local_devices() -> list[int] | None:
    """Returns the GPUs of a node with one task of SLURM: JAX would take the first."""
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if visible and re.fullmatch(r"1(\(x\d+\))?", tasks):
        return list(range(len(visible.split(","))))
    return None
