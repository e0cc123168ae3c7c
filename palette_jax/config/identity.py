"""The identity of a run: the keys that determine its weights and its results.

It decides whether a run may be resumed with another config, and whether two numbers may
be compared.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import ml_collections

from palette_jax.config.values import ConfigError, flatten, task_names

# Of the groups that define the meaning of the weights, the keys that change only the
# cost or the regularization of a step. Adam cannot continue from Muon's state.
_MEANING = (
    *("model.", "diffusion.", "distill.steps", "distill.teacher_steps"),
    *("data.gray", "data.hints", "data.image_size", "optim.muon"),
)
_NOT_MEANING = ("model.dtype", "model.remat", "model.dropout")

# Keys that do not change the results of given weights. Pictures are identified by their
# names and content, so the folders may move.
_NOT_PROTOCOL = (
    "data.eval_folder",
    "data.extra_",
    "data.folder",
    "data.hints",
    "data.input_folder",
    "data.max_broken_share",
    "data.min_scale",
    "data.target_folder",
    "data.tfds_dir",
    "data.train_split",
    "distill.",
    "eval.batch_size",
    "eval.mask_file",  # Its content counts.
    "eval.protocol",  # The hash of pictures covers it.
    "mix.",
    "model.dropout",
    "model.remat",
    "optim.",
    "parallel.",
    "task",
    "train.",
    "variant",
)


# The version of the code that restores and measures. Raise it if numbers change, so
# that results of older code are not reused.
CODE = 3


def meaning(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the meaning of the weights: architecture, objective, schedule, tasks.

    They cannot change during a run.
    """
    values = {
        key: value
        for key, value in flatten(config.to_dict())
        if key.startswith(_MEANING) and key not in _NOT_MEANING
    }
    return {**values, "tasks": tuple(task_names(config))}


def network(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the part of `meaning` that a student shares with its teacher."""
    values = meaning(config)
    prefixes = (
        "model.",
        "diffusion.objective",
        "diffusion.schedule",
        "data.image_size",
    )
    return {key: value for key, value in values.items() if key.startswith(prefixes)}


def protocol(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the keys that determine the results of given weights."""
    values = flatten(config.to_dict())
    return {key: value for key, value in values if not key.startswith(_NOT_PROTOCOL)}


def digest(values: Any) -> str:
    """Returns a 16-digit hash of values that JSON can hold."""
    text = json.dumps(values, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Returns `key: expected ..., got ...` for each key whose value differs."""
    return [
        f"{key}: expected {before.get(key)!r}, got {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def check_resume(
    before: ml_collections.ConfigDict, now: ml_collections.ConfigDict, place: Any
) -> list[str]:
    """Returns the allowed changes since a run was started, one line for each key.

    Raises:
      ConfigError: if the change would give the weights another meaning, or other
        pictures would be held out.
    """
    changed = changes(meaning(before), meaning(now))
    if changed:
        raise ConfigError(
            f"expected the model that {place} was started with, got another:"
            f" {'; '.join(changed)}; use another --workdir, or the old values; to"
            " continue from these weights with another task or size, `palette-jax"
            " export` them and `palette-jax import` the file"
        )
    bound = before.data.held_out_below
    if now.data.held_out_below not in (0, bound):
        raise ConfigError(
            f"expected data.held_out_below={bound}, with which {place} was started,"
            f" got {now.data.held_out_below}, which would train on held-out pictures;"
            " leave it out"
        )
    flat = [dict(flatten(config.to_dict())) for config in (before, now)]
    return changes(*flat)
