"""Prints the images per second that one CPU core decodes, resizes and degrades.

python -m benchmarks.data --size=256 --folder=PHOTOS
"""

import argparse
import functools
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from palette_jax.data import images, pictures, pipeline, sources, tasks

TASKS = {
    "colorize": tasks.colorize,
    "inpaint, free-form": functools.partial(tasks.inpaint, mask="free_form"),
    "inpaint, rectangles": functools.partial(tasks.inpaint, mask="rectangles"),
    "inpaint, mixed": tasks.inpaint,
    "uncrop": tasks.uncrop,
    "jpeg": tasks.jpeg,
}


def measure(function: Callable[[tf.Tensor], tf.Tensor], num_images: int) -> float:
    """Returns the milliseconds per image of a function of an image's number."""
    dataset = tf.data.Dataset.range(num_images).map(function)
    best = float("inf")
    for _ in range(4):  # The first one warms up, and others may use the machine.
        start = time.process_time()
        dataset.reduce(tf.constant(0), lambda count, _: count + 1).numpy()
        best = min(best, time.process_time() - start)
    return 1000 * best / num_images


def print_row(name: str, milliseconds: float, reference: float) -> None:
    """Prints one row of a table, with the cost relative to decoding and resizing."""
    rate, share = 1000 / milliseconds, milliseconds / reference
    print(f"  {name:32}{milliseconds:8.2f}{rate:12.0f}{share:10.2f}", flush=True)


def print_table(name: str, source: sources.Source, size: int, num_images: int) -> None:
    """Prints the costs of reading from a source, and of each task on its pictures."""

    def read(index: tf.Tensor) -> tf.Tensor:
        return pictures.load(source.read(index % len(source)), min_side=1)["y"]

    def square(index: tf.Tensor) -> tf.Tensor:
        return images.center_square(read(index), size)

    kept = tf.stack([square(tf.constant(i, tf.int64)) for i in range(32)])
    print(f"{name}: {len(source)} pictures, to {size} x {size}, one core")
    print(f"  {'':32}{'ms/image':>8}{'images/s':>12}{'relative':>10}")
    reference = measure(square, num_images)
    print_row("read, decode", measure(read, num_images), reference)
    print_row("read, decode, resize", reference, reference)
    nothing = measure(lambda index: kept[index % 32], num_images)
    for task_name, task in TASKS.items():

        def degrade(index: tf.Tensor, task: tasks.Task = task) -> tf.Tensor:
            seed = tf.stack([tf.constant(0, tf.int64), index])
            return task(seed, {"y": kept[index % 32]})

        print_row(task_name, measure(degrade, num_images) - nothing, reference)
    batches = pipeline.train_batches(
        [(source, 1.0)], tasks.inpaint, image_size=size, batch_size=32, seed=0
    )
    next(batches)
    start = time.process_time()
    for _ in range(num_images // 32):
        next(batches)
    elapsed = time.process_time() - start
    print_row(
        "train_batches, inpaint, mixed",
        1000 * elapsed / (num_images // 32 * 32),
        reference,
    )


def main() -> None:
    """Prints a table for the sample photographs, and one for a folder if named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="pictures to read, beside the samples")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--num_images", type=int, default=512)
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print_table("sample photos", sources.sample_photos(), args.size, args.num_images)
    if args.folder:
        source = sources.folder(args.folder)
        print_table("folder", source, args.size, args.num_images)


if __name__ == "__main__":
    main()
