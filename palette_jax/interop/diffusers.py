"""The layout of a diffusers `UNet2DModel`: a folder with config.json and safetensors.

As in guided-diffusion, the network takes steps, which are computed from gamma by DDPM's
linear schedule, and its first convolution is widened if it has no source image.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from palette_jax.errors import WeightsError
from palette_jax.interop import mapping
from palette_jax.interop.diffusers_config import Network, check_schedule, read_network
from palette_jax.interop.guided_diffusion import config_of
from palette_jax.interop.mapping import Imported, Rule
from palette_jax.interop.safetensors_file import read_safetensors
from palette_jax.torch_file import read_torch, unwrapped

LAYOUT = "diffusers UNet2DModel"
_FILE = "diffusion_pytorch_model"
# Names of attention layers in files older than diffusers 0.15.
_OLD_NAMES = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


def load_folder(
    folder: epath.PathLike, *, image_size: int | None = None, noisy_first: bool = False
) -> Imported:
    """Converts the folder of a network, or of a pipeline with a `unet`.

    The options are those of `convert.import_weights`.

    Raises:
      WeightsError: if something is missing or unsupported.
    """
    folder = epath.Path(folder)
    # Pipelines of the first versions have all files in one folder.
    schedules = [
        path
        for path in (folder / "scheduler", folder)
        if (path / "scheduler_config.json").exists()
    ]
    if (folder / "model_index.json").exists() and not schedules:
        raise WeightsError(
            f"expected scheduler/scheduler_config.json in the pipeline {folder}, got"
            " none, so the network's prediction is unknown; copy the whole pipeline"
        )
    notes = [
        check_schedule(_read_json(path / "scheduler_config.json")) for path in schedules
    ] or ["assumed, without a scheduler file: predicted noise, the linear schedule"]
    latent = [name for name in ("vae", "vqvae", "movq") if (folder / name).is_dir()]
    if latent:
        raise WeightsError(
            f"expected a network of pixels in {folder}, got one of latents, with"
            f" {latent[0]}/ beside it; latents are not supported"
        )
    for name in ("unet_ema", "unet"):  # The averaged weights first.
        if (folder / name).is_dir():
            folder = folder / name
            break
    config = _read_json(folder / "config.json")
    return convert(
        _weights(folder),
        config,
        image_size=image_size,
        noisy_first=noisy_first,
        notes=notes,
    )


def convert(
    state: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    *,
    image_size: int | None = None,
    noisy_first: bool = False,
    notes: Iterable[str] = (),
) -> Imported:
    """Converts a state dict and its config.

    Raises:
      WeightsError: if state and config do not match, or are unsupported.
    """
    network = read_network(config, image_size)
    state = unwrapped(state)
    names = {_new_name(key): key for key in state}
    state = {new: state[key] for new, key in names.items()}
    missing = [k for k in ("conv_in.weight", "conv_out.weight") if k not in state]
    if missing:
        raise WeightsError(f"expected the keys of {LAYOUT}, got no {missing[0]}")
    channels = state["conv_in.weight"].shape[1], state["conv_out.weight"].shape[0]
    notes = [*notes, *mapping.channel_notes(*channels), *network.assumed]
    if channels[0] == 6:
        order = ("noisy, source", "source, noisy")[not noisy_first]
        notes.append(f"assumed: channels in the order {order} (--noisy-first)")
    if not network.cosines_first:
        notes.append("swapped the sines and cosines of the level")
    params, report = mapping.convert(
        state,
        _rules(state, network, noisy_first=noisy_first),
        network.fields,
        layout=LAYOUT,
        named=lambda key: names.get(key, key),
        notes=notes,
    )
    overrides = config_of(network.fields) | {"sample": {"clip": True}}
    return Imported(params, overrides, report)


def _rules(
    state: Mapping[str, np.ndarray], network: Network, *, noisy_first: bool
) -> Iterator[Rule]:
    fields = network.fields
    for rule in mapping.dense("level/dense_0", "time_embedding.linear_1"):
        if rule.ours.endswith("kernel") and not network.cosines_first:
            rule = rule._replace(make=_swapped)
        yield rule
    yield from mapping.dense("level/dense_1", "time_embedding.linear_2")
    yield from mapping.conv_in("conv_in", noisy_first=noisy_first)
    count, last = fields["num_res_blocks"], len(network.attends) - 1
    for level, attends in enumerate(network.attends):
        sides = (
            ("down", f"down_blocks.{level}", count, level < last),
            ("up", f"up_blocks.{last - level}", count + 1, level > 0),
        )
        for way, theirs, n, resizes in sides:
            for i in range(n):
                ours = f"{way}_{level}_{i}"
                yield from _res_block(state, ours, f"{theirs}.resnets.{i}")
                if attends:
                    attention = f"{theirs}.attentions.{i}"
                    yield from _attention(f"{ours}_attention", attention, fields)
            if resizes:
                ours, theirs = f"{way}_{level}_resize", f"{theirs}.{way}samplers.0"
                if fields["resize"] == "block":
                    yield from _res_block(state, ours, theirs)
                else:
                    yield from mapping.conv(f"{ours}/conv", f"{theirs}.conv")
    yield from _res_block(state, "middle_0", "mid_block.resnets.0")
    if fields["attention"] != "none":
        yield from _attention("middle_attention", "mid_block.attentions.0", fields)
    yield from _res_block(state, "middle_1", "mid_block.resnets.1")
    yield from mapping.norm("norm_out", "conv_norm_out")
    yield from mapping.conv_out("conv_out")


_res_block = functools.partial(
    mapping.res_block,
    names=("norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut"),
)


def _attention(ours: str, theirs: str, fields: Mapping[str, Any]) -> Iterator[Rule]:
    def by_head(*parts: np.ndarray) -> np.ndarray:
        """Puts q, k and v of a head side by side, as ours has them."""
        c = parts[0].shape[0]
        heads = fields["num_heads"] or c // fields["head_features"]
        split = [part.reshape(heads, c // heads, *part.shape[1:]) for part in parts]
        qkv = np.stack(split, axis=1)
        # Weights may be 1x1 convolutions in old files.
        return qkv.reshape(3 * c, c).T if parts[0].ndim > 1 else qkv.reshape(3 * c)

    yield from mapping.norm(f"{ours}/norm", f"{theirs}.group_norm")
    for our_name, name in (("kernel", "weight"), ("bias", "bias")):
        keys = tuple(f"{theirs}.to_{part}.{name}" for part in "qkv")
        yield Rule(f"{ours}/qkv/{our_name}", keys, by_head)
    yield from mapping.dense(f"{ours}/out", f"{theirs}.to_out.0")


def _swapped(weight: np.ndarray) -> np.ndarray:
    """Converts a layer for sines first to a layer for cosines first."""
    return np.roll(weight, weight.shape[1] // 2, axis=1).T


def _new_name(key: str) -> str:
    for old, new in _OLD_NAMES.items():
        key = key.replace(old, new)
    return key


def _weights(folder: epath.Path) -> dict[str, np.ndarray]:
    """Reads safetensors, in one file or in shards, or the PyTorch file of older models.

    Reads half precision if there is no other variant.
    """
    for variant in ("", ".fp16"):
        path = folder / f"{_FILE}{variant}.safetensors"
        if path.exists():
            return read_safetensors(path)[0]
        index = folder / f"{_FILE}.safetensors.index{variant}.json"
        if index.exists():
            shards = sorted(set(_read_json(index)["weight_map"].values()))
            state: dict[str, np.ndarray] = {}
            for shard in shards:
                state |= read_safetensors(folder / shard)[0]
            return state
        path = folder / f"{_FILE}{variant}.bin"
        if path.exists():
            return read_torch(path)
    raise WeightsError(
        f"{folder}: expected {_FILE}.safetensors (or .bin), got"
        f" {sorted(path.name for path in folder.iterdir())[:6]}"
    )


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path.parent}: expected a folder of diffusers with {path.name}, got no"
            f" readable file ({error})"
        ) from error
