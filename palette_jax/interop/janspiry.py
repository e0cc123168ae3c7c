"""The layout and behaviour of the unofficial PyTorch Palette by Janspiry.

Its U-Net is guided-diffusion's with other names, and takes gamma. Its `attn_res` are
rates of down-sampling, not pixels: in all its published configurations no level has
that rate, so only the middle has attention. Unlike the paper, it samples with the small
variance and clips its estimates, and its colorizer takes the L* of Lab, not the luma.
"""

from collections.abc import Mapping

import numpy as np

from palette_jax.errors import WeightsError
from palette_jax.interop import guided_diffusion, mapping
from palette_jax.interop.mapping import Imported

LAYOUT = "Janspiry's Palette"
_PREFIX = "denoise_fn."
_PUBLISHED = {
    (64, (1, 2, 4, 8)): {"image_size": 256, "head_features": 32, "dropout": 0.2}
}
_BUFFERS = (
    "gammas",
    "sqrt_recip_gammas",
    "sqrt_recipm1_gammas",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)


def is_layout(state: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are the keys of that project."""
    return any(key.startswith(_PREFIX) for key in state)


def convert(
    state: Mapping[str, np.ndarray], *, new_attention_order: bool = False, **given: int
) -> Imported:
    """Converts a state dict; the arguments are those of `guided_diffusion.convert`.

    Raises:
      WeightsError: for another layout, or that project's network `sr3`.
    """
    if f"{_PREFIX}cond_embed.0.weight" not in state:
        raise WeightsError(
            "expected Janspiry's network `guided_diffusion`, got"
            f" {next(iter(state))} and no cond_embed; its network `sr3` is not"
            " supported"
        )
    unet = {
        key.removeprefix(_PREFIX): array
        for key, array in state.items()
        if key not in _BUFFERS
    }
    fields = guided_diffusion.infer_fields(
        unet, embedding="cond_embed", published=_PUBLISHED, given=given
    )
    fields["level_position"] = "gamma"
    channels = unet["input_blocks.0.0.weight"].shape[1], unet["out.2.weight"].shape[0]
    if channels != (6, 3):
        raise WeightsError(
            "expected 6 channels in (source and noisy picture) and 3 out, got"
            f" {channels[0]} and {channels[1]}"
        )
    rules = guided_diffusion.rules(
        unet,
        fields,
        embedding="cond_embed",
        noisy_first=False,
        new_attention_order=new_attention_order,
    )
    params, report = mapping.convert(
        unet,
        rules,
        fields,
        layout=LAYOUT,
        named=lambda key: f"{_PREFIX}{key}",
        ignored={key: "of the schedule" for key in _BUFFERS if key in state},
        notes=[
            "attention at the levels of the file; in published files, the middle",
            "a colorizer takes L* of Lab, as in that project's preprocessing"
            " (data.gray=lightness)",
            *guided_diffusion.assumed(fields, given),
        ],
    )
    config = guided_diffusion.config_of(fields) | _schedules(state)
    config["data"]["gray"] = "lightness"
    return Imported(params, config, report)


def _schedules(state: Mapping[str, np.ndarray]) -> dict[str, dict[str, object]]:
    """Returns the schedules of training, and of sampling from published models."""
    return {
        "diffusion": _trained_on(np.asarray(state.get("gammas", ()), np.float64)),
        "sample": {
            "sampler": "ddpm",
            "schedule": "paper",
            "num_steps": 1000,
            "beta_min": 1e-4,
            "beta_max": 0.09,
            "variance": "small",
            "clip": True,
        },
    }


def _trained_on(gammas: np.ndarray) -> dict[str, object]:
    """Returns the schedule from the buffer of gammas, or the published schedule."""
    if not len(gammas):
        return {"num_steps": 2000, "beta_min": 1e-6, "beta_max": 0.01}
    count = len(gammas)
    # Below 1e-30, float32 has few digits left.
    levels = np.log(gammas[gammas > 1e-30])
    share = np.linspace(0, 1, count)[: len(levels)]
    ends = np.array([1e-6, 0.01])
    for _ in range(20):  # Newton's steps to the ends of the line.
        beta = ends[0] + share * (ends[1] - ends[0])
        slopes = -np.stack([(1 - share) / (1 - beta), share / (1 - beta)]).cumsum(1)
        missing = levels - np.log1p(-beta).cumsum()
        ends = ends + np.linalg.lstsq(slopes.T, missing, rcond=None)[0]
        ends = ends.clip(1e-12, 0.999)

    def deviation(low: float, high: float) -> float:
        line = np.log1p(-np.linspace(low, high, count))[: len(levels)].cumsum()
        return float(np.abs(line - levels).max())

    found = deviation(*ends)
    if not found < 1e-3:
        raise WeightsError(
            "expected a linear schedule of betas in the buffer `gammas`, got another"
            f" schedule of {count} steps; only linear schedules are supported"
        )
    # The buffer is rounded to float32, and the original ends have few digits.
    for digits in range(1, 13):
        low, high = (float(f"{end:.{digits}g}") for end in ends)
        if deviation(low, high) <= max(2 * found, 1e-7):
            break
    return {"num_steps": count, "beta_min": low, "beta_max": high}
