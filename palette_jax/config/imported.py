"""The run of imported weights: its config, its checkpoint and its config file."""

import pprint
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from palette_jax.config import base, build
from palette_jax.config.values import from_dict
from palette_jax.errors import UserError
from palette_jax.interop.mapping import Imported
from palette_jax.training.checkpoint_writer import CheckpointWriter
from palette_jax.training.state import make_state

# Written into the folder of the run, for further training.
_CONFIG_FILE = '''\
"""Continues training of imported weights, described in import_report.txt.

    python main.py --config=DIR/config.py --workdir=DIR

Batch sizes and step counts are those of the variant in config/base.py.
"""

import ml_collections

from palette_jax.configs import {task}

IMPORTED = {groups}


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant with the imported network."""
    config = {task}.get_config(variant)
    for group, values in IMPORTED.items():
        config[group].update(values)
    return config
'''


def make_config(
    values: Mapping[str, Any], task: str | None
) -> ml_collections.ConfigDict:
    """Returns a complete config for the network of a file.

    Args:
      values: of the groups of config/base.py; a complete config, with a task, for our
        own exports.
      task: of the network, unless the config contains it.

    Raises:
      UserError: if our own export has a configuration of another version.
    """
    try:
        if "task" in values:
            config = from_dict(values)
            return _with_task(config, task) if task else config
        config = base.get_config()
        for group, changes in values.items():
            config[group].update(changes)
        return _with_task(config, task or "inpaint")
    except (AttributeError, LookupError, TypeError) as error:
        raise UserError(
            f"expected a configuration with the keys of this version, got {error};"
            " export the weights again"
        ) from error


def _with_task(
    config: ml_collections.ConfigDict, task: str
) -> ml_collections.ConfigDict:
    config.task = task
    if task == "paired":
        config.data.source = "paired"
    return config


def save(
    imported: Imported, config: ml_collections.ConfigDict, out: epath.Path
) -> None:
    """Writes the weights as the checkpoint of step 0 of a run."""
    optimizer = build.make_optimizer(config)
    shapes = jax.eval_shape(lambda p: make_state(p, optimizer), imported.params)
    # Step and moments of Adam start at zero, and numpy's zeros take no memory.
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = state.replace(params=imported.params, ema_params=imported.params)
    with CheckpointWriter(out / "checkpoints") as writer:
        writer.save(state, config.to_dict(), None)


def config_file(imported: Imported, config: ml_collections.ConfigDict) -> str:
    """Returns a config file that continues the training."""
    groups = {
        group: {key: config[group][key] for key in imported.config[group]}
        for group in ("model", "diffusion", "sample", "mix")
        if group in imported.config
    }
    keys = ("image_size", "hints", "gray")
    groups["data"] = {key: config.data[key] for key in keys}
    # The variants have other objectives; the imported network keeps its own.
    learned = {"objective": config.diffusion.objective}
    groups["diffusion"] = groups.get("diffusion", {}) | learned
    # With clipping, the state of the optimizer is of another form.
    groups["optim"] = {"clip_norm": config.optim.clip_norm}
    return _CONFIG_FILE.format(task=config.task, groups=pprint.pformat(groups))
