"""Builds batches of pictures from a ConfigDict; the only builder with TensorFlow."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from palette_jax.config.values import ConfigError, task_names
from palette_jax.data import images, mask_file, pipeline, sources, tasks
from palette_jax.data.tfds_source import tfds

_NAMES = 1000  # Number of stored names of held-out pictures.


def _task(config: ml_collections.ConfigDict, name: str) -> tasks.Task:
    """Returns the training form of a task."""
    if name == "multitask":
        names = task_names(config)
        return functools.partial(
            tasks.multitask,
            tasks=[_task(config, name) for name in names],
            weights=[config.mix[name] for name in names],
        )
    data = config.data
    return {
        "colorize": functools.partial(tasks.colorize, gray=data.gray, hints=data.hints),
        "inpaint": tasks.inpaint,
        "uncrop": tasks.uncrop,
        "jpeg": tasks.jpeg,
        "superres": tasks.superres,
        "old_photo": tasks.old_photo,
        "paired": tasks.paired,
    }[name]


def _eval_task(config: ml_collections.ConfigDict, name: str) -> tasks.Task:
    """Returns the fixed form of a task in evaluation."""
    quality = config.eval.jpeg_quality
    fixed = {
        "colorize": {"gray": config.data.gray, "hints": False},
        "inpaint": {"mask": config.eval.inpaint_mask},
        "uncrop": {"side": config.eval.uncrop_side},
        "jpeg": {"min_quality": quality, "max_quality": quality},
    }
    return functools.partial(_task(config, name), **fixed.get(name, {}))


def _train_sources(
    config: ml_collections.ConfigDict,
) -> list[tuple[sources.Source, float]]:
    """Returns the training sources with their weights."""
    data = config.data
    if data.source == "tfds":
        train = _tfds(config, data.tfds_name, data.train_split)
    elif data.eval_folder:
        train = _pictures(config)
    else:
        train, _ = _hold_out(config)
    weighted = [(train, 1.0)]
    if data.extra_folder or data.extra_tfds_name:
        if data.extra_folder:
            extra = sources.folder(data.extra_folder)
        else:
            extra = _tfds(config, data.extra_tfds_name, data.train_split)
        weight = data.extra_weight
        weighted = [(train, 1.0 - weight), (extra, weight)]
    return weighted


def _hold_out(
    config: ml_collections.ConfigDict,
) -> tuple[sources.Source, sources.Source]:
    data = config.data
    return sources.hold_out(_pictures(config), data.num_eval, below=data.held_out_below)


def held_out_below(config: ml_collections.ConfigDict) -> int:
    """Returns the hash bound of a new run's held-out pictures; 0 for none."""
    if config.data.source == "tfds" or config.data.eval_folder:
        return 0
    return sources.held_out_below(_pictures(config), config.data.num_eval)


def identity(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the identity of a run's pictures: counts, hashes, names."""
    held_out = _listed(config)
    return {
        "train": [source.identity() for source, _ in _train_sources(config)],
        "held_out": held_out.identity(),
        "held_out_names": held_out.names[:_NAMES].tolist(),
    }


def _tfds(config: ml_collections.ConfigDict, name: str, split: str) -> sources.Source:
    """Returns a split of a data set; all hosts call this, and host 0 indexes it."""
    compiled = getattr(jax.config, "jax_compilation_cache_dir", None)
    index_dir = epath.Path(compiled).parent / "index" if compiled else None
    data_dir = config.data.tfds_dir or None

    def make() -> sources.Source:
        return tfds(name, split, data_dir=data_dir, index_dir=index_dir)

    if jax.process_count() == 1:
        return make()
    source = make() if jax.process_index() == 0 else None
    multihost_utils.sync_global_devices(f"index of {name} {split}")
    return source or make()


def _pictures(config: ml_collections.ConfigDict) -> sources.Source:
    """Returns all pictures of a source without splits."""
    data = config.data
    makers = {
        "folder": lambda: sources.folder(data.folder),
        "paired": lambda: sources.paired(data.input_folder, data.target_folder),
        "sample_photos": sources.sample_photos,
    }
    return makers[data.source]()


def reference_source(config: ml_collections.ConfigDict) -> sources.Source:
    """Returns all evaluation pictures, without selecting those of a list.

    Does not read the training pictures if they are in another place.
    """
    data = config.data
    if data.eval_folder:
        return sources.folder(data.eval_folder)
    if data.source == "tfds":
        return _tfds(config, data.tfds_name, data.eval_split)
    return _hold_out(config)[1]


def eval_source(config: ml_collections.ConfigDict) -> sources.Source:
    """Returns the evaluation pictures, the first `eval.num_images` if it is set."""
    source = _listed(config)
    if not config.eval.num_images:
        return source
    return source.select(range(min(config.eval.num_images, len(source))))


def _listed(config: ml_collections.ConfigDict) -> sources.Source:
    """Returns the evaluation pictures that `data.eval_list` names, or all."""
    source, names = reference_source(config), config.data.eval_list
    return sources.restrict(source, names) if names else source


def train_batches(
    config: ml_collections.ConfigDict, *, start_step: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Returns this host's share of the training batches from a step on."""
    return pipeline.train_batches(
        _train_sources(config),
        _task(config, config.task),
        batch_size=config.train.batch_size,
        start_step=start_step,
        min_scale=config.data.min_scale,
        **_options(config),
    )


def _options(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the options that training and evaluation share."""
    return {
        "image_size": config.data.image_size,
        "seed": config.seed,
        "host_index": jax.process_index(),
        "host_count": jax.process_count(),
        "min_side": config.data.min_side,
        "max_broken_share": config.data.max_broken_share,
    }


def eval_batches(
    config: ml_collections.ConfigDict,
    task: str,
    *,
    source: sources.Source | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns this host's share of the batches of `source` or `eval_source`."""
    source = eval_source(config) if source is None else source
    square, holes = images.center_square, None
    if config.eval.protocol == "i2sb":
        square = images.torchvision_square
    if config.eval.mask_file and task == "inpaint":
        holes = _official_masks(config, len(source))
    return _eval_batches(
        config, source, _eval_task(config, task), square=square, holes=holes
    )


def _official_masks(config: ml_collections.ConfigDict, count: int) -> np.ndarray:
    """Returns the masks of the first pictures, in the order of their list."""
    path = config.eval.mask_file
    share = config.eval.inpaint_mask.removeprefix("free_form_")
    found, listed = mask_file.read(path, share), len(_listed(config))
    if len(found) != listed:
        raise ConfigError(
            f"expected a mask for each of {listed:,} pictures, in the same order, got"
            f" {len(found):,} in {path}; add --config.data.eval_list=ctest10k.txt, the"
            " list of the masks"
        )
    return found[:count]


def held_out_batches(
    config: ml_collections.ConfigDict,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns a few evaluation pictures, degraded as in training, for previews."""
    source = _listed(config)
    source = source.select(range(min(config.data.num_eval, len(source))))
    return _eval_batches(config, source, _task(config, config.task))


def _eval_batches(
    config: ml_collections.ConfigDict,
    source: sources.Source,
    task: tasks.Task,
    **options: Any,
) -> Iterator[dict[str, np.ndarray]]:
    batch_size = config.eval.batch_size
    return pipeline.eval_batches(
        source, task, batch_size=batch_size, **_options(config), **options
    )
