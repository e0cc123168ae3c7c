"""Samples while they are computed: how far they are, and who may stop them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, UInt8

from palette_jax.diffusion import process
from palette_jax.pictures import means
from palette_jax.pictures.files import Photo
from palette_jax.restoration import canvas
from palette_jax.restoration.canvas import Canvas
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, colorize

# How many tiles a device computes at once, where a picture has many.
_TILES_AT_ONCE = 8


class Stopped(Exception):
    """The progress function returned False."""


class Progress(NamedTuple):
    """Where a restoration is.

    Attributes:
      done: steps done, of all samples; parts of a step where a picture has many tiles.
      total: steps in all.
      preview: call it for the samples that are computed at present, as they stand:
        pairs of their index and the picture. It costs a transfer from the device.
    """

    done: float | int
    total: int
    preview: Callable[[], list[tuple[int, UInt8[np.ndarray, "h w 3"]]]]


OnProgress = Callable[[Progress], bool | None]
"""Called after each step, and in it after each group of tiles.

Returning False ends the computation with `Stopped`.
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
        """How many tiles the network is given on each device."""
        # Follows from the picture alone, so that its result does, too.
        return _TILES_AT_ONCE if len(self.canvas.tiles) >= 4 * _TILES_AT_ONCE else 1


class Watch:
    """Tells how far a batch is, and ends it when it is told to."""

    def __init__(
        self,
        on_progress: OnProgress | None,
        batch: Sequence[Work],
        settings: Settings,
        before: int,
        total: int,
    ):
        """Begins a batch, where `before` of `total` steps are done."""
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
        """Tells that steps are done.

        Raises:
          Stopped: if the computation is to end.
        """
        if self._on_progress is None:
            return
        jax.block_until_ready(y_0)  # Else steps are only asked for, not done.
        self._done, self._latest = steps, y_0
        self.after_group(0.0)

    def after_group(self, share: float) -> None:
        """Tells that a share of the present step is done.

        Raises:
          Stopped: if the computation is to end.
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
    """Puts together works of one shape, until there is a tile for each device."""

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
    picture = canvas.paste(work.canvas, sampled)
    task = TASKS[settings.task]
    if task.means:
        picture = means.with_means(picture, work.canvas.whole.x, task.means)
    if task.shrinks:
        # A shrunk picture has lost its details, and they are in the luma.
        if settings.keep_luminance or work.canvas.is_shrunk:
            return colorize.with_luma(picture, colorize.luma(work.photo.pixels))
    elif work.photo.is_gray and not task.brings_colour:
        return np.repeat(colorize.luma(picture), 3, -1)
    return picture
