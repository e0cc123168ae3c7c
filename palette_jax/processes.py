"""Several processes that train as one: joining, stopping, ending together."""

import contextlib
import os
import re
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
from absl import logging
from jax.experimental import multihost_utils

from palette_jax.errors import UserError

EXIT_STOPPED = 75  # What `sysexits.h` calls a temporary failure: run me again.

# Seconds without a heartbeat of one process after which all others end with an error.
_HEARTBEAT = 30


class Stopped(Exception):
    """Raised on a request to stop if there is nothing to save."""


def join(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 1800,
) -> None:
    """Joins the other processes of the run; a single process returns at once.

    Call it before using a device. On a TPU slice, under SLURM, Open MPI and on GKE, JAX
    finds the other processes; elsewhere every process needs the flags. A failure or
    timeout ends the process.

    Args:
      coordinator: `host:port` of the first process, any free port.
      num_processes: number of processes.
      process_id: of this process, counted from 0.
      timeout: seconds to wait for the others.

    Raises:
      UserError: if only some of the three are given.
    """
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given) and None in given:
        raise UserError(
            "expected all of --coordinator=HOST:PORT, --num_processes and --process_id,"
            f" got coordinator={coordinator}, num_processes={num_processes} and"
            f" process_id={process_id}; set all three, or none where JAX finds them"
        )
    if coordinator is not None and num_processes is not None and process_id is not None:
        port = re.fullmatch(r".+:([0-9]{1,5})", coordinator)
        if not port or not 1 <= int(port[1]) <= 65535:
            raise UserError(
                f"expected --coordinator=HOST:PORT, got {coordinator!r}; add a free"
                " port of that host, from 1 to 65535"
            )
        if process_id >= num_processes:
            raise UserError(
                f"expected --process_id below --num_processes={num_processes}, got"
                f" {process_id}; the first process has 0"
            )
        logging.info("waiting for %d hosts at %s", num_processes, coordinator)
    elif count := _announced():
        logging.info("waiting for %d hosts", count)
    # JAX's own timeout aborts the process with a C++ stack; this one is shorter.
    late = threading.Timer(timeout, _give_up, (timeout, coordinator))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            _local_devices(),
            initialization_timeout=timeout + 60,
            heartbeat_timeout_seconds=_HEARTBEAT,
        )
    except ValueError as error:
        if coordinator is None and "coordinator_address should be" in str(error):
            return  # No cluster that JAX knows: a single process.
        raise UserError(f"cannot join the other processes: {error}") from error
    finally:
        late.cancel()
    if jax.process_count() > 1:
        logging.info(
            "all %d hosts have joined, with %d devices; this is the log of host 0",
            jax.process_count(),
            jax.device_count(),
        )
    if jax.process_index() > 0:
        logging.set_verbosity(logging.WARNING)


def _give_up(timeout: int, coordinator: str | None) -> None:
    where = f" at {coordinator}" if coordinator else ""
    print(
        f"error: expected all processes of the run{where} within {timeout} s, got a"
        " timeout; start the command on every host with the same --coordinator and"
        " --num_processes and each with its own --process_id, and check that the hosts"
        " reach that port",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def are_joined() -> bool:
    """Returns whether `join` found a cluster, even with a single process."""
    return jax.distributed.is_initialized()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Ends all processes together, with success or with an error.

    A process that fails exits at once: at a regular exit it would wait for the others,
    which wait for it. They notice, and exit with an error too.
    """
    try:
        yield
        if jax.process_count() > 1:
            # A process may still write a table for longer than JAX waits at the exit.
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


def end(status: int) -> NoReturn:
    """Ends the process at once, whatever its other threads do.

    Waits until all processes want to end: one that ends before the others makes JAX
    abort them, with another status.
    """
    if are_joined():
        from jax._src import distributed  # Nothing public waits with a limit.

        client: Any = distributed.global_state.client
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            client.wait_at_barrier("palette_jax/end", 120_000)  # Milliseconds.
        if jax.process_index() == 0:
            time.sleep(2)  # The others die with host 0.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class StopFlag:
    """Handles stop signals: the run saves and ends.

    Schedulers send SIGTERM or SIGUSR1, a lost terminal SIGHUP, Ctrl-C SIGINT; a second
    Ctrl-C ends the process at once. Joined processes stop at the same step, whichever
    of them received the signal: JAX's own preemption service listens for SIGTERM, or a
    platform's notice, in each process.

    Attributes:
      is_set: the result of the last `poll`.
    """

    def __init__(self):
        """Installs the handlers, except for ignored signals, as under nohup."""
        self.is_set = False
        self._told = False
        self._polls = 0
        numbers = [signal.SIGUSR1, signal.SIGHUP, signal.SIGINT]
        if not are_joined():
            numbers.append(signal.SIGTERM)
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._tell)

    def poll(self) -> bool:
        """Returns whether to stop now; all processes must call this equally often."""
        self._polls += 1
        if are_joined():
            if multihost_utils.reached_preemption_sync_point(self._polls):
                logging.warning("stop requested: saving and stopping")
                self.is_set = True
        else:
            self.is_set = self._told
        return self.is_set

    def _tell(self, number: int, frame: types.FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            logging.warning("Ctrl-C: saving and stopping; again to end at once")
        if are_joined():
            os.kill(os.getpid(), signal.SIGTERM)
            return
        logging.warning("got %s: saving and stopping", signal.Signals(number).name)
        self._told = True


def _announced() -> int | None:
    """Returns the number of processes in the cluster that JAX detects."""
    from jax._src.clusters import ClusterEnv  # No public function before joining.

    for cluster in ClusterEnv._cluster_types:
        if not cluster.opt_in_only_method and cluster.is_env_present():
            return cluster.get_process_count()
    return None


def _local_devices() -> list[int] | None:
    """Returns all GPUs for a single SLURM task on a node; JAX would take the first."""
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if visible and re.fullmatch(r"1(\(x\d+\))?", tasks):
        return list(range(len(visible.split(","))))
    return None
