"""A run with an untrained network, for the commands that restore pictures."""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

from palette_jax import cli
from palette_jax.config import build
from palette_jax.configs import multitask
from palette_jax.training.checkpoint_writer import CheckpointWriter
from palette_jax.training.state import make_state


def save_run(
    folder: pathlib.Path,
    *,
    weight: float = 0.1,
    attn_resolutions: tuple = (),
    data: Mapping[str, Any] | None = None,
    fsdp: int = 1,
) -> pathlib.Path:
    """Writes a checkpoint whose weights are all drawn at random."""
    config = multitask.get_config("tiny")
    config.data.update({"image_size": 8, **(data or {})})
    config.parallel.fsdp = fsdp
    config.model.base_features = 8
    config.model.feature_multipliers = (1, 2)
    config.model.attn_resolutions = attn_resolutions
    config.model.num_heads = 1
    config.model.norm_groups = 4
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
    params = jax.tree.map(
        lambda leaf: rng.normal(0, weight, leaf.shape).astype(np.float32), shapes
    )
    state = make_state(params, build.make_optimizer(config))
    with CheckpointWriter(folder / "checkpoints") as writer:
        writer.save(state, config.to_dict(), 1.0)
    return folder


def command(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    """Runs `palette-jax ARGS`; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["palette-jax", *map(str, args)])
    try:
        return cli.main()
    except SystemExit as error:  # Of argparse.
        return int(error.code or 0)
