"""Embeddings of the noise level."""

import functools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from palette_jax.models.layers import Dense

_MAX_LOG_SNR = 15.0  # Beyond the precision of float32 for a gamma near 1.


def log_snr_position(gamma: Float[Array, " b"]) -> Float[Array, " b"]:
    """Maps gamma to 0 (clean) .. 1000 (noise), evenly in log-SNR.

    Gamma itself would crowd half of the trained levels into the last thousandth of its
    range. The sinusoids were designed for positions up to 1000 (Vaswani et al. 2017).
    """
    log_snr = jnp.log(gamma) - jnp.log1p(-gamma)
    log_snr = jnp.clip(log_snr, -_MAX_LOG_SNR, _MAX_LOG_SNR)
    return (_MAX_LOG_SNR - log_snr) * (1000.0 / (2 * _MAX_LOG_SNR))


def step_position(gamma: Float[Array, " b"]) -> Float[Array, " b"]:
    """Maps gamma to its step, 0 to 999, in ADM's linear schedule.

    For weights trained with steps (Ho et al. 2020: betas from 1e-4 to 0.02).
    """
    beta = np.linspace(1e-4, 0.02, 1000)
    table = jnp.asarray(-np.cumsum(np.log1p(-beta)), jnp.float32)
    return jnp.interp(-jnp.log(gamma), table, jnp.arange(1000, dtype=jnp.float32))


def sinusoids(
    position: Float[Array, " b"], features: int, *, freq_shift: int = 0
) -> Float[Array, "b f"]:
    """Embeds positions by cosines, then sines, with periods from 2 pi to 20000 pi.

    Args:
      position: of each picture.
      features: number of features, half of them cosines.
      freq_shift: 1 makes the last period exactly 20000 pi, as in Ho et al. (2020); with
        0 that period would be the next one.
    """
    half = features // 2
    frequency = np.exp(-np.log(10000.0) * np.arange(half) / (half - freq_shift))
    angle = position[:, None] * jnp.asarray(frequency, jnp.float32)[None]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class LevelEmbedding(nn.Module):
    """Embeds gamma: sinusoids, then two dense layers, as ADM embeds its step.

    `position` is the argument of the sinusoids: `log_snr`, our default; `step`, of
    ADM's linear schedule; or `gamma`, which varies few of them, for weights trained
    with it.
    """

    base_features: int
    position: Literal["log_snr", "step", "gamma"] = "log_snr"
    freq_shift: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, gamma: Float[Array, " b"]) -> Float[Array, "b emb"]:
        """Returns an embedding of four times the base features."""
        positions = {
            "log_snr": log_snr_position,
            "step": step_position,
            "gamma": lambda gamma: gamma,
        }
        position = positions[self.position](gamma)
        h = sinusoids(position, self.base_features, freq_shift=self.freq_shift)
        dense = functools.partial(
            Dense,
            4 * self.base_features,
            self.dtype,
            nn.initializers.lecun_normal(),
        )
        return dense(name="dense_1")(nn.silu(dense(name="dense_0")(h)))
