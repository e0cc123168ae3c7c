"""From a ConfigDict to objects: the only reader of the config, and its checks.

All that can be known to be wrong from the config alone is said here, before a device
is touched or a picture is read.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array

from palette_jax import parallel
from palette_jax.config import TASKS, ConfigError, check_ranges, nearest
from palette_jax.diffusion import objective, samplers, schedules
from palette_jax.models.unet import UNet
from palette_jax.restoration.batch import (
    image_keys,
    noise_predictor,
    regression_predictor,
    restore_batch,
    velocity_predictor,
)
from palette_jax.training.optimizer import make_optimizer as _adam
from palette_jax.types import Params, PredictNoiseFn

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_MODEL_NAMES = {
    "attention": ("global", "local", "dilated", "more_blocks", "none"),
    "resize": ("block", "conv", "conv_pad_end"),
    "conditioning": ("scale_shift", "shift"),
    "level_position": ("log_snr", "step", "gamma"),
}


# Of each: what is minimized, and how the network is asked when it restores.
_OBJECTIVES = {
    "denoise": (objective.denoising_loss, noise_predictor),
    "velocity": (objective.velocity_loss, velocity_predictor),
    "regress": (objective.regression_loss, regression_predictor),
}


def check(config: ml_collections.ConfigDict, *, num_devices: int | None = None) -> None:
    """Raises `ConfigError` for what can be known to be wrong before anything runs."""
    _check_names(config)
    check_ranges(config)
    _check_network(config)
    for group in ("diffusion", "sample"):
        low, high = config[group].beta_min, config[group].beta_max
        if low > high:
            raise ConfigError(
                f"expected {group}.beta_min <= {group}.beta_max, got {low} and {high}"
            )
    if schedule_end(config) > 1e-4:
        raise ConfigError(
            "expected a training schedule that ends in noise, a last gamma below 1e-4,"
            f" got {schedule_end(config):.2g}; raise diffusion.beta_max or num_steps"
        )
    sampler = make_sampler(config)
    if sampler.gamma[0] > 1e-4:
        raise ConfigError(
            "expected a sampling schedule that starts from noise, a first gamma below"
            f" 1e-4, got {sampler.gamma[0]:.2g}; raise sample.beta_max"
        )
    if num_devices is not None:
        _check_batch(config, num_devices)


def _check_names(config: ml_collections.ConfigDict) -> None:
    _known("task", config.task, (*TASKS, "multitask"))
    _known(
        "data.source", config.data.source, ("tfds", "folder", "paired", "sample_photos")
    )
    _known("model.dtype", config.model.dtype, _DTYPES)
    for name, valid in _MODEL_NAMES.items():
        _known(f"model.{name}", config.model[name], valid)
    _known("diffusion.objective", config.diffusion.objective, _OBJECTIVES)
    _known("diffusion.loss_norm", config.diffusion.loss_norm, ("l1", "l2"))
    _known("parallel.compile", config.parallel.compile, ("jit", "pmap"))
    _known("sample.schedule", config.sample.schedule, ("paper", "trimmed"))
    _known("sample.variance", config.sample.variance, ("large", "small"))
    _known(
        "eval.inpaint_mask",
        config.eval.inpaint_mask,
        ("center", "mixed", "free_form", "rectangles"),
    )
    _known(
        "eval.uncrop_side",
        config.eval.uncrop_side,
        ("left", "right", "top", "bottom", "all", "mixed"),
    )
    needs = {"folder": ["folder"], "paired": ["input_folder", "target_folder"]}
    for key in needs.get(config.data.source, []):
        if not config.data[key]:
            raise ConfigError(
                f"expected data.{key} with data.source={config.data.source}, got none;"
                f" add --config.data.{key}=..."
            )
    if config.data.eval_folder and config.data.source == "paired":
        raise ConfigError(
            "expected no data.eval_folder with data.source=paired, which holds out"
            f" pairs, got {config.data.eval_folder!r}; change the two folders instead"
        )
    extra = [key for key in ("extra_folder", "extra_tfds_name") if config.data[key]]
    if len(extra) > 1 or (extra and config.data.source == "paired"):
        raise ConfigError(
            "expected one extra source, and none beside pairs, got"
            + "".join(f" data.{key}={config.data[key]}" for key in extra)
            + f" with data.source={config.data.source}; leave out one of them"
        )
    if (config.task == "paired") != (config.data.source == "paired"):
        raise ConfigError(
            "expected task and data.source to be paired both or neither, got"
            f" task={config.task} and data.source={config.data.source}"
        )
    if config.task == "multitask":
        unknown = set(config.mix) - set(TASKS)
        weights = [config.mix[name] for name in config.mix]
        if unknown or min(weights) < 0 or sum(weights) == 0:
            raise ConfigError(
                f"expected weights >= 0, not all 0, for tasks out of {', '.join(TASKS)}"
                f" in mix, got {config.mix.to_dict()}"
            )


def _check_network(config: ml_collections.ConfigDict) -> None:
    model, size = config.model, config.data.image_size
    levels = len(model.feature_multipliers)
    multiple = 2 ** (levels - 1)
    if size % multiple or size < 1:
        raise ConfigError(
            f"expected data.image_size to be a multiple of {multiple}, since"
            f" {levels} levels halve it {levels - 1} times, got {size}; take"
            f" {max(round(size / multiple), 1) * multiple}, or fewer"
            " model.feature_multipliers"
        )
    for key in ("feature_multipliers", "attn_resolutions"):
        if not all(isinstance(number, int | float) for number in model[key]):
            raise ConfigError(f"expected numbers for model.{key}, got {model[key]}")
    features = [round(model.base_features * m) for m in model.feature_multipliers]
    if not features or min(features) < 1:
        raise ConfigError(
            "expected at least one level in model.feature_multipliers, each with"
            f" channels, got {model.feature_multipliers}"
        )
    sizes = [size >> level for level in range(levels)]
    attended = [
        count
        for count, here in zip(features, sizes, strict=True)
        if here in model.attn_resolutions or here == sizes[-1]  # The middle.
    ]
    if model.num_heads and any(count % model.num_heads for count in attended):
        raise ConfigError(
            f"expected model.num_heads to divide {attended}, the channels of the"
            f" levels with attention, got {model.num_heads}"
        )
    for resolution in model.attn_resolutions:
        if resolution not in sizes:
            raise ConfigError(
                f"expected model.attn_resolutions out of {sizes}, the sizes of the"
                f" levels in pixels, got {resolution}"
            )


def _check_batch(config: ml_collections.ConfigDict, num_devices: int) -> None:
    fsdp, accumulate = config.parallel.fsdp, config.optim.accumulate
    if fsdp > 1 and config.parallel.compile == "pmap":
        raise ConfigError(
            "expected parallel.fsdp=1 with parallel.compile=pmap, which keeps the"
            f" parameters whole on each device, got {fsdp}; use parallel.compile=jit"
        )
    if fsdp < 1 or num_devices % fsdp:
        raise ConfigError(
            f"expected parallel.fsdp to divide the {num_devices} devices, got {fsdp}"
        )
    for key, parts in (
        ("train.batch_size", num_devices * accumulate),
        ("eval.batch_size", num_devices),
    ):
        group, name = key.split(".")
        batch_size = config[group][name]
        if batch_size % parts:
            enough = math.ceil(batch_size / parts) * parts
            raise ConfigError(
                f"expected {key} to be a multiple of {parts} (devices x accumulated"
                f" parts), got {batch_size}; take {enough}"
            )


def schedule_end(config: ml_collections.ConfigDict) -> float:
    """Returns the smallest gamma that the network is trained on."""
    return float(make_schedule(config).gamma[-1])


def make_schedule(config: ml_collections.ConfigDict) -> schedules.NoiseSchedule:
    """Builds the noise levels to train on."""
    diffusion = config.diffusion
    return schedules.linear_schedule(
        diffusion.num_steps, diffusion.beta_min, diffusion.beta_max
    )


def make_sampler(config: ml_collections.ConfigDict) -> samplers.Sampler:
    """Builds the sampler with its schedule."""
    sample = config.sample
    if config.diffusion.objective == "regress":  # One pass, whatever `sample` says.
        return samplers.ddim(schedules.respace(make_schedule(config), 1))
    # The paper's 1000 steps define the curve; num_steps only says how to walk it.
    curve = schedules.linear_schedule(1000, sample.beta_min, sample.beta_max)
    floor = schedule_end(config) if sample.schedule == "trimmed" else 0.0
    schedule = schedules.respace(curve, sample.num_steps, gamma_floor=floor)
    makers = {
        "ddpm": lambda: samplers.ddpm(schedule, variance=sample.variance),
        "ddim": lambda: samplers.ddim(schedule, eta=sample.eta),
        "dpmpp_2m": lambda: samplers.dpmpp_2m(schedule),
    }
    _known("sample.sampler", sample.sampler, makers)
    return makers[sample.sampler]()


def make_loss(config: ml_collections.ConfigDict) -> objective.ObjectiveFn:
    """Returns what training minimizes."""
    return _OBJECTIVES[config.diffusion.objective][0]


def make_predictor(
    config: ml_collections.ConfigDict,
) -> Callable[[Params], PredictNoiseFn]:
    """Returns `predict_noise` of weights; keep it, since samplers compile for each."""
    network, bind = make_network(config), _OBJECTIVES[config.diffusion.objective][1]

    def apply(params: Params, x: Array, y_t: Array, gamma: Array) -> Array:
        eps: Any = network.apply({"params": params}, x, y_t, gamma)
        return eps

    return functools.partial(bind, apply, gamma_floor=schedule_end(config))


def make_network(config: ml_collections.ConfigDict) -> UNet:
    """Builds the network, without parameters."""
    model = config.model
    return UNet(
        base_features=model.base_features,
        feature_multipliers=tuple(model.feature_multipliers),
        num_res_blocks=model.num_res_blocks,
        attention=model.attention,
        attn_resolutions=tuple(model.attn_resolutions),
        image_size=config.data.image_size,
        head_features=model.head_features,
        num_heads=model.num_heads,
        dropout=model.dropout,
        remat=model.remat,
        dtype=_DTYPES[model.dtype],
        resize=model.resize,
        conditioning=model.conditioning,
        norm_groups=model.norm_groups,
        norm_epsilon=model.norm_epsilon,
        level_position=model.level_position,
        level_freq_shift=model.level_freq_shift,
    )


def init_params(key: jax.Array, config: ml_collections.ConfigDict) -> Params:
    """Draws the parameters of the network."""
    size = config.data.image_size
    image = jnp.zeros((1, size, size, 3))
    return make_network(config).init(key, image, image, jnp.ones((1,)))["params"]


def make_optimizer(
    config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
    """Builds Adam."""
    optim = config.optim
    return _adam(
        optim.learning_rate,
        optim.warmup_steps,
        b1=optim.b1,
        b2=optim.b2,
        clip_norm=optim.clip_norm or None,
    )


def make_restore(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> Callable[..., np.ndarray]:
    """Returns `restore(params, batch, sample_index=0)`: the host's share, as bytes."""
    predictor, sampler = make_predictor(config), make_sampler(config)

    def restore(
        params: Params, batch: Mapping[str, np.ndarray], sample_index: int = 0
    ) -> np.ndarray:
        arrays = {name: batch[name] for name in ("x", "hole", "id")}
        arrays = parallel.to_global(mesh, arrays)
        return parallel.to_host(
            restore_batch(
                image_keys(config.seed, arrays["id"], sample_index=sample_index),
                predictor(params),
                arrays["x"],
                arrays["hole"],
                sampler,
                clip=config.sample.clip,
            )
        )

    return restore


def _known(key: str, value: str, valid: Iterable[str]) -> None:
    valid = list(valid)
    if value not in valid:
        raise ConfigError(
            f"expected {key} out of {', '.join(valid)}, got"
            f" {value!r}{nearest(str(value), valid)}"
        )
