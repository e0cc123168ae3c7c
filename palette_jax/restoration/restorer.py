"""Restores a user's pictures with a trained network, which is loaded once."""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from palette_jax import parallel
from palette_jax.diffusion.samplers import Sampler
from palette_jax.errors import UserError
from palette_jax.pictures import files, masks
from palette_jax.pictures.files import Photo
from palette_jax.restoration import canvas, tiles
from palette_jax.restoration.batch import image_keys, restore_batch
from palette_jax.restoration.canvas import Canvas
from palette_jax.restoration.progress import OnProgress, Watch, Work, batches
from palette_jax.restoration.result import Result
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import TASKS, Degraded, UserInputs, inpaint
from palette_jax.tasks.task import Gray
from palette_jax.types import PredictFn


class Restorer:
    """Restores pictures with a network that is loaded already.

    The same picture with the same settings gives the same result, alone or among
    others: noise follows from the seed and the picture, and the network is always given
    the same number of tiles.

    Attributes:
      num_together: how many small pictures are computed at once.
      predict: the network with its weights, on all devices.
    """

    def __init__(
        self,
        predict: PredictFn,
        make_sampler: Callable[[Mapping[str, Any]], Sampler],
        *,
        image_size: int,
        task_names: Sequence[str],
        clip: bool = False,
        knows_hints: bool = False,
        gray: Gray = "luma",
        student_steps: int = 0,
        about: Mapping[str, Any] | None = None,
    ):
        """Copies the weights to all devices.

        Args:
          predict: a network with its weights, as `batch.predictor` binds.
          make_sampler: from `Settings.steps` to a sampler.
          image_size: of the pictures that it was trained on.
          task_names: the trained tasks.
          clip: keeps the estimates of the clean picture in [-1, 1].
          knows_hints: whether it was trained with colour hints.
          gray: which gray it learned to colour.
          student_steps: of a distilled network, the only number of steps that it knows;
            0 for others.
          about: metadata of the network for result files.
        """
        self.knows_hints = knows_hints
        self._gray: Gray = gray
        self.student_steps = student_steps
        self.image_size = image_size
        self.task_names = tuple(task_names)
        self.num_together = jax.device_count()
        self._mesh = parallel.make_mesh()
        self.predict = self._put(predict)
        self._bind_tiles = tiles.make_tiled_predictor(self._mesh)
        self._make_sampler = make_sampler
        self._clip = clip
        self.about = dict(about or {})

    def restore(
        self,
        photo: Any,
        settings: Settings,
        *,
        hole: Any = None,
        hints: Any = None,
        **options: Any,
    ) -> Result:
        """Restores one picture, with the options of `restore_many`."""
        (result,) = self.restore_many(
            [photo], settings, holes=[hole], hints=[hints], **options
        )
        return result

    def restore_many(
        self,
        photos: Sequence[Any],
        settings: Settings,
        *,
        holes: Sequence[Any] | None = None,
        hints: Sequence[Any] | None = None,
        max_tiles: int = canvas.MAX_TILES,
        on_progress: OnProgress | None = None,
    ) -> list[Result]:
        """Restores pictures, small ones of similar sizes together.

        Args:
          photos: paths, Pillow images, arrays or what `files.read` returns; see
            `files.as_photo`.
          settings: the task and how to carry it out.
          holes: of `inpaint`, what of each photo is filled in; see `masks.as_hole`.
          hints: of `colorize`, pictures whose opaque pixels have true colours.
          max_tiles: of one picture, at most.
          on_progress: called after each step, and within a step of many tiles.

        Raises:
          UserError: if the network was not trained for the task, a hole is missing, or
            a picture takes too many tiles.
          Stopped: if `on_progress` returned False.
        """
        of_settings = self.check(settings)
        works: list[Work] = []
        results: list[Result] = []
        none = [None] * len(photos)
        for source, hole, hint in zip(
            photos, holes or none, hints or none, strict=True
        ):
            photo, prepared, warnings = self.prepare(
                source, settings, hole=hole, hints=hint, max_tiles=max_tiles
            )
            image_id = _image_id(prepared.whole)
            works += [
                Work(len(works) + i, prepared, seed, image_id, photo)
                for i, seed in enumerate(settings.seeds)
            ]
            about = {**self.about, "input": os.path.basename(photo.name)}
            warnings = [*warnings, *of_settings]
            results.append(
                Result(photo, settings, [], prepared.whole.hole, warnings, about)
            )
        pictures = self._sample(works, settings, on_progress)
        for i, picture in enumerate(pictures):
            results[i // settings.num_samples].pictures.append(picture)
        return results

    def prepare(
        self,
        source: Any,
        settings: Settings,
        *,
        hole: Any = None,
        hints: Any = None,
        max_tiles: int = canvas.MAX_TILES,
    ) -> tuple[Photo, Canvas, list[str]]:
        """Returns a photo, its canvas, and warnings.

        Raises:
          UserError: if it cannot be restored with these inputs.
        """
        task, about_hole = TASKS[settings.task], []
        if hints is not None and not self.knows_hints:
            raise UserError(
                "expected a network that was trained with colour hints, got another;"
                " leave --hints out, or train with --config.data.hints=True"
            )
        if hints is not None and task.name != "colorize":
            raise UserError(
                f"expected hints with task colorize alone, got some with {task.name};"
                " leave them out"
            )
        photo = files.as_photo(source)
        if task.shrinks or (task.brings_colour and photo.is_gray):
            photo = files.in_colour(photo)
        if hole is not None:
            hole, about_hole = masks.as_hole(hole, photo.pixels.shape)
        if hole is not None and not task.needs_mask:
            raise UserError(
                "expected a mask with task inpaint alone, got one with"
                f" {task.name}; leave it out"
            )
        colours = None if hints is None else masks.as_hints(hints, photo.pixels.shape)
        degraded = task.degrade(
            photo.pixels, UserInputs(hole, settings.extend, gray=self._gray)
        )
        large, doubts = canvas.choose(degraded, settings, self.image_size)
        prepared = canvas.prepare(
            degraded, self.image_size, hints=colours, large=large, max_tiles=max_tiles
        )
        if (task.needs_mask or task.extends) and not degraded.hole.any():
            prepared = prepared._replace(tiles=[])  # There is nothing to paint.
        warnings = [*photo.warnings, *about_hole, *doubts]
        if photo.alpha is not None and task.needs_mask:
            warnings += inpaint.unseen(degraded.hole, photo.alpha)
        return photo, prepared, warnings

    def check(self, settings: Settings) -> list[str]:
        """Returns warnings of a task that is near what the network was trained for.

        Raises:
          UserError: if the task is not.
        """
        warnings = [] if self.student_steps else settings.warnings()
        self._check_steps(settings)
        if settings.task in self.task_names:
            return warnings
        trained = ", ".join(self.task_names)
        if TASKS[settings.task].like in self.task_names:
            return [
                *warnings,
                f"the network was trained for {trained}, not for {settings.task}",
            ]
        raise UserError(
            f"expected a task that the network was trained for ({trained}), got"
            f" {settings.task}; take another task or checkpoint"
        )

    def _check_steps(self, settings: Settings) -> None:
        own = self.student_steps
        other = settings.quality == "paper" or (
            (settings.num_steps or own) != own or (settings.sampler or "ddim") != "ddim"
        )
        if own and other:
            raise UserError(
                f"expected the {own} steps of ddim that the network was distilled for,"
                f" got {settings.steps['num_steps']} of {settings.steps['sampler']};"
                " leave the steps, the sampler and the preset out, or take the network"
                " that it was distilled from"
            )

    def _sample(
        self, works: Sequence[Work], settings: Settings, on_progress: OnProgress | None
    ) -> list[UInt8[np.ndarray, "h w 3"]]:
        sampler = self._make_sampler(settings.steps)
        total = len(works) * sampler.num_steps
        pictures = {
            work.index: work.canvas.whole.x for work in works if not work.canvas.tiles
        }
        before = len(pictures) * sampler.num_steps
        for batch in batches(works, len(self._mesh.devices.flat)):
            watch = Watch(on_progress, batch, settings, before, total)
            pictures.update(watch.finished(self._run(batch, sampler, watch)))
            before += len(batch) * sampler.num_steps
        return [pictures[work.index] for work in works]

    def _run(
        self, batch: Sequence[Work], sampler: Sampler, watch: Watch
    ) -> UInt8[Array, "b h w 3"]:
        shape = batch[0].canvas.x.shape
        plan = tiles.plan(
            [work.canvas.tiles for work in batch],
            (shape[0], shape[1]),
            self.image_size,
            together=self._mesh.devices.size * batch[0].tiles_at_once,
        )
        keys = jnp.concatenate(
            [image_keys(w.seed, jnp.array([w.image_id], jnp.uint32)) for w in batch]
        )
        x, hole = (
            np.stack([getattr(work.canvas, name) for work in batch])
            for name in ("x", "hole")
        )
        keys, plan, x, hole = self._put((keys, plan, x, hole))
        # A group of tiles is a call of its own: it can be watched and stopped, and the
        # compiled program serves any number of tiles and steps.
        return restore_batch(
            keys,
            self._bind_tiles(self.predict, plan, watch.after_group),
            x,
            hole,
            sampler,
            clip=self._clip,
            callback=watch.after_step,
            compiler_options=parallel.compiler_options(self._mesh),
        )

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, parallel.replicated(self._mesh))


def _image_id(degraded: Degraded) -> int:
    """Returns a number that depends on the content alone, not on the file name."""
    start = zlib.crc32(repr(degraded.x.shape).encode())
    return zlib.crc32(degraded.hole.tobytes(), zlib.crc32(degraded.x.tobytes(), start))
