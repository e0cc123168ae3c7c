"""Checks of the values of a config."""

import math
import re
from typing import Any

import ml_collections

from palette_jax.config.limits import MAX_WIDTH, NAMES, RANGES
from palette_jax.config.values import ConfigError, flatten, nearest
from palette_jax.tasks import TASKS

_MASK_SIZE = 256  # Of the official masks.


def check_values(config: ml_collections.ConfigDict, *, trains: bool = True) -> None:
    """Raises `ConfigError` for invalid values and combinations of values."""
    _check_names(config)
    _check_ranges(config)
    _check_folders(config, trains)
    _check_sources(config)
    _check_network(config)
    _check_masks(config)
    if config.distill.steps:
        _check_student(config)


def _check_masks(config: ml_collections.ConfigDict) -> None:
    mask, size = config.eval.inpaint_mask, config.data.image_size
    if not config.eval.mask_file:
        return
    if not mask.startswith("free_form_"):
        raise ConfigError(
            "expected eval.inpaint_mask to name a share of eval.mask_file, got"
            f" {mask}; take e.g. --config.eval.inpaint_mask=free_form_20_30"
        )
    if size != _MASK_SIZE:
        raise ConfigError(
            f"expected pictures of {_MASK_SIZE} pixels with eval.mask_file, got {size};"
            ' draw strokes instead with --config.eval.mask_file=""'
        )


def _check_names(config: ml_collections.ConfigDict) -> None:
    values = dict(flatten(config.to_dict()))
    for key, valid in NAMES.items():
        if values[key] not in valid:
            guess = nearest(str(values[key]), valid)
            take = re.findall("'(.+)'", guess) or [valid[0]]
            raise ConfigError(
                f"expected {key} out of {', '.join(valid)}, got {values[key]!r}{guess};"
                f" take e.g. --config.{key}={take[0]}"
            )


def _check_ranges(config: ml_collections.ConfigDict) -> None:
    values = dict(flatten(config.to_dict()))
    for key, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"expected finite numbers for {key}, got {value}")
    for (smallest, largest), keys in RANGES.items():
        for key in keys:
            if not smallest <= values[key] <= largest:  # NaN is in no range.
                raise ConfigError(
                    f"expected {key} >= {smallest} and <= {largest}, got {values[key]}"
                )


def _check_folders(config: ml_collections.ConfigDict, trains: bool) -> None:
    needs = {"folder": ["folder"], "paired": ["input_folder", "target_folder"]}
    if config.data.eval_folder and not trains:
        return  # Those are all the pictures that are read.
    for key in needs.get(config.data.source, []):
        if not config.data[key]:
            take = key if trains or key != "folder" else "eval_folder"
            raise ConfigError(
                f"expected data.{key} with data.source={config.data.source}, got none;"
                f" add --config.data.{take}=..."
            )


def _check_sources(config: ml_collections.ConfigDict) -> None:
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
            "expected both task and data.source to be paired, or neither, got"
            f" task={config.task} and data.source={config.data.source}; write"
            " --config=paired, or another --config and no data.source=paired"
        )
    if config.task == "multitask":
        unknown = set(config.mix) - set(TASKS)
        weights = [config.mix[name] for name in config.mix]
        if unknown or min(weights) < 0 or not 0 < sum(weights) <= 1e9:
            raise ConfigError(
                "expected weights >= 0, with a sum above 0 and up to 1e9, for tasks out"
                f" of {', '.join(TASKS)} in mix, got {config.mix.to_dict()}"
            )


def _check_network(config: ml_collections.ConfigDict) -> None:
    model, size = config.model, config.data.image_size
    levels = len(model.feature_multipliers)
    multiple = model.patch_size * 2 ** (levels - 1)
    if size % multiple or size < 1:
        raise ConfigError(
            f"expected data.image_size to be a multiple of {multiple}, because"
            f" {levels} levels halve it {levels - 1} times (and model.patch_size is"
            f" {model.patch_size}), got {size}; take"
            f" --config.data.image_size={max(round(size / multiple), 1) * multiple}, or"
            " fewer model.feature_multipliers"
        )
    for key in ("feature_multipliers", "attn_resolutions"):
        numbers = model[key]
        if not all(isinstance(n, int | float) and n <= MAX_WIDTH for n in numbers):
            raise ConfigError(
                f"expected numbers up to {MAX_WIDTH} for model.{key}, got {numbers}"
            )
    features = [round(model.base_features * m) for m in model.feature_multipliers]
    if not features or not 1 <= min(features) <= max(features) <= MAX_WIDTH:
        raise ConfigError(
            "expected at least one level in model.feature_multipliers, each with 1 to"
            f" {MAX_WIDTH} channels, got {model.feature_multipliers}"
        )
    sizes = [size // model.patch_size >> level for level in range(levels)]
    attended = [
        count
        for count, here in zip(features, sizes, strict=True)
        if here in model.attn_resolutions or here == sizes[-1]  # The middle.
    ]
    if model.num_heads and any(count % model.num_heads for count in attended):
        raise ConfigError(
            f"expected model.num_heads to divide {attended}, the channels of the"
            f" levels with attention, got {model.num_heads}; take"
            f" --config.model.num_heads={math.gcd(model.num_heads, *attended)}"
        )
    odd = [c for c in attended if c % max(c // model.head_features, 1)]
    if not model.num_heads and odd:
        raise ConfigError(
            f"expected heads of {model.head_features} channels (model.head_features)"
            f" that divide {attended}, the channels of the levels with attention, got"
            f" {odd[0]}; take --config.model.head_features={math.gcd(*attended)}"
        )
    for resolution in model.attn_resolutions:
        if resolution not in sizes:
            raise ConfigError(
                f"expected model.attn_resolutions out of {sizes}, the sizes of the"
                f" levels in pixels, got {resolution}; take e.g."
                f" --config.model.attn_resolutions={sizes[-1]}"
            )


def _check_student(config: ml_collections.ConfigDict) -> None:
    """Raises `ConfigError` if a student cannot be trained or sampled so."""
    distill, sample = config.distill, config.sample
    if not distill.teacher:
        raise ConfigError(
            f"expected a teacher with distill.steps={distill.steps}, got none; train"
            " students with `palette-jax distill RUN`"
        )
    if config.diffusion.objective == "regress":
        raise ConfigError(
            "expected a teacher that takes steps, got one of objective 'regress', which"
            " takes one already"
        )
    if distill.teacher_steps % distill.steps:
        raise ConfigError(
            "expected distill.teacher_steps to be a multiple of the student's"
            f" {distill.steps} steps, got {distill.teacher_steps}; take e.g."
            f" --config.distill.teacher_steps={16 * distill.steps}"
        )
    if config.parallel.compile != "jit":
        raise ConfigError(
            f"expected parallel.compile='jit' for a student, got"
            f" {config.parallel.compile!r}; take --config.parallel.compile=jit"
        )
    for key, value in student_sampling(distill.steps).items():
        if sample[key] != value:
            raise ConfigError(
                f"expected sample.{key}={value!r}, which the student was distilled"
                f" for, got {sample[key]!r}; take --config.sample.{key}={value}, or the"
                " teacher"
            )


def student_sampling(num_steps: int) -> dict[str, Any]:
    """Returns the keys of `sample` with which a student is sampled."""
    return {
        "sampler": "ddim",
        "num_steps": num_steps,
        "spacing": 1.0,  # With a handful of steps, even ones are best.
        "schedule": "trimmed",
        "eta": 0.0,
    }


def check_batch(config: ml_collections.ConfigDict, num_devices: int) -> None:
    """Raises `ConfigError` for batches that the devices cannot share equally."""
    fsdp, accumulate = config.parallel.fsdp, config.optim.accumulate
    if fsdp > 1 and config.parallel.compile == "pmap":
        raise ConfigError(
            "expected parallel.fsdp=1 with parallel.compile=pmap, which keeps the"
            f" parameters whole on each device, got {fsdp}; take"
            " --config.parallel.compile=jit"
        )
    slices = config.parallel.slices or 1
    if num_devices % slices:
        raise ConfigError(
            f"expected parallel.slices to divide the {num_devices} devices, got"
            f" {slices}; set it to 0 to read it from the devices"
        )
    if fsdp < 1 or num_devices // slices % fsdp:
        raise ConfigError(
            f"expected parallel.fsdp to divide the {num_devices // slices} devices of a"
            f" slice, got {fsdp}; take --config.parallel.fsdp=1"
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
                f" parts), got {batch_size}; take"
                f" --config.{key}={enough}"
            )
