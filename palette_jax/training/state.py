"""The state of a run between two steps."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from palette_jax.types import Params


class TrainState(flax.struct.PyTreeNode):
    """The state of a run, as stored in a checkpoint.

    Attributes:
      step: number of batches, including skipped ones; the position in the data.
      ema_params: their moving average, used everywhere except in training.
      opt_state: the optimizer's moments and counts.
      bad_steps: number of skipped steps in a row up to this one.
    """

    step: Any  # A scalar; Any, because trees of shardings have this form too.
    params: Params
    ema_params: Params
    opt_state: optax.OptState
    bad_steps: Any


def make_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        # A copy: donating one buffer under two names would be refused.
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        bad_steps=jnp.zeros((), jnp.int32),
    )
