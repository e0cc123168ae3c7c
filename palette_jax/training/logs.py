"""The log of a run: progress lines, and curves for TensorBoard."""

import contextlib
import logging as stdlib_logging
import re
import struct
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import flags, logging
from etils import epath
from jaxtyping import UInt8

from palette_jax import atomic
from palette_jax.errors import UserError
from palette_jax.pictures import sheets
from palette_jax.training import manifest
from palette_jax.training.pace import Clock
from palette_jax.training.step import NUM_LEVELS, Metrics

MAX_BAD_STEPS = 10


def set_up_logging() -> None:
    """Shortens the log lines, and limits orbax to warnings of real problems."""
    flags.FLAGS.mark_as_parsed()  # Else absl warns that they were not.
    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.setFormatter(
        stdlib_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    )
    logging.set_verbosity(logging.INFO)
    libraries = ("/orbax/", "/jax/", "/clu/", "/tensorflow")

    def is_ours(record: stdlib_logging.LogRecord) -> bool:
        # Orbax warns about requested behaviour, such as read-only access.
        quiet = "/orbax/" in record.pathname or "/clu/asynclib" in record.pathname
        # Errors in their threads are logged with a traceback, and raised here too.
        limit = stdlib_logging.CRITICAL if quiet else stdlib_logging.WARNING
        is_severe = record.levelno >= limit
        return is_severe or not any(name in record.pathname for name in libraries)

    handler.addFilter(is_ours)

    hook = sys.unraisablehook

    def report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
        # After a failed write, the other writes of the checkpoint still report to a
        # closed event loop of orbax, each with a traceback. The failure itself is
        # raised.
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    sys.unraisablehook = report_unraisable


class DivergedError(UserError):
    """Too many steps in a row had a loss that is not finite."""


class TrainingLog:
    """Collects the metrics of every step and writes them at intervals.

    It reads the metrics of a step while the next step runs, so the devices never wait.
    """

    def __init__(
        self,
        workdir: str,
        *,
        start_step: int,
        num_steps: int,
        batch_size: int,
        log_every: int,
        best_step_seconds: float | None = None,
    ):
        """Opens the log; hosts other than 0 only check for divergence."""
        self.clock = Clock(
            workdir, start_step=start_step, best_step_seconds=best_step_seconds
        )
        self._workdir = epath.Path(workdir)
        self._writer = None
        if jax.process_index() == 0:
            with self._writing():
                self._writer = _open_writer(workdir, start_step)
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._log_every = log_every
        self._waiting: deque[tuple[int, Metrics]] = deque()
        self._since: list[Metrics] = []
        self._start_step = start_step

    def add(self, step: int, metrics: Metrics) -> None:
        """Adds the metrics of a step, counted from 1.

        Raises:
          DivergedError: after ten skipped steps in a row.
        """
        self._waiting.append((step, metrics))
        if len(self._waiting) > 1:
            self._read()

    def flush(self) -> None:
        """Reads and writes the pending metrics."""
        while self._waiting:
            self._read()
        if self._writer:
            with self._writing():
                self._writer.flush()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes values that do not exist for every step."""
        line = "  ".join(f"{name} {value:#.4g}" for name, value in values.items())
        self._say("step %d  %s", step, line)
        self._write_scalars(step, values)

    def preview(self, step: int, sheet: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes a picture for TensorBoard, and as a file in `previews`."""
        if self._writer:
            with self._writing():
                self._writer.write_images(step, {"preview": sheet[None]})
                path = self._workdir / "previews" / f"step_{step:07}.png"
                sheets.save_png(path, sheet)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Converts TensorFlow's write errors, from a thread of clu, to `UserError`."""
        try:
            yield
        except Exception as error:
            while error.__cause__ is not None and isinstance(
                error.__cause__, Exception
            ):
                error = error.__cause__
            reason = re.sub(r"{{.*?}} *", "", str(error)).partition("\n")[0]
            finished = manifest.last_finished(self._workdir / "checkpoints")
            raise UserError(
                f"could not write the log to {self._workdir}: {reason}; {finished};"
                " make room, or choose a --workdir that you may write to, and run the"
                " same command again"
            ) from error

    def _write_scalars(self, step: int, values: dict[str, float]) -> None:
        if self._writer:
            with self._writing():
                self._writer.write_scalars(step, values)

    def _read(self) -> None:
        step, metrics = self._waiting.popleft()
        metrics = jax.device_get(metrics)
        bad_steps = int(metrics.bad_steps)
        if bad_steps:
            logging.warning("step %d skipped: its loss is not finite", step)
        if bad_steps >= MAX_BAD_STEPS:
            raise DivergedError(
                f"steps {step - bad_steps + 1} to {step} all had a loss that is not"
                " finite; run it again with a lower --config.optim.learning_rate, with"
                " --config.optim.clip_norm=1.0 or with --config.model.dtype=float32"
            )
        self._since.append(metrics)
        if step % self._log_every == 0 or step == self._num_steps:
            self._write(step)
        elif step == self._start_step + 1:
            self.clock.compiled(step)

    def _write(self, step: int) -> None:
        pace = self.clock.lap(step)
        seconds = pace.step_seconds
        good = [metrics for metrics in self._since if not metrics.bad_steps]
        values = {
            "loss": float(np.mean([m.loss for m in good])) if good else float("nan"),
            "grad_norm": float(np.mean([m.grad_norm for m in good] or [np.nan])),
            "skipped_steps": len(self._since) - len(good),
            "images_per_second": self._batch_size / seconds,
            "data_share": pace.data_share,
            "goodput": pace.goodput,
        }
        shares = f"data {pace.data_share:.0%}  goodput {pace.goodput:.0%}"
        if pace.utilization is not None:
            values["model_flops_utilization"] = pace.utilization
            shares = f"MFU {pace.utilization:.0%}  {shares}"
        if pace.memory is not None:
            values["peak_memory_gib"] = pace.memory / 2**30
            shares += f"  {values['peak_memory_gib']:.1f} GiB"
        count = np.sum([m.level_count for m in good] or np.zeros((1, NUM_LEVELS)), 0)
        loss = np.sum([m.level_loss for m in good] or np.zeros((1, NUM_LEVELS)), 0)
        for level in np.flatnonzero(count):
            values[f"loss_at_level/{level}"] = loss[level] / count[level]
        self._since.clear()
        self._say(
            "step %d/%d  loss %#.4g  %.0f ms/step  %.1f images/s  %s  %s left",
            step,
            self._num_steps,
            values["loss"],
            1000 * seconds,
            values["images_per_second"],
            shares,
            _duration(seconds * (self._num_steps - step)),
        )
        self._write_scalars(step, values)

    def _say(self, message: str, *args: object) -> None:
        if jax.process_index() == 0:
            logging.info(message, *args)


def _open_writer(workdir: str, start_step: int) -> Any:
    # clu's writers import TensorFlow; the rest of training does not need it.
    from clu import metric_writers

    _rewind(workdir, start_step)
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(workdir))


def _rewind(workdir: str, step: int) -> None:
    """Removes the events of a killed run after a step from the curves."""
    from tensorboard.compat.proto.event_pb2 import Event

    for path in epath.Path(workdir).glob("events.out.tfevents.*"):
        data, end = path.read_bytes(), 0
        while end + 8 <= len(data):
            # A record is a length, its checksum, an event, and its checksum.
            (length,) = struct.unpack_from("<Q", data, end)
            event = data[end + 12 : end + 12 + length]
            next_end = end + length + 16
            if next_end > len(data) or Event.FromString(event).step > step:
                break
            end = next_end
        if end < len(data):
            atomic.write_bytes(path, data[:end])


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
