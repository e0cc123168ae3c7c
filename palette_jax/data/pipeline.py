"""Batches for training and evaluation.

All randomness depends only on the seed and the position of an example in training, or
on the seed and the picture's name in evaluation. So a run can start at any step, and
the examples do not depend on the number of hosts.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import numpy as np
import tensorflow as tf
from absl import logging
from jaxtyping import UInt8

from palette_jax.data import images, pictures
from palette_jax.data.sources import Source
from palette_jax.data.tasks import Picture, Task
from palette_jax.errors import UserError

Batch = dict[str, np.ndarray]

# A broken picture is replaced by the next in the order of the epoch, this many times.
_ATTEMPTS = 16
# A store that did not answer once may do so the next time.
_READS = 2


class Batches(Iterator[Batch]):
    """Batches of numpy arrays, and a count of the pictures that were skipped.

    Attributes:
      broken: the reason for each skipped picture of this host, by name.
    """

    def __init__(self, batches: Iterator[Batch], broken: dict[str, str]):
        """Wraps an iterator that adds skipped pictures to `broken`."""
        self.broken = broken
        self._batches = batches

    def __next__(self) -> Batch:
        """Returns the next batch."""
        return next(self._batches)


def train_batches(
    sources: Sequence[tuple[Source, float]],
    task: Task,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    host_index: int = 0,
    host_count: int = 1,
    min_scale: float = 1.0,
    min_side: int = 32,
    max_broken_share: float = 0.01,
) -> Batches:
    """Returns endless batches `x`, `y` and `hole` of random, mirrored square windows.

    Args:
      sources: with their weights. One source is reshuffled in each epoch. With several
        sources, each example draws a source, and takes the picture at the example's
        position in that source's own order, so that all its pictures are equally
        likely.
      task: from `tasks`.
      image_size: side of the pictures.
      batch_size: of all hosts together.
      seed: of the order, the windows and the degradations.
      start_step: the step of the first batch; a later start costs nothing.
      host_index: the host whose share of each batch is returned.
      host_count: number of hosts that share a batch.
      min_scale: the smallest side of a window, as a share of the picture's short side.
      min_side: a picture with a shorter side counts as broken.
      max_broken_share: more broken pictures (and more than one) stop the run. A broken
        picture is replaced by another one, and no other example changes.
    """
    host_batch_size = batch_size // host_count
    lengths = tf.constant([len(source) for source, _ in sources], tf.int64)
    weights = np.array([weight for _, weight in sources], np.float64)
    bounds = (np.cumsum(weights) / weights.sum())[:-1].astype(np.float32)

    def draw_seeds(position: tf.Tensor) -> list[tf.Tensor]:
        example_seed = tf.stack([tf.constant(seed, tf.int64), position])
        return tf.unstack(tf.random.split(example_seed, 4))

    def locate(position: tf.Tensor, attempt: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        draw = tf.random.stateless_uniform([], draw_seeds(position)[0])
        chosen = tf.reduce_sum(tf.cast(draw >= bounds, tf.int64))
        length = lengths[chosen]
        epoch = position // length
        order = tf.stack([seed, epoch * len(sources) + chosen])
        place = (position + attempt) % length
        return chosen, tf.random.experimental.index_shuffle(place, order, length - 1)

    def example(row: tf.Tensor) -> dict[str, tf.Tensor]:
        position = _position(row, batch_size, host_batch_size, host_index)
        _, seed_window, seed_flip, seed_task = draw_seeds(position)

        def load(attempt: tf.Tensor) -> Picture:
            chosen, index = locate(position, attempt)
            reads = [lambda s=source: s.read(index) for source, _ in sources]
            encoded = tf.switch_case(tf.cast(chosen, tf.int32), reads)
            picture = pictures.load(encoded, min_side)
            for key, image in picture.items():
                image = images.random_square(seed_window, image, image_size, min_scale)
                picture[key] = images.flip(seed_flip, image)
            return picture

        picture, attempt = _first_good(load, _ATTEMPTS)
        return {**task(seed_task, picture), "position": position, "attempt": attempt}

    start = start_step * host_batch_size
    rows = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    dataset = _batched(rows, example, host_batch_size)
    account = _Account([source for source, _ in sources], min_side, max_broken_share)

    def batches() -> Iterator[Batch]:
        for batch in dataset.as_numpy_iterator():
            positions, attempts = batch.pop("position"), batch.pop("attempt")
            for row in np.flatnonzero(attempts):
                for attempt in range(attempts[row]):
                    account.add(*map(int, locate(positions[row], attempt)))
            if np.any(attempts == _ATTEMPTS):
                account.fail(f"{_ATTEMPTS} broken pictures in a row")
            yield batch

    return Batches(batches(), account.reasons)


def eval_batches(
    source: Source,
    task: Task,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    host_index: int = 0,
    host_count: int = 1,
    min_side: int = 32,
    max_broken_share: float = 0.01,
    square: Callable[[tf.Tensor, int], tf.Tensor] = images.center_square,
    holes: UInt8[np.ndarray, "n bytes"] | None = None,
) -> Batches:
    """Returns batches of squares of all pictures, once and in order.

    Beside `x`, `y` and `hole` they have `name`, `id` (uint32, a hash of the name, which
    seeds the degradation and the noise of sampling), and `valid`: false for rows that
    pad the last batch and for broken pictures. All hosts get equally many batches.
    `square` crops and resizes pictures. `holes` has a bit for each pixel of each
    square; tasks with holes use it in place of their own. For the other arguments see
    `train_batches`.
    """
    host_batch_size = batch_size // host_count
    names = np.append(source.names, "")
    ids = np.array([zlib.crc32(name.encode()) for name in names.tolist()], np.uint32)
    id_rows = tf.constant(ids.astype(np.int64))
    hole_rows = None if holes is None else tf.constant(holes)

    def example(row: tf.Tensor) -> dict[str, tf.Tensor]:
        position = _position(row, batch_size, host_batch_size, host_index)

        def load(attempt: tf.Tensor) -> Picture:
            del attempt
            picture = pictures.load(source.read(position), min_side)
            return {k: square(v, image_size) for k, v in picture.items()}

        position = tf.minimum(position, len(source))
        picture, attempt = _first_good(load, 1, exists=position < len(source))
        if hole_rows is not None:
            row_of = tf.minimum(position, len(source) - 1)
            picture["hole"] = _unpacked(hole_rows[row_of], image_size)
        example_seed = tf.stack([tf.constant(seed, tf.int64), id_rows[position]])
        return {**task(example_seed, picture), "position": position, "attempt": attempt}

    num_batches = -(-len(source) // batch_size)
    rows = tf.data.Dataset.range(num_batches * host_batch_size)
    dataset = _batched(rows, example, host_batch_size)
    account = _Account([source], min_side, max_broken_share)

    def batches() -> Iterator[Batch]:
        for batch in dataset.as_numpy_iterator():
            positions, attempts = batch.pop("position"), batch.pop("attempt")
            for position in positions[attempts > 0]:
                if position < len(source):
                    account.add(0, int(position))
            yield {
                **batch,
                "id": ids[positions],
                "name": names[positions],
                "valid": attempts == 0,
            }

    return Batches(batches(), account.reasons)


def _unpacked(row: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the bits of bytes as [size, size, 1], the highest of a byte first."""
    shifts = tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8)
    bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(row[:, None], shifts), 1)
    return tf.reshape(bits, [size, size, 1])


class _Account:
    """Counts the broken pictures, and stops the run when there are too many."""

    def __init__(self, sources: Sequence[Source], min_side: int, max_share: float):
        self.reasons: dict[str, str] = {}
        self._sources = sources
        self._min_side = min_side
        self._total = sum(map(len, sources))
        # In a small set, a single broken picture does not stop the run.
        self._limit = max(1, int(max_share * self._total))

    def add(self, source_index: int, index: int) -> None:
        """Records a broken picture, and fails if there are too many."""
        source = self._sources[source_index]
        name = str(source.names[index])
        if name in self.reasons:
            return
        reason = pictures.diagnose(source, index, self._min_side)
        logging.warning("skipped %s: %s", name, reason or "it was read only later")
        if reason is None:
            return  # Not broken: the store did not answer.
        self.reasons[name] = reason
        if len(self.reasons) > self._limit or len(self.reasons) == self._total:
            self.fail(f"{len(self.reasons)}")

    def fail(self, what: str) -> NoReturn:
        """Raises an error that names the broken pictures."""
        lines = [f"  {name}: {reason}" for name, reason in self.reasons.items()]
        raise UserError(
            f"expected at most {self._limit} broken ones of {self._total} pictures, got"
            f" {what}; repair or remove them, or allow a larger share:\n"
            + "\n".join(lines[:20])
        )


def _first_good(
    load: Callable[[tf.Tensor], Picture],
    attempts: int,
    *,
    exists: bool | tf.Tensor = True,
) -> tuple[Picture, tf.Tensor]:
    """Returns the first picture that loads and the number of failed attempts.

    Each picture is tried twice. If all fail, or there is no picture, the result is
    black. A nested dataset is the way to catch errors in a graph.
    """
    reads = tf.data.Dataset.range(attempts * _READS * tf.cast(exists, tf.int64))
    tries = reads.map(lambda n: (load(n // _READS), n // _READS)).ignore_errors()
    black, _ = tf.nest.map_structure(
        lambda spec: tf.zeros(spec.shape, spec.dtype), tries.element_spec
    )
    last = tf.data.Dataset.from_tensors((black, tf.constant(attempts, tf.int64)))
    return tries.concatenate(last).take(1).get_single_element()


def _batched(
    rows: tf.data.Dataset, example: Callable[..., Picture], host_batch_size: int
) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # Examples run in parallel; threads within an example would cost more than they
    # save.
    options.threading.max_intra_op_parallelism = 1
    dataset = rows.map(example, tf.data.AUTOTUNE).batch(host_batch_size)
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def _position(
    row: tf.Tensor, batch_size: int, host_batch_size: int, host_index: int
) -> tf.Tensor:
    """Returns the global position of a row of one host."""
    step, place = row // host_batch_size, row % host_batch_size
    return step * batch_size + host_index * host_batch_size + place
