"""Batches from a file of packed pictures, by worker processes, without TensorFlow.

All randomness depends only on the seed and an example's position in the training, so
the batches do not depend on the number of workers.
"""

import collections
import functools
import io
import multiprocessing
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from PIL import Image

from benchmarks import array_tasks
from palette_jax.config.values import ConfigError, task_names
from palette_jax.errors import UserError
from palette_jax.pictures import resize
from palette_jax.tasks.task import Gray

Batch = dict[str, np.ndarray]


class Recipe(NamedTuple):
    """The settings of examples.

    Attributes:
      file: of `benchmarks.pack_pictures`.
      tasks: names with their weights.
      gray: the input of colorization.
      hints: whether colorization also learns from a few true colours.
      image_size: side of the examples.
      batch_size: of a step.
      min_scale: the smallest side of a window, as a share of the picture's short side.
      seed: of windows and degradations.
      num_eval: pictures that are held out.
    """

    file: str
    tasks: tuple[tuple[str, float], ...]
    gray: Gray
    hints: bool
    image_size: int
    batch_size: int
    min_scale: float
    seed: int
    num_eval: int


def make_recipe(config: ml_collections.ConfigDict, pictures: str) -> Recipe:
    """Returns the recipe of a config for packed pictures.

    Raises:
      ConfigError: if the config needs more than one file of pictures.
    """
    names = task_names(config)
    unknown = [name for name in names if name not in array_tasks.TASKS]
    if unknown:
        raise ConfigError(
            f"expected tasks out of {', '.join(array_tasks.TASKS)}, got"
            f" {', '.join(unknown)}, which needs more than one folder; take"
            " --config=multitask:small"
        )
    weights = [config.mix[name] if len(names) > 1 else 1.0 for name in names]
    return Recipe(
        pictures,
        tuple(zip(names, weights, strict=True)),
        config.data.gray,
        config.data.hints,
        config.data.image_size,
        config.train.batch_size,
        config.data.min_scale,
        config.seed,
        config.data.num_eval,
    )


def split(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Returns the training and the held-out names, by the hashes of the names.

    Training from the folder holds out the same names.

    Raises:
      UserError: if the file has another format, or too few pictures.
    """
    try:
        with zipfile.ZipFile(recipe.file) as archive:
            names = sorted(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"expected a file of packed pictures, got {recipe.file}: {error}; make one"
            " with `python -m benchmarks.pack_pictures FOLDER --out=FILE`"
        ) from error
    if not 1 <= recipe.num_eval < len(names):
        raise UserError(
            f"expected to hold out at least 1 of {len(names)} pictures and to train on"
            f" others, got data.num_eval={recipe.num_eval}; change"
            " --config.data.num_eval, or pack more pictures"
        )
    hashes = {name: zlib.crc32(name.encode()) for name in names}
    bound = sorted(hashes.values())[recipe.num_eval - 1]
    train = [name for name in names if hashes[name] > bound]
    return train, [name for name in names if hashes[name] <= bound]


class Maker:
    """Makes batches, in one process."""

    def __init__(self, recipe: Recipe):
        """Opens the file."""
        self._recipe = recipe
        self.train, self.held_out = split(recipe)
        self._archive = zipfile.ZipFile(recipe.file)
        names, weights = zip(*recipe.tasks, strict=True)
        self._weights = np.array(weights) / sum(weights)
        makers = dict(array_tasks.TASKS)
        makers["colorize"] = functools.partial(
            array_tasks.colorize, gray=recipe.gray, hints=recipe.hints
        )
        self._tasks = [makers[name] for name in names]

    def train_batch(self, step: int) -> Batch:
        """Returns the batch of a step: random, mirrored square windows."""
        first = step * self._recipe.batch_size
        places = range(first, first + self._recipe.batch_size)
        return _stack([self._example(place) for place in places])

    def held_out_batch(self, count: int, start: int) -> Batch:
        """Returns central squares of held-out pictures, the tasks in turn.

        Beside `x`, `y` and `hole` it has `id` and `valid`, false for padding.
        """
        rows: list[Batch] = []
        for place in range(start, start + count):
            name = self.held_out[min(place, len(self.held_out) - 1)]
            identity = zlib.crc32(name.encode())
            y = resize.center_square(self._read(name), self._recipe.image_size)
            rng = np.random.default_rng((self._recipe.seed, identity))
            row = self._degrade(rng, self._tasks[place % len(self._tasks)], y)
            valid = place < len(self.held_out)
            row |= {"id": np.array(identity, np.uint32), "valid": np.array(valid)}
            rows.append(row)
        return _stack(rows)

    def _example(self, place: int) -> Batch:
        recipe = self._recipe
        rng = np.random.default_rng((recipe.seed, place))
        # Each epoch has its own order.
        epoch, index = divmod(place, len(self.train))
        picture = self._read(self.train[self._order(epoch)[index]])
        height, width = picture.shape[:2]
        scale = rng.uniform(recipe.min_scale, 1.0)
        side = max(round(min(height, width) * scale), 1)
        top, left = rng.integers(0, (height - side + 1, width - side + 1))
        window = picture[top : top + side, left : left + side]
        y = resize.resize(window, recipe.image_size, recipe.image_size)
        if rng.uniform() < 0.5:
            y = y[:, ::-1]
        task = self._tasks[rng.choice(len(self._tasks), p=self._weights)]
        return self._degrade(rng, task, np.ascontiguousarray(y))

    def _degrade(
        self, rng: np.random.Generator, task: array_tasks.Task, y: np.ndarray
    ) -> Batch:
        x, hole = task(rng, y)
        return {"x": x, "y": y, "hole": hole}

    def _order(self, epoch: int) -> np.ndarray:
        return _order(self._recipe.seed, epoch, len(self.train))

    @functools.cache  # noqa: B019  # Lives as long as the process; 40 MiB of JPEGs.
    def _read(self, name: str) -> np.ndarray:
        with Image.open(io.BytesIO(self._archive.read(name))) as image:
            return np.asarray(image.convert("RGB"))


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    # Differs from the generators of examples, which have seeds of two numbers.
    return np.random.default_rng((seed, epoch, count)).permutation(count)


class Feed(Iterator[Batch]):
    """Training batches in order, made ahead by worker processes."""

    def __init__(self, recipe: Recipe, *, workers: int):
        """Starts the workers."""
        # More threads in each worker would wait for each other.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        self._pool = futures.ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _open, (recipe,)
        )
        self._ahead: collections.deque[futures.Future[Batch]] = collections.deque()
        self._next = 0
        for _ in range(2 * workers):
            self._ask()

    def __enter__(self) -> "Feed":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the workers without waiting for requested batches."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __next__(self) -> Batch:
        """Returns the next batch."""
        self._ask()
        return self._ahead.popleft().result()

    def _ask(self) -> None:
        self._ahead.append(self._pool.submit(_make, self._next))
        self._next += 1


_maker: Any = None


def _open(recipe: Recipe) -> None:
    global _maker
    _maker = Maker(recipe)


def _make(step: int) -> Batch:
    return _maker.train_batch(step)


def _stack(rows: Sequence[Batch]) -> Batch:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
