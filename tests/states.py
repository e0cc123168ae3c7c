"""Reads what a run has kept."""

import pathlib

import jax
import numpy as np

from palette_jax.config import build
from palette_jax.config.values import from_dict
from palette_jax.training import checkpoints
from palette_jax.training.state import make_state


def newest_state(workdir: pathlib.Path) -> list[np.ndarray]:
    """Returns all that the newest checkpoint of a run holds."""
    directory = workdir / "checkpoints"
    config = from_dict(checkpoints.load_config(directory))
    abstract = jax.eval_shape(
        lambda: make_state(
            build.init_params(jax.random.key(0), config), build.make_optimizer(config)
        )
    )
    restored = checkpoints.restore(directory, abstract)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restored)]


def assert_same_bits(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Raises `AssertionError` where two states are not the same."""
    assert len(got) == len(expected) > 20
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
