"""From a ConfigDict to batches of pictures; needs TensorFlow, and nothing else does."""

from collections.abc import Iterator

import jax
import ml_collections
import numpy as np

from palette_jax.config import task_names
from palette_jax.data import pipeline, sources, tasks
from palette_jax.data.tfds_source import tfds


def _task(config: ml_collections.ConfigDict, name: str) -> tasks.Task:
    """Returns the training form of a task."""
    if name == "multitask":
        names = task_names(config)
        weights = [config.mix[name] for name in names]
        return tasks.multitask([_task(config, name) for name in names], weights)
    makers = {
        "colorize": tasks.colorize,
        "inpaint": tasks.inpaint,
        "uncrop": tasks.uncrop,
        "jpeg": tasks.jpeg,
        "paired": tasks.paired,
    }
    return makers[name]()


def _eval_task(config: ml_collections.ConfigDict, name: str) -> tasks.Task:
    """Returns the form of a task that results are compared on."""
    quality = config.eval.jpeg_quality
    makers = {
        "inpaint": lambda: tasks.inpaint(mask=config.eval.inpaint_mask),
        "uncrop": lambda: tasks.uncrop(side=config.eval.uncrop_side),
        "jpeg": lambda: tasks.jpeg(min_quality=quality, max_quality=quality),
    }
    return makers[name]() if name in makers else _task(config, name)


def _sources(
    config: ml_collections.ConfigDict,
) -> tuple[list[tuple[sources.Source, float]], sources.Source]:
    """Returns the training sources with their weights, and the evaluation source."""
    data = config.data
    tfds_dir = data.tfds_dir or None
    if data.source == "tfds":
        train = tfds(data.tfds_name, data.train_split, data_dir=tfds_dir)
        held_out = tfds(data.tfds_name, data.eval_split, data_dir=tfds_dir)
    else:
        makers = {
            "folder": lambda: sources.folder(data.folder),
            "paired": lambda: sources.paired(data.input_folder, data.target_folder),
            "sample_photos": sources.sample_photos,
        }
        train, held_out = sources.hold_out(makers[data.source](), data.num_eval)
    if data.eval_list:
        held_out = sources.restrict(held_out, data.eval_list)
    weighted = [(train, 1.0)]
    if data.extra_folder or data.extra_tfds_name:
        if data.extra_folder:
            extra = sources.folder(data.extra_folder)
        else:
            extra = tfds(data.extra_tfds_name, data.train_split, data_dir=tfds_dir)
        weight = data.extra_weight
        weighted = [(train, 1.0 - weight), (extra, weight)]
    return weighted, held_out


def train_batches(
    config: ml_collections.ConfigDict, *, start_step: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Returns this host's share of the training batches from a step on."""
    weighted, _ = _sources(config)
    return pipeline.train_batches(
        weighted,
        _task(config, config.task),
        image_size=config.data.image_size,
        batch_size=config.train.batch_size,
        seed=config.seed,
        start_step=start_step,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
        min_scale=config.data.min_scale,
        min_side=config.data.min_side,
        max_broken_share=config.data.max_broken_share,
    )


def eval_batches(
    config: ml_collections.ConfigDict, task: str
) -> Iterator[dict[str, np.ndarray]]:
    """Returns this host's share of the evaluation batches of a task."""
    _, source = _sources(config)
    if config.eval.num_images:
        source = source.select(range(min(config.eval.num_images, len(source))))
    return pipeline.eval_batches(
        source,
        _eval_task(config, task),
        image_size=config.data.image_size,
        batch_size=config.eval.batch_size,
        seed=config.seed,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
        min_side=config.data.min_side,
        max_broken_share=config.data.max_broken_share,
    )


def held_out_batches(
    config: ml_collections.ConfigDict,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns a few evaluation pictures, degraded as in training, to watch a run."""
    _, source = _sources(config)
    return pipeline.eval_batches(
        source.select(range(min(config.data.num_eval, len(source)))),
        _task(config, config.task),
        image_size=config.data.image_size,
        batch_size=config.eval.batch_size,
        seed=config.seed,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
        min_side=config.data.min_side,
        max_broken_share=config.data.max_broken_share,
    )
