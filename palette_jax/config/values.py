"""Reads a ConfigDict from JSON, and lists its keys and tasks."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from palette_jax.errors import UserError
from palette_jax.tasks import TASKS

# Keys that older runs lack, with the value of their behaviour.
_ADDED_LATER = {
    "data.eval_folder": "",
    "data.gray": "luma",
    "data.held_out_below": 0,
    "data.hints": False,
    "mix.superres": 0.0,
    "mix.old_photo": 0.0,
    "diffusion.objective": "denoise",
    "distill.teacher": "",
    "distill.steps": 0,
    "distill.teacher_steps": 64,
    "diffusion.schedule": "linear",
    "model.patch_size": 1,
    "optim.decay_steps": 0,
    "optim.muon": False,
    "eval.mask_file": "",
    "eval.protocol": "paper",
    "parallel.compile": "jit",
    "parallel.slices": 0,
    "sample.spacing": 0.0,
    "train.checkpoint_minutes": 0.0,
}


class ConfigError(UserError):
    """A config that cannot be run; the message says what to change."""


def task_names(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the tasks of a model."""
    if config.task != "multitask":
        return [config.task]
    return [name for name in TASKS if config.mix.get(name, 0) > 0]


def flatten(values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yields the values of a nested dict under names such as `data.image_size`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", item) for key, item in flatten(value))
        else:
            yield name, value


def from_dict(values: Any) -> ml_collections.ConfigDict:
    """Converts a config from JSON to a locked ConfigDict.

    Keys added since the checkpoint was written get the value that changes nothing.

    Raises:
      ConfigError: for the config of a newer version, or of another program.
    """
    from palette_jax.config import base  # Which imports this file.

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(item) for name, item in value.items()}
        return tuple(value) if isinstance(value, list) else value

    # `distill` is a group that older runs do not have.
    filled = {"distill": {}, **plain(values)} if isinstance(values, Mapping) else {}
    for key, value in _ADDED_LATER.items():
        group, name = key.split(".")
        if isinstance(filled.get(group), dict):
            filled[group].setdefault(name, value)
    known = dict(flatten(base.get_config().to_dict()))
    if problem := _problem(dict(flatten(filled)), known):
        raise ConfigError(
            "expected the config of a run of this version of palette_jax or an earlier"
            f" one, got {problem}; update palette_jax, correct an edited config, or"
            " name another run"
        )
    return ml_collections.ConfigDict(filled).lock()


def _problem(given: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Returns what makes a config unusable, or nothing."""
    for key, value in known.items():
        kind = (int, float) if isinstance(value, float) else type(value)
        if key not in given:
            return f"one without {key}"
        if not isinstance(given[key], kind):
            return f"{given[key]!r} for {key}"
    for key in given.keys() - known.keys():
        # Outside of `model`, users may add keys with names of their own.
        guess = nearest(key, known, cutoff=0.85)
        if guess or key.startswith("model."):
            return f"the unknown key {key}{guess}"
    return ""


def nearest(word: str, words: Iterable[str], *, cutoff: float = 0.5) -> str:
    """Returns `; did you mean ...?` if one of the words is close, else nothing."""
    match = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return f"; did you mean {match[0]!r}?" if match else ""
