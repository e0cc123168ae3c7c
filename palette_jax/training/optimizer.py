"""Adam with a linear warm-up, as in the paper (section 3), a decay, and Muon."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from optax import contrib

from palette_jax.types import Params


def make_optimizer(
    learning_rate: float,
    warmup_steps: int,
    *,
    num_steps: int = 0,
    decay_steps: int = 0,
    b1: float = 0.9,
    b2: float = 0.999,
    clip_norm: float | None = None,
    muon: bool = False,
) -> optax.GradientTransformation:
    """Returns Adam; its rate rises linearly, stays, and falls linearly to 0 at the end.

    The paper has no decay. A decay over the last part of a run (warm-up, stable, decay:
    Hu et al. 2024, section 4) can move: to train for more steps, resume a run from a
    checkpoint before the decay.

    Args:
      learning_rate: the constant value.
      warmup_steps: number of steps until the constant value; 0 starts with it.
      num_steps: of the run; only for the decay.
      decay_steps: the last steps, over which the rate falls; 0 for no decay.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      clip_norm: scales larger gradients down to this norm; None for no clipping.
      muon: updates the kernels inside the network by orthogonal matrices (Jordan et al.
        2024), scaled to the size of Adam's steps (Liu et al. 2025, equation 4), so that
        both use the same rate; all others by Adam with Nesterov's momentum.
    """

    def rate(count: Any) -> Any:
        # The rate of the first step is above 0: otherwise its batch would be wasted.
        share = jnp.minimum((count + 1.0) / max(warmup_steps, 1), 1.0)
        if decay_steps:
            share = jnp.minimum(share, (num_steps - count) / decay_steps)
        return learning_rate * jnp.maximum(share, 0.0)

    # The state has the same form with and without clipping, so that a run can switch.
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    if not muon:
        return optax.chain(clip, optax.adam(rate, b1=b1, b2=b2))
    rule = contrib.muon(
        rate,
        adam_b1=b1,
        adam_b2=b2,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=_matrices,
    )
    return optax.chain(clip, rule)


def _matrices(params: Params) -> Params:
    """Returns the matrix axes of each kernel; None for parameters of Adam.

    Muon is for products of features with features: not for the first and the last
    layer, which read and write pixels, and not for biases.
    """

    def matrix(path: tuple[Any, ...], leaf: Array) -> Any:
        if leaf.ndim < 2 or path[0].key in ("conv_in", "conv_out"):
            return None
        return contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(matrix, params)


def ema_decay_at(step: Int[Array, ""], decay: float) -> Float[Array, ""]:
    """Returns the decay of the averaged weights, small at first.

    With the full decay from the start, the average of a short run would consist mostly
    of its random initial weights.
    """
    step = step.astype(jnp.float32)
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def update_ema(ema: Params, params: Params, decay: Float[Array, ""]) -> Params:
    """Moves the averaged weights towards the present ones."""
    return jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), ema, params)
