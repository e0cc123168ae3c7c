"""Progress of a restoration, with previews, and stopping."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, UInt8

from palette_jax.diffusion import process
from palette_jax.pictures import means
from palette_jax.pictures.files import Photo
from palette_jax.restoration import canvas, true_colors
from palette_jax.restoration.canvas import Canvas
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, colorize

# Number of tiles that a device computes at once, if a picture has many.
_TILES_AT_ONCE = 8


class Stopped(Exception):
    """The progress function returned False."""


class Progress(NamedTuple):
    """The progress of a restoration.

    Attributes:
      done: finished steps of all samples, with parts of a step if there are many tiles.
      total: steps of all samples.
      preview: returns the current state of the samples in computation, as pairs of
        index and picture. It costs a transfer from the device.
    """

    done: float | int
    total: int
    preview: Callable[[], list[tuple[int, UInt8[np.ndarray, "h w 3"]]]]


OnProgress = Callable[[Progress], bool | None]
"""Called after each step, and within a step after each group of tiles.

If it returns False, the computation stops with `Stopped`.
"""


class Work(NamedTuple):
    """One sample of one picture."""

    index: int
    canvas: Canvas
    seed: int
    image_id: int
    photo: Photo

    @property
    def tiles_at_once(self) -> int:
        """Number of tiles at once on each device."""
        # Depends only on the picture, so that the result does too.
        return _TILES_AT_ONCE if len(self.canvas.tiles) >= 4 * _TILES_AT_ONCE else 1


class Watch:
    """Reports the progress of a batch, and stops it on request."""

    def __init__(
        self,
        on_progress: OnProgress | None,
        batch: Sequence[Work],
        settings: Settings,
        before: int,
        total: int,
    ):
        """Starts a batch after `before` of `total` steps."""
        self._on_progress, self._batch, self._settings = on_progress, batch, settings
        self._before, self._total = before, total
        self._done = 0
        self._latest: Any = np.stack([work.canvas.x for work in batch])

    def finished(self, sampled: Any) -> list[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Returns the index and the picture of each work of the batch."""
        return [
            (work.index, _finished(work, picture, self._settings))
            for work, picture in zip(self._batch, np.asarray(sampled), strict=True)
        ]

    def after_step(self, steps: int, y_0: Array) -> None:
        """Reports finished steps.

        Raises:
          Stopped: if the progress function returns False.
        """
        if self._on_progress is None:
            return
        jax.block_until_ready(y_0)  # Else steps would only be enqueued.
        self._done, self._latest = steps, y_0
        self.after_group(0.0)

    def after_group(self, share: float) -> None:
        """Reports a finished share of the current step.

        Raises:
          Stopped: if the progress function returns False.
        """
        if self._on_progress is None:
            return
        done = self._before + (self._done + share) * len(self._batch)
        latest = self._latest

        def preview() -> list[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
            is_given = latest.dtype == np.uint8  # Before the first step.
            return self.finished(latest if is_given else process.to_bytes(latest))

        progress = Progress(done, self._total, preview)
        if self._on_progress(progress) is False:
            raise Stopped


def batches(works: Sequence[Work], num_devices: int) -> Iterator[list[Work]]:
    """Groups works of one shape until there is a tile for each device."""

    def shape(work: Work) -> tuple[int, ...]:
        return (*work.canvas.x.shape, work.tiles_at_once, len(work.canvas.tiles))

    waiting = sorted((work for work in works if work.canvas.tiles), key=shape)
    for (*_, count), group in itertools.groupby(waiting, shape):
        members, together = list(group), max(num_devices // count, 1)
        for start in range(0, len(members), together):
            yield members[start : start + together]


def _finished(
    work: Work, sampled: UInt8[np.ndarray, "h w 3"], settings: Settings
) -> UInt8[np.ndarray, "h2 w2 3"]:
    on_canvas = work.canvas
    sampled = true_colors.spread(sampled, on_canvas.x, on_canvas.hints, on_canvas.size)
    picture = canvas.paste(work.canvas, sampled)
    task = TASKS[settings.task]
    if task.means:
        picture = means.with_means(picture, work.canvas.whole.x, task.means)
    if task.shrinks:
        # A shrunk picture has lost its details, which are in the luma.
        if settings.keep_luminance or work.canvas.is_shrunk:
            return colorize.with_luma(picture, colorize.luma(work.photo.pixels))
    elif work.photo.is_gray and not task.brings_colour:
        return np.repeat(colorize.luma(picture), 3, -1)
    return picture
