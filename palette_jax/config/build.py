"""Builds objects from a ConfigDict; call `check` first.

`check` reports every mistake that the config alone shows, before a device is touched or
a picture is read.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import logging
from jaxtyping import Array

from palette_jax import parallel
from palette_jax.config import checks
from palette_jax.config.values import ConfigError
from palette_jax.diffusion import samplers, schedules
from palette_jax.models.unet import UNet
from palette_jax.restoration.batch import image_keys, predictor, restore_batch
from palette_jax.restoration.settings import FEWEST_DDPM_STEPS
from palette_jax.training.optimizer import make_optimizer as _adam
from palette_jax.types import Params, PredictFn

# The exponent that a sampler's steps are spaced by, unless the config has another one.
SPACING = {"ddpm": 1.0, "ddim": 1.5, "dpmpp_2m": 1.5, "unipc_2": 1.5, "unipc_3": 1.5}
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check(
    config: ml_collections.ConfigDict,
    *,
    num_devices: int | None = None,
    trains: bool = True,
) -> None:
    """Raises `ConfigError` for mistakes that can be found before anything runs.

    Args:
      config: to check.
      num_devices: that batches are split over, None if it is not known.
      trains: whether the pictures to train on are read.
    """
    checks.check_values(config, trains=trains)
    for group in ("diffusion", "sample"):
        low, high = config[group].beta_min, config[group].beta_max
        if low > high:
            raise ConfigError(
                f"expected {group}.beta_min <= {group}.beta_max, got {low} and {high}"
            )
    if schedule_end(config) > 1e-4:
        raise ConfigError(
            "expected a training schedule that ends in noise, a last gamma below 1e-4,"
            f" got {schedule_end(config):.2g}; take e.g."
            f" --config.diffusion.{_enough(config.diffusion.num_steps)}"
        )
    sampler = make_sampler(config)
    if sampler.gamma[0] > 1e-4:
        raise ConfigError(
            "expected a sampling schedule that starts from noise, a first gamma below"
            f" 1e-4, got {sampler.gamma[0]:.2g}; take e.g."
            " --config.sample.beta_max=0.09"
        )
    if num_devices is not None:
        checks.check_batch(config, num_devices)
        _warn(config)  # Once: a command checks first without the devices.


def _warn(config: ml_collections.ConfigDict) -> None:
    sample = config.sample
    if (
        sample.sampler == "ddpm"
        and sample.variance == "large"
        and sample.num_steps < FEWEST_DDPM_STEPS
    ):
        logging.warning(
            "sample.sampler=ddpm with %d steps and the large variance leaves colour"
            " noise; take --config.sample.sampler=unipc_2, or %d steps or more",
            sample.num_steps,
            FEWEST_DDPM_STEPS,
        )
    data = config.data
    trained = {"extra_folder": data.extra_folder}
    if data.source == "folder":
        trained["folder"] = data.folder
    # Without a folder of their own, held-out pictures are in data.folder.
    key = "eval_folder" if data.eval_folder else "folder"
    measured = data.eval_folder or trained.pop("folder", "")
    for other, folder in trained.items():
        if measured and folder and _overlap(measured, folder):
            logging.warning(
                "data.%s=%s and data.%s=%s hold the same pictures, so held-out"
                " pictures are also trained on; take another folder",
                *(key, measured, other, folder),
            )


def _overlap(one: str, other: str) -> bool:
    """Whether one of two folders lies in the other, or they are equal."""
    one, other = (
        path.rstrip("/") if "://" in path else os.path.realpath(path)
        for path in (one, other)
    )
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _enough(num_steps: int) -> str:
    """Returns a key whose value brings the last gamma below 1e-4."""
    if num_steps < 30:  # No beta does.
        return "num_steps=2000"
    return f"beta_max={min(round(25 / num_steps, 4), 0.999)}"


def schedule_end(config: ml_collections.ConfigDict) -> float:
    """Returns the smallest gamma that the network is trained on."""
    return float(make_schedule(config).gamma[-1])


def make_schedule(config: ml_collections.ConfigDict) -> schedules.NoiseSchedule:
    """Builds the noise levels to train on."""
    diffusion = config.diffusion
    if diffusion.schedule == "log_normal":
        return schedules.log_normal_schedule(diffusion.num_steps)
    return schedules.linear_schedule(
        diffusion.num_steps, diffusion.beta_min, diffusion.beta_max
    )


def make_sampler(config: ml_collections.ConfigDict) -> samplers.Sampler:
    """Builds the sampler with its schedule."""
    sample = config.sample
    if config.diffusion.objective == "regress":  # One pass, whatever `sample` says.
        return samplers.ddim(schedules.respace(make_schedule(config), 1))
    schedule = sampling_schedule(config, sample.num_steps)
    makers = {
        "ddpm": functools.partial(samplers.ddpm, variance=sample.variance),
        "ddim": functools.partial(samplers.ddim, eta=sample.eta),
        "dpmpp_2m": samplers.dpmpp_2m,
        "unipc_2": functools.partial(samplers.unipc, order=2),
        "unipc_3": functools.partial(samplers.unipc, order=3),
    }
    return makers[sample.sampler](schedule)


def sampling_schedule(
    config: ml_collections.ConfigDict, num_steps: int
) -> schedules.NoiseSchedule:
    """Builds the noise levels to sample at, the curve in `num_steps` steps."""
    # The paper's 1000 steps define the curve.
    sample = config.sample
    curve = schedules.linear_schedule(1000, sample.beta_min, sample.beta_max)
    floor = schedule_end(config) if sample.schedule == "trimmed" else 0.0
    exponent = sample.spacing or SPACING[sample.sampler]
    return schedules.respace(curve, num_steps, gamma_floor=floor, exponent=exponent)


def make_predictor(
    config: ml_collections.ConfigDict, *, mesh: jax.sharding.Mesh | None = None
) -> Callable[[Params], PredictFn]:
    """Returns `weights -> predict`; reuse it, since each one is compiled.

    Args:
      config: of the network.
      mesh: that batches are split over; None inside a program that has one.
    """
    network = make_network(config)

    def apply(params: Params, x: Array, y_t: Array, gamma: Array) -> Array:
        output: Any = network.apply({"params": params}, x, y_t, gamma)
        return output

    return functools.partial(
        predictor,
        parallel.in_mesh(apply, mesh) if mesh else apply,
        objective=config.diffusion.objective,
        gamma_floor=schedule_end(config),
        patch_size=config.model.patch_size,
    )


def make_network(config: ml_collections.ConfigDict) -> UNet:
    """Builds the network, without parameters; its fields are the keys of `model`."""
    fields = {key: config.model[key] for key in config.model}
    fields |= {key: tuple(v) for key, v in fields.items() if isinstance(v, list)}
    fields["dtype"] = _DTYPES[config.model.dtype]
    return UNet(**fields, image_size=config.data.image_size)


def init_params(key: jax.Array, config: ml_collections.ConfigDict) -> Params:
    """Draws the parameters of the network."""
    size = config.data.image_size
    image = jnp.zeros((1, size, size, 3))
    return make_network(config).init(key, image, image, jnp.ones((1,)))["params"]


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Builds Adam, or Muon."""
    optim = config.optim
    return _adam(
        optim.learning_rate,
        optim.warmup_steps,
        num_steps=config.train.num_steps,
        decay_steps=optim.decay_steps,
        b1=optim.b1,
        b2=optim.b2,
        clip_norm=optim.clip_norm or None,
        muon=optim.muon,
    )


def make_mesh(
    config: ml_collections.ConfigDict, *, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
    """Arranges all devices, or those given, as `parallel` says."""
    layout = config.parallel
    return parallel.make_mesh(fsdp=layout.fsdp, slices=layout.slices, devices=devices)


def make_restore(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> Callable[..., np.ndarray]:
    """Returns `restore(params, batch, sample_index=0)`: the host's share, as bytes."""
    bind, sampler = make_predictor(config, mesh=mesh), make_sampler(config)

    def restore(
        params: Params, batch: Mapping[str, np.ndarray], sample_index: int = 0
    ) -> np.ndarray:
        arrays = {name: batch[name] for name in ("x", "hole", "id")}
        arrays = parallel.to_global(mesh, arrays)
        return parallel.to_host(
            restore_batch(
                image_keys(config.seed, arrays["id"], sample_index=sample_index),
                bind(params),
                arrays["x"],
                arrays["hole"],
                sampler,
                clip=config.sample.clip,
                compiler_options=parallel.compiler_options(mesh),
            )
        )

    return restore
