"""Ends a run whose step hangs, after writing all stack traces."""

import contextlib
import faulthandler
import sys
import threading
import time

from etils import epath

from palette_jax import processes
from palette_jax.training import manifest

# The limit of a step: a multiple of its usual time, and a minimum in seconds.
_HANGS_AFTER, _AT_LEAST = 20, 300
_TO_COMPILE = 3600
_NO_STEP = 6 * 3600
_POLL = 1.0  # Seconds.
_TO_LOOK = 60  # Seconds for listing the checkpoints, whose disk may hang too.


class Watchdog(contextlib.AbstractContextManager["Watchdog"]):
    """Watches the steps of a run from a thread.

    When a step exceeds its limit, the stack traces of all threads go to the standard
    error. When it exceeds twice the limit, the process ends: with 75, which requests a
    restart, if the run has finished a checkpoint since its start; otherwise with 1, so
    that a run that always hangs is not restarted forever. Time in which the process was
    suspended does not count.
    """

    def __init__(self, workdir: epath.PathLike):
        """Starts watching the time before the first step."""
        self._checkpoints = epath.Path(workdir) / "checkpoints"
        self._newest_at_start = self._newest()
        self.pause()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watchdog")
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        """Ends the thread."""
        self._closing.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def step(self, usual: float | None) -> None:
        """Starts watching a step; `usual` is None if it may have to be compiled."""
        if usual is None:
            self._watch(_TO_COMPILE)
        else:
            self._watch(max(_HANGS_AFTER * usual, _AT_LEAST))

    def pause(self) -> None:
        """Starts watching other work, such as evaluating, which may take hours."""
        self._watch(_NO_STEP)

    def _watch(self, seconds: float) -> None:
        self._watched = _Watched(seconds)
        # Works even if the hanging thread holds the interpreter's lock.
        faulthandler.dump_traceback_later(seconds)

    def _run(self) -> None:
        before = time.monotonic()
        while not self._closing.wait(_POLL):
            now, watched = time.monotonic(), self._watched
            # If more time passed, the process was suspended.
            watched.waited += min(now - before, 2 * _POLL)
            before = now
            if watched.waited >= 2 * watched.seconds:
                self._end(watched)

    def _end(self, watched: "_Watched") -> None:
        found: list[int] = []

        def look() -> None:
            with contextlib.suppress(OSError):
                found.append(self._newest())

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(_TO_LOOK)
        if self._watched is not watched or self._closing.is_set():
            return  # The step ended meanwhile.
        newest = max(found, default=0)
        finished = f"step {newest}" if newest else "not known"
        print(
            f"error: expected a step within {2 * watched.seconds:.0f} s, got none; the"
            " stack traces above say where it hangs; the last finished checkpoint is"
            f" {finished}; run the same command again",
            file=sys.stderr,
            flush=True,
        )
        has_saved = newest > self._newest_at_start
        processes.end(processes.EXIT_STOPPED if has_saved else 1)

    def _newest(self) -> int:
        return max(manifest.committed_steps(self._checkpoints), default=0)


class _Watched:
    """A step or other work: its limit, and the time it has taken, in seconds."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.waited = 0.0
