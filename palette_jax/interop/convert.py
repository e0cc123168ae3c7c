"""Imports weights of other projects in all supported layouts."""

from collections.abc import Mapping
from typing import Any

import flax
from etils import epath

from palette_jax.errors import WeightsError
from palette_jax.interop import diffusers, guided_diffusion, janspiry, mapping
from palette_jax.interop.mapping import Imported
from palette_jax.interop.safetensors_file import (
    import_safetensors,
    is_ours,
    read_safetensors,
)
from palette_jax.torch_file import read_torch, unwrapped

SUPPORTED = (
    "supported are guided-diffusion's U-Net (.pt), Janspiry's Palette"
    " (*_Network.pth, *_Network_ema.pth), a folder of a diffusers UNet2DModel, and"
    " files of `palette-jax export` (.safetensors)"
)


def import_weights(
    path: epath.PathLike,
    *,
    image_size: int | None = None,
    head_features: int | None = None,
    num_heads: int | None = None,
    new_attention_order: bool = False,
    noisy_first: bool = False,
) -> Imported:
    """Reads weights of any supported layout.

    Args:
      path: a file, or a folder of diffusers.
      image_size: in pixels; needed if neither the file nor a published network of that
        shape determines it. For our own exports, a new size.
      head_features: channels of an attention head, likewise.
      num_heads: in place of `head_features`, if it is the same at all levels.
      new_attention_order: guided-diffusion's flag of that name.
      noisy_first: whether the noisy picture's channels precede the source's in a
        diffusers network with a source image.

    Returns:
      The parameters, the fields of our config for the network and its sampling, and a
      report for each key.

    Raises:
      WeightsError: if the weights cannot be imported; the message names the reason.
    """
    if image_size is not None and image_size < 1:
        raise WeightsError(f"expected an image size of 1 or more, got {image_size}")
    options = {
        "image_size": image_size,
        "head_features": head_features,
        "num_heads": num_heads,
    }
    given = {name: value for name, value in options.items() if value is not None}
    path = epath.Path(path)
    try:
        if path.is_dir():
            return diffusers.load_folder(
                path, image_size=image_size, noisy_first=noisy_first
            )
        return _from_file(path, new_attention_order, given)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path}: expected to read weights, got {error}") from error
    except (LookupError, ValueError, TypeError, ArithmeticError) as error:
        # In a damaged file, the arrays may not fit the names of the layout.
        raise WeightsError(
            f"{path}: expected arrays that fit their names, got"
            f" {type(error).__name__}: {error}; the file is damaged, or of a variant"
            " that is not supported"
        ) from error


def _from_file(
    path: epath.Path, new_attention_order: bool, given: dict[str, int]
) -> Imported:
    if not path.exists():
        raise WeightsError(f"expected weights at {path}, got nothing there")
    if path.suffix == ".safetensors":
        if is_ours(path):
            return _ours(path, given.get("image_size"))
        state = unwrapped(read_safetensors(path)[0])
    else:
        state = read_torch(path)
    for layout in (janspiry, guided_diffusion):
        if layout.is_layout(state):
            return layout.convert(
                state, new_attention_order=new_attention_order, **given
            )
    raise WeightsError(_unknown(path, state))


def _ours(path: epath.Path, image_size: int | None) -> Imported:
    params, config = import_safetensors(path)
    try:
        model, size = config["model"], config["data"]["image_size"]
        if image_size is not None:
            # Attention stays at the levels with attention weights.
            model["attn_resolutions"] = tuple(
                resolution * image_size // size
                for resolution in model["attn_resolutions"]
            )
            config["data"]["image_size"] = size = image_size
    except (KeyError, TypeError):
        raise WeightsError(
            f"{path}: expected weights with the configuration of their network, got"
            " none; write the file with `palette-jax export`"
        ) from None
    fields = mapping.fields_of(config)
    state = flax.traverse_util.flatten_dict(params, sep="/")
    params, report = mapping.convert(
        state, mapping.same(fields), fields, layout="palette_jax"
    )
    return Imported(params, config, report)


def _unknown(path: epath.Path, state: Mapping[str, Any]) -> str:
    names = ", ".join(list(state)[:4])
    found = f"{len(state)} tensors: {names}, ..."
    if {"conv_in.weight", "time_embedding.linear_1.weight"} <= state.keys():
        found += " (those of diffusers: name the folder with its config.json)"
    return f"{path}: expected a supported layout, got {found}; {SUPPORTED}"
