"""A lock on the folder of a run, so that two processes never write to one run."""

import contextlib
import json
import os
import pathlib
import secrets
import socket
import threading
import time
from typing import Any

from absl import logging
from etils import epath

from palette_jax import atomic
from palette_jax.errors import UserError

_FILE = "lock.json"
_BEAT = 20.0  # Seconds between two heartbeats.


class LockError(UserError):
    """A run that another process is writing to."""


class RunLock(contextlib.AbstractContextManager["RunLock"]):
    """Holds the lock of a run, on a local disk or in a bucket, until it is closed.

    The file names its owner by host, process and start. The lock of a dead owner is
    taken over: at once on the same host and in a requeued SLURM job; from another host
    when the owner's heartbeat stops. Clocks of two hosts are never compared.
    """

    def __init__(self, workdir: epath.PathLike, *, beat: float = _BEAT):
        """Takes the lock.

        Args:
          workdir: the folder of the run; it is created.
          beat: seconds between two heartbeats.

        Raises:
          LockError: if a living process holds the lock.
          UserError: if the folder cannot be written to.
        """
        self._path = epath.Path(workdir) / _FILE
        self._beat = beat
        self._me: dict[str, Any] = {
            **_describe_process(),
            "token": secrets.token_hex(8),
            "beat": 0,
        }
        self._is_lost = False
        self._closing = threading.Event()
        try:
            epath.Path(workdir).mkdir(parents=True, exist_ok=True)
            self._wait_for_a_dead_owner()
            self._write()
            time.sleep(0.1)  # If two start together, the last writer wins.
            self._check_owner()
        except OSError as error:
            raise UserError(
                f"expected to write to the workdir {workdir}, got: {error}; choose a"
                " --workdir on a disk with room that you may write to"
            ) from error
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises `LockError` if another process took over the lock; call before saves.

        Another process takes over if this one was suspended longer than its heartbeat.
        """
        if self._is_lost:
            self._raise_held(self._read() or {})

    def __exit__(self, *error: object) -> None:
        """Releases the lock, unless another process took it over."""
        self._closing.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if (self._read() or {}).get("token") == self._me["token"]:
                self._path.unlink()

    def _wait_for_a_dead_owner(self) -> None:
        owner = self._read()
        if owner is None or _is_known_dead(owner, self._me):
            return
        if owner.get("host") == self._me["host"]:
            self._raise_held(owner)
        wait = 2.5 * self._beat
        logging.warning(
            "%s was locked by process %s on %s at %s; waiting %.0f s for its heartbeat",
            self._path.parent,
            *(owner.get(key) for key in ("pid", "host", "time")),
            wait,
        )
        time.sleep(wait)
        now = self._read()
        if now is not None and now != owner:
            self._raise_held(now)

    def _renew(self) -> None:
        while not self._closing.wait(self._beat):
            try:
                self._check_owner()
                self._me["beat"] += 1
                self._write()
            except LockError:
                self._is_lost = True
                return
            except OSError as error:  # A full disk ends no run; the next beat may work.
                logging.warning("cannot renew %s: %s", self._path, error)

    def _check_owner(self) -> None:
        found = self._read()
        if found is not None and found["token"] != self._me["token"]:
            self._raise_held(found)

    def _raise_held(self, owner: dict[str, Any]) -> None:
        raise LockError(
            f"expected to be the only process of the run in {self._path.parent}, got"
            f" another one, process {owner.get('pid')} on {owner.get('host')} since"
            f" {owner.get('time')}; stop it, or use another --workdir"
        )

    def _read(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:  # Truncated by a full disk.
            return {"token": "", "host": "", "pid": 0}

    def _write(self) -> None:
        atomic.write_text(self._path, json.dumps(self._me))


def _describe_process() -> dict[str, Any]:
    """Returns an identity of this process, unique over hosts and time."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start": _start_of(os.getpid()),
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "restart": os.environ.get("SLURM_RESTART_COUNT", "0"),
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def _is_known_dead(owner: dict[str, Any], me: dict[str, Any]) -> bool:
    if owner.get("job") and owner["job"] == me["job"]:
        if owner.get("restart") != me["restart"]:
            return True
    if owner.get("host") != me["host"]:
        return owner.get("host") == ""
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # Process numbers are reused; a process with a later start is another one.
    return _start_of(owner["pid"]) != owner["start"]


def _start_of(pid: int) -> str:
    """Returns the start of a process in kernel ticks; empty if unknown.

    It contains the boot's number, because the ticks restart at each boot.
    """
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    if state == "Z":  # A zombie: it has ended.
        return "ended"
    return f"{boot} {fields[18]}"
