"""The speed of a run: time in steps and waiting for data, and its trace."""

import contextlib
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
from absl import logging
from etils import epath


class Pace(NamedTuple):
    """The speed of the steps since the last lap.

    Attributes:
      step_seconds: of a step, without evaluation, previews and checkpoints.
      data_share: share of that time spent waiting for a batch.
      utilization: the network's operations over the devices' peak; None if unknown.
      goodput: share of the time since the first start of the run, restarts and breaks
        included, that its retained steps take at the mean speed since this start.
      memory: peak of used bytes on a device; None if unknown.
    """

    step_seconds: float
    data_share: float
    utilization: float | None
    goodput: float
    memory: int | None


class Clock:
    """Measures a run; the training loop marks the parts that are not steps.

    Attributes:
      usual: seconds of a step, as of the last lap; None before the first.
    """

    def __init__(
        self, workdir: str, *, start_step: int, best_step_seconds: float | None = None
    ):
        """Starts the clock.

        Args:
          workdir: of the run; its curves contain the time of its first start.
          start_step: the last finished step.
          best_step_seconds: of a step with only the network's arithmetic, at the peak
            rate of the devices.
        """
        self._first_start = _first_start(workdir)
        self._best = best_step_seconds
        self.usual: float | None = None
        self._steps, self._seconds = 0, 0.0  # Of all laps.
        self._begin(start_step, time.monotonic())

    def _begin(self, step: int, now: float) -> None:
        self._since, self._step = now, step
        self._paused = self._waited = 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time of the block, for example evaluation and saving."""
        start = time.monotonic()
        yield
        self._paused += time.monotonic() - start

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time of the block as waiting for data."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def compiled(self, step: int) -> None:
        """Restarts the measurement: the first step waited for the compiler."""
        self._begin(step, time.monotonic())

    def lap(self, step: int) -> Pace:
        """Returns the pace of the steps since the last lap."""
        now = time.monotonic()
        seconds = max(now - self._since - self._paused, 1e-9)
        steps = max(step - self._step, 1)
        usual = self.usual = seconds / steps
        self._steps, self._seconds = self._steps + steps, self._seconds + seconds
        waited = self._waited
        self._begin(step, now)
        age = max(time.time() - self._first_start, 1e-9)
        return Pace(
            step_seconds=usual,
            data_share=min(waited / seconds, 1.0),
            utilization=self._best / usual if self._best else None,
            goodput=min(step * self._seconds / self._steps / age, 1.0),
            memory=_peak_memory(),
        )


def _first_start(workdir: str) -> float:
    """Returns the time of the oldest file of curves; now if there is none."""
    names = [p.name for p in epath.Path(workdir).glob("events.out.tfevents.*")]
    found = [re.match(r"events\.out\.tfevents\.(\d+)\.", name) for name in names]
    return min([float(match.group(1)) for match in found if match], default=time.time())


def _peak_memory() -> int | None:
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")


class Profile:
    """Traces some steps of a run, in files for TensorBoard and XProf."""

    def __init__(self, workdir: str, steps: tuple[int, int] | None):
        """Takes the first step to trace and the one after the last."""
        self._folder = str(epath.Path(workdir) / "profile")
        self._steps = steps
        self._running = False

    def before(self, step: int) -> None:
        """Starts or stops the trace, before a step is taken."""
        if self._steps is None:
            return
        start, stop = self._steps
        if not self._running and start <= step < stop:
            jax.profiler.start_trace(self._folder)
            self._running = True
        if self._running and step >= stop:
            self.stop()

    def stop(self) -> None:
        """Writes the trace, if one is running."""
        if self._running:
            jax.profiler.stop_trace()
            self._running, self._steps = False, None
            logging.info("the trace is in %s", self._folder)
