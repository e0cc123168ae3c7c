"""Ends a run whose step hangs, after it has written all stack traces."""

import contextlib
import faulthandler
import sys
import threading
import time

from etils import epath

from palette_jax import processes
from palette_jax.training import manifest

# A step hangs that takes so many times the usual one, and at least so many seconds.
_HANGS_AFTER, _AT_LEAST = 20, 300
_TO_COMPILE = 3600
_NO_STEP = 6 * 3600
_POLL = 1.0  # Seconds.
_TO_LOOK = 60  # Seconds for the list of checkpoints, whose disk may be what hangs.


class Watchdog(contextlib.AbstractContextManager["Watchdog"]):
    """Watches the steps of a run from a thread.

    When a step takes too long, the stack traces of all threads go to the standard
    error. When it takes that long once more, the process ends: with 75, which asks to
    be run again, if the run has saved since its start; with 1 otherwise, so that one
    that always hangs is not run again for ever. Time in which the process was suspended
    does not count.
    """

    def __init__(self, workdir: epath.PathLike):
        """Starts to watch what comes before the first step."""
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
        """Starts to watch a step; `usual` is None if it may have to be compiled."""
        if usual is None:
            self._watch(_TO_COMPILE)
        else:
            self._watch(max(_HANGS_AFTER * usual, _AT_LEAST))

    def pause(self) -> None:
        """Starts to watch what is no step: to evaluate, to save; it may take hours."""
        self._watch(_NO_STEP)

    def _watch(self, seconds: float) -> None:
        self._watched = _Watched(seconds)
        # Writes also where a thread hangs that does not let others run.
        faulthandler.dump_traceback_later(seconds)

    def _run(self) -> None:
        before = time.monotonic()
        while not self._closing.wait(_POLL):
            now, watched = time.monotonic(), self._watched
            # More than the wait: the process was suspended.
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
            return  # It ended after all.
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
    """Something that should end: the seconds until it hangs, and those it has taken."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.waited = 0.0
