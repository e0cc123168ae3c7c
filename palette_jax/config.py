"""A ConfigDict as a file holds it, and what is said of its keys."""

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from palette_jax.errors import UserError

TASKS = ("colorize", "inpaint", "uncrop", "jpeg", "paired")


# Keys that older runs do not have, with the value that means what those did.
_ADDED_LATER = {
    "data.eval_folder": "",
    "diffusion.objective": "denoise",
    "parallel.compile": "jit",
    "train.checkpoint_minutes": 0.0,
}


# Keys by the smallest and the largest value that something can be done with.
_RANGES = {
    (0, 1): (
        *("data.extra_weight", "data.max_broken_share", "model.dropout", "optim.b1"),
        *("optim.b2", "optim.ema_decay", "sample.eta"),
    ),
    (1e-3, 1): ("data.min_scale",),
    (1e-12, 0.999): (
        *("diffusion.beta_min", "diffusion.beta_max"),
        *("sample.beta_min", "sample.beta_max"),
    ),
    (1, 100): ("eval.jpeg_quality",),
    (0, math.inf): (
        *("eval.num_images", "model.num_heads", "optim.clip_norm"),
        *("optim.learning_rate", "optim.warmup_steps"),
    ),
    (1, math.inf): (
        *("data.min_side", "data.num_eval", "diffusion.num_steps", "eval.batch_size"),
        *("model.base_features", "model.head_features", "model.norm_groups"),
        *("model.num_res_blocks", "optim.accumulate", "sample.num_samples"),
        *("sample.num_steps", "train.batch_size", "train.checkpoint_every"),
        *("train.keep", "train.log_every", "train.num_previews", "train.num_steps"),
        "train.preview_every",
    ),
}


class ConfigError(UserError):
    """A config that cannot be run; the message says what to change."""


def check_ranges(config: ml_collections.ConfigDict) -> None:
    """Raises `ConfigError` for a number that nothing can be done with."""
    values = dict(flatten(config.to_dict()))
    for (smallest, largest), keys in _RANGES.items():
        for key in keys:
            if not smallest <= values[key] <= largest:  # NaN is in no range.
                end = f" and <= {largest}" if largest < math.inf else ""
                raise ConfigError(
                    f"expected {key} >= {smallest}{end}, got {values[key]}"
                )


def task_names(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the tasks a model is trained for, and evaluated on one by one."""
    if config.task != "multitask":
        return [config.task]
    return [name for name in TASKS if config.mix.get(name, 0) > 0]


def differences(
    before: ml_collections.ConfigDict, now: ml_collections.ConfigDict
) -> list[str]:
    """Returns a line for each key whose value is not the same."""
    flat = [dict(flatten(config.to_dict())) for config in (before, now)]
    return [
        f"{key}: expected {flat[0].get(key)!r}, got {flat[1].get(key)!r}"
        for key in sorted(flat[0].keys() | flat[1].keys())
        if flat[0].get(key) != flat[1].get(key)
    ]


def flatten(values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yields the values of a nested dict under names such as `data.image_size`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", item) for key, item in flatten(value))
        else:
            yield name, value


def from_dict(values: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Turns the config of a checkpoint, JSON by now, back to a locked ConfigDict.

    What has been added since the checkpoint was written gets the value that changes
    nothing.
    """

    def tuples(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: tuples(item) for name, item in value.items()}
        return tuple(value) if isinstance(value, list) else value

    config = ml_collections.ConfigDict(tuples(values))
    for key, value in _ADDED_LATER.items():
        group, name = key.split(".")
        config[group][name] = config[group].get(name, value)
    return config.lock()


def nearest(word: str, words: Iterable[str]) -> str:
    """Returns `; did you mean ...?` if one of the words is close, else nothing."""
    match = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
