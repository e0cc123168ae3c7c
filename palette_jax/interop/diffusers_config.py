"""Reads our network's fields from the config.json of a diffusers `UNet2DModel`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from palette_jax.errors import WeightsError
from palette_jax.interop import mapping

# The only supported values, which are also the defaults of missing keys.
_ONLY = {
    "_class_name": ("UNet2DModel",),
    "act_fn": ("silu", "swish"),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2D",),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
}
# Schedulers of networks that predict the noise of a discrete schedule. Their sampling
# differs, but is not imported.
_SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
_SCHEDULE = {
    "rescale_betas_zero_snr": (False, None),
    "use_flow_sigmas": (False, None),
    "beta_end": (0.02,),
    "beta_schedule": ("linear",),
    "beta_start": (0.0001,),
    "num_train_timesteps": (1000,),
    "prediction_type": ("epsilon",),
    "trained_betas": (None,),
}
_SCHEDULE_SAID = ("beta_end", "beta_schedule", "beta_start", "prediction_type")
_DEFAULTS = {
    "add_attention": True,
    "attention_head_dim": 8,
    "attn_norm_num_groups": None,
    "block_out_channels": (224, 448, 672, 896),
    "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3),
    "downsample_padding": 1,
    "downsample_type": "conv",
    "dropout": 0.0,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "layers_per_block": 2,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "resnet_time_scale_shift": "default",
    "sample_size": None,
    "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"),
    "upsample_type": "conv",
}
# Whether a block has attention, and how it resizes; None: by the config.
_DOWN = {
    "DownBlock2D": (False, "conv"),
    "AttnDownBlock2D": (True, None),
    "ResnetDownsampleBlock2D": (False, "resnet"),
}
_UP = {
    "UpBlock2D": (False, "conv"),
    "AttnUpBlock2D": (True, None),
    "ResnetUpsampleBlock2D": (False, "resnet"),
}


class Network(NamedTuple):
    """The fields of our `UNet`, and further settings for the rules."""

    fields: dict[str, Any]
    attends: tuple[bool, ...]  # One per level.
    cosines_first: bool
    assumed: tuple[str, ...]  # Settings that the config lacks.


def check_schedule(config: Mapping[str, Any]) -> str:
    """Returns a note on a scheduler's config; missing keys have their default.

    Raises:
      WeightsError: if the schedule is unsupported, or the config has no class.
    """
    if config.get("_class_name") not in _SCHEDULERS:
        raise WeightsError(
            f"expected a scheduler out of {', '.join(_SCHEDULERS)}, got"
            f" {config.get('_class_name')}, whose networks do not predict the noise of"
            " a discrete schedule"
        )
    _check(config, _SCHEDULE)
    missing = [key for key in _SCHEDULE_SAID if key not in config]
    unsaid = f"; assumed, by default: {', '.join(missing)}" if missing else ""
    return (
        f"of the scheduler {config['_class_name']}: predicted noise, linear betas from"
        f" 1e-4 to 0.02{unsaid}"
    )


def read_network(config: Mapping[str, Any], image_size: int | None) -> Network:
    """Returns our network for a config.

    Raises:
      WeightsError: if the config has unsupported values.
    """
    _check(config, _ONLY)
    get = {**_DEFAULTS, **config}
    widths = tuple(get["block_out_channels"])
    attends, resize = _blocks(get)
    size = image_size or get["sample_size"]
    if not isinstance(size, int) or size % 2 ** (len(widths) - 1):
        raise WeightsError(
            f"expected a square picture that {len(widths)} levels can halve, got"
            f" sample_size {size}; give --image-size"
        )
    groups, head_dim = get["norm_num_groups"], get["attention_head_dim"]
    if groups is None or any(width % groups for width in widths):
        raise WeightsError(f"expected widths in {groups} groups, got {widths}")
    _check_middle(get, attends)
    base = widths[0]
    fields = {
        "base_features": base,
        "feature_multipliers": tuple(
            w // base if w % base == 0 else w / base for w in widths
        ),
        "num_res_blocks": get["layers_per_block"],
        "attention": "global" if get["add_attention"] else "none",
        "attn_resolutions": tuple(
            size >> level for level, attend in enumerate(attends) if attend
        ),
        "image_size": size,
        "head_features": head_dim or 64,
        "num_heads": 0 if head_dim else 1,
        "dropout": float(get["dropout"]),
        "resize": resize,
        "conditioning": (
            "shift" if get["resnet_time_scale_shift"] == "default" else "scale_shift"
        ),
        "norm_groups": groups,
        "norm_epsilon": float(get["norm_eps"]),
        "level_position": "step",
        "level_freq_shift": int(get["freq_shift"]),
    }
    attended = [w for w, attend in zip(widths, attends, strict=True) if attend]
    if get["add_attention"]:
        mapping.check_heads(fields, [*attended, widths[-1]])
    unsaid = sorted(_DEFAULTS.keys() - config.keys() - {"sample_size"})
    assumed = (f"assumed, by default: {', '.join(unsaid)}",) if unsaid else ()
    return Network(fields, attends, bool(get["flip_sin_to_cos"]), assumed)


def _check(config: Mapping[str, Any], only: Mapping[str, Sequence[Any]]) -> None:
    wrong = [
        f"{key}: expected {' or '.join(map(repr, values))}, got {config[key]!r}"
        for key, values in only.items()
        if key in config and config[key] not in values
    ]
    if wrong:
        raise WeightsError(
            "expected an unconditional diffusers UNet2DModel that predicts noise, got"
            f" another model ({'; '.join(wrong)})"
        )


def _check_middle(get: Mapping[str, Any], attends: Sequence[bool]) -> None:
    """Raises if attention in the middle differs from attention in the levels."""
    if not get["add_attention"]:
        if any(attends):
            raise WeightsError(
                "expected attention in the middle, as in the levels, got add_attention"
                " false"
            )
        return
    groups = get["attn_norm_num_groups"]
    if groups is None and get["resnet_time_scale_shift"] == "default":
        return
    if groups != get["norm_num_groups"]:
        raise WeightsError(
            "expected attention in the middle to be normalised as the rest,"
            f" attn_norm_num_groups {get['norm_num_groups']}, got {groups}"
        )


def _blocks(get: Mapping[str, Any]) -> tuple[tuple[bool, ...], str]:
    """Returns which levels have attention, and how our `UNet` resizes."""
    downs, ups = get["down_block_types"], tuple(reversed(get["up_block_types"]))
    others = (set(downs) - _DOWN.keys()) | (set(ups) - _UP.keys())
    if others or not len(downs) == len(ups) == len(get["block_out_channels"]):
        raise WeightsError(
            f"expected blocks out of {', '.join([*_DOWN, *_UP])}, one for each level,"
            f" got {downs} and {ups}"
        )
    attends = tuple(_DOWN[name][0] for name in downs)
    # The last level down and the first level up do not resize.
    how = {_DOWN[name][1] or get["downsample_type"] for name in downs[:-1]}
    how |= {_UP[name][1] or get["upsample_type"] for name in ups[1:]}
    if attends != tuple(_UP[name][0] for name in ups) or len(how) > 1:
        raise WeightsError(
            "expected matching down and up blocks, which all resize in the same way,"
            f" got {downs} and {ups} with {sorted(how)}"
        )
    padding = get["downsample_padding"]
    if how == {"conv"} and padding in (0, 1):
        return attends, "conv" if padding == 1 else "conv_pad_end"
    if how <= {"resnet"}:
        return attends, "block"
    raise WeightsError(
        "expected down- and up-sampling by conv (with padding 0 or 1) or resnet, got"
        f" {sorted(how)} with padding {padding}"
    )
