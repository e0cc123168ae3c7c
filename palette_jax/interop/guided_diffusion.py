"""The U-Net layout of guided-diffusion (Dhariwal & Nichol 2021).

The network has no source image: its first convolution is widened by zeros, so that its
predictions do not change before further training. Its steps are computed from gamma by
the linear schedule of its training; half of its output, a variance, is dropped.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from palette_jax.errors import WeightsError
from palette_jax.interop import mapping
from palette_jax.interop.mapping import Imported, Rule

LAYOUT = "guided-diffusion"
# Base features and multipliers of published networks, to values not in the shapes.
_PUBLISHED = {
    (256, (1, 1, 2, 2, 4, 4)): {"image_size": 256, "head_features": 64},
    (256, (0.5, 1, 1, 2, 2, 4, 4)): {"image_size": 512, "head_features": 64},
}


def is_layout(state: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are the keys of guided-diffusion."""
    return "time_embed.0.weight" in state and "input_blocks.0.0.weight" in state


def convert(
    state: Mapping[str, np.ndarray], *, new_attention_order: bool = False, **given: int
) -> Imported:
    """Converts a state dict.

    Args:
      state: arrays by name.
      new_attention_order: guided-diffusion's flag of that name.
      given: `image_size`, and `head_features` (`num_head_channels` there) or
        `num_heads`; optional for published networks.

    Raises:
      WeightsError: for another layout, a class-conditional network or a classifier.
    """
    _refuse(state)
    fields = infer_fields(
        state, embedding="time_embed", published=_PUBLISHED, given=given
    )
    fields["level_position"] = "step"
    notes = mapping.channel_notes(
        state["input_blocks.0.0.weight"].shape[1], state["out.2.weight"].shape[0]
    )
    params, report = mapping.convert(
        state,
        rules(
            state,
            fields,
            embedding="time_embed",
            noisy_first=True,
            new_attention_order=new_attention_order,
        ),
        fields,
        layout=LAYOUT,
        notes=[
            *notes,
            "assumed, because the file lacks it: steps of the linear schedule, betas"
            " from 1e-4 to 0.02",
            *assumed(fields, given),
        ],
    )
    return Imported(params, config_of(fields) | {"sample": {"clip": True}}, report)


def assumed(fields: Mapping[str, Any], given: Mapping[str, int]) -> Iterator[str]:
    """Yields the assumed values, for the report."""
    if "image_size" not in given:
        yield f"assumed, as published: pictures of {fields['image_size']} pixels"
    if not given.keys() & {"head_features", "num_heads"}:
        yield f"assumed, as published: heads of {fields['head_features']} channels"


def config_of(fields: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the groups `model` and `data` of a config with these fields."""
    model = {name: value for name, value in fields.items() if name != "image_size"}
    return {
        "model": model | {"dtype": "float32"},
        "data": {"image_size": fields["image_size"]},
    }


def infer_fields(
    state: Mapping[str, np.ndarray],
    *,
    embedding: str,
    published: Mapping[Any, Mapping[str, Any]],
    given: Mapping[str, int],
) -> dict[str, Any]:
    """Returns the fields of our `UNet` from the shapes and the given options."""
    base = state[f"{embedding}.0.weight"].shape[1]
    num_res_blocks, levels, resize = _levels(state)
    features, attention_levels = [], []
    for level in range(levels):
        block = f"input_blocks.{1 + level * (num_res_blocks + 1)}"
        features.append(state[f"{block}.0.in_layers.2.weight"].shape[0])
        if f"{block}.1.qkv.weight" in state:
            attention_levels.append(level)
    multipliers = tuple(c // base if c % base == 0 else c / base for c in features)
    shift = state["input_blocks.1.0.emb_layers.1.weight"].shape[0] == features[0]
    known = {**published.get((base, multipliers), {}), **given}
    if "image_size" not in known or not known.keys() & {"head_features", "num_heads"}:
        raise WeightsError(
            "expected the size of pictures and the width of attention heads, which the"
            f" shapes do not determine, got only {dict(given)} for an unpublished"
            f" network of {base} features times {multipliers}; add --image-size and"
            " --head-features (or --num-heads)"
        )
    size = known["image_size"]
    if size % 2 ** (levels - 1):
        raise WeightsError(
            f"expected an image size that {levels} levels can halve, a multiple of"
            f" {2 ** (levels - 1)}, got {size}"
        )
    fields = {
        "base_features": base,
        "feature_multipliers": multipliers,
        "num_res_blocks": num_res_blocks,
        "attention": "global",
        "attn_resolutions": tuple(size >> level for level in attention_levels),
        "head_features": 64,
        "num_heads": 0,
        "resize": resize,
        "conditioning": "shift" if shift else "scale_shift",
        **known,
    }
    attended = [features[level] for level in (*attention_levels, -1)]
    mapping.check_heads(fields, attended)
    if any(c % 32 for c in features):
        raise WeightsError(f"expected features in 32 groups, got {features}")
    return fields


def rules(
    state: Mapping[str, np.ndarray],
    fields: Mapping[str, Any],
    *,
    embedding: str,
    noisy_first: bool,
    new_attention_order: bool,
) -> Iterator[Rule]:
    """Yields a rule for each of our arrays, in the order of the network."""

    def level_block(ours: str, theirs: str) -> Iterator[Rule]:
        yield from _res_block(state, ours, f"{theirs}.0")
        if attends:
            heads = (fields, new_attention_order)
            yield from _attention(f"{ours}_attention", f"{theirs}.1", *heads)

    def resize(ours: str, theirs: str, name: str) -> Iterator[Rule]:
        if fields["resize"] == "block":
            return _res_block(state, ours, theirs)
        return mapping.conv(f"{ours}/conv", f"{theirs}.{name}")

    count, levels = fields["num_res_blocks"], len(fields["feature_multipliers"])
    yield from mapping.dense("level/dense_0", f"{embedding}.0")
    yield from mapping.dense("level/dense_1", f"{embedding}.2")
    yield from mapping.conv_in("input_blocks.0.0", noisy_first=noisy_first)
    for level in range(levels):
        attends = fields["image_size"] >> level in fields["attn_resolutions"]
        start = 1 + level * (count + 1)
        for i in range(count):
            yield from level_block(f"down_{level}_{i}", f"input_blocks.{start + i}")
        if level < levels - 1:
            theirs = f"input_blocks.{start + count}.0"
            yield from resize(f"down_{level}_resize", theirs, "op")
    yield from _res_block(state, "middle_0", "middle_block.0")
    yield from _attention(
        "middle_attention", "middle_block.1", fields, new_attention_order
    )
    yield from _res_block(state, "middle_1", "middle_block.2")
    for level in reversed(range(levels)):
        attends = fields["image_size"] >> level in fields["attn_resolutions"]
        start = (levels - 1 - level) * (count + 1)
        for i in range(count + 1):
            yield from level_block(f"up_{level}_{i}", f"output_blocks.{start + i}")
        if level:
            theirs = f"output_blocks.{start + count}.{2 if attends else 1}"
            yield from resize(f"up_{level}_resize", theirs, "conv")
    yield from mapping.norm("norm_out", "out.0")
    yield from mapping.conv_out("out.2")


_res_block = functools.partial(
    mapping.res_block,
    names=(
        *("in_layers.0", "in_layers.2", "emb_layers.1"),
        *("out_layers.0", "out_layers.3", "skip_connection"),
    ),
)


def _attention(
    ours: str, theirs: str, fields: Mapping[str, Any], new_attention_order: bool
) -> Iterator[Rule]:
    def by_head(array: np.ndarray) -> np.ndarray:
        """Turns (q, k, v) x heads to heads x (q, k, v) in the first axis."""
        c = array.shape[0] // 3
        heads = fields["num_heads"] or c // fields["head_features"]
        parts = array.reshape(3, heads, c // heads, *array.shape[1:])
        return parts.swapaxes(0, 1).reshape(array.shape)

    yield from mapping.norm(f"{ours}/norm", f"{theirs}.norm")
    for rule in mapping.dense(f"{ours}/qkv", f"{theirs}.qkv"):
        if new_attention_order:
            yield rule._replace(make=lambda w, make=rule.make: make(by_head(w)))
        else:
            yield rule
    yield from mapping.dense(f"{ours}/out", f"{theirs}.proj_out")


def _refuse(state: Mapping[str, np.ndarray]) -> None:
    if "label_emb.weight" in state:
        raise WeightsError(
            "expected a network without classes, got one conditioned on"
            f" {state['label_emb.weight'].shape[0]} classes (label_emb); import an"
            " unconditional network, such as 256x256_diffusion_uncond.pt"
        )
    if not any(key.startswith("output_blocks.") for key in state):
        raise WeightsError("expected a U-Net, got a classifier without output_blocks")


def _levels(state: Mapping[str, np.ndarray]) -> tuple[int, int, str]:
    """Returns the blocks per level, the levels, and the kind of resizing."""

    def numbers(blocks: str) -> set[int]:
        names = [key.split(".") for key in state if key.startswith(blocks)]
        return {int(name[1]) for name in names if name[1].isdigit()}

    blocks = {way: numbers(f"{way}_blocks.") for way in ("input", "output")}
    total = 1 + max(blocks["output"], default=-1)
    ups = []
    for n in range(total):
        for place in (1, 2):
            if f"output_blocks.{n}.{place}.conv.weight" in state:
                ups.append((n, "conv"))
            if f"output_blocks.{n}.{place}.in_layers.2.weight" in state:
                ups.append((n, "block"))
    gaps = sorted(set(range(total)) - blocks["input"])
    if not ups and gaps:
        raise WeightsError(
            "expected down- and up-sampling by residual blocks or convolutions, got"
            f" nothing that is learned for input_blocks.{gaps[0]}: a network with"
            " conv_resample and resblock_updown off, which is not supported"
        )
    per_level = ups[0][0] + 1 if ups else total
    expected = [(n, ups[0][1]) for n in range(per_level - 1, total - 1, per_level)]
    if total % per_level or ups != expected or blocks["input"] != set(range(total)):
        raise WeightsError(
            "expected levels of equally many blocks, each but the last with a learned"
            f" up-sampling, got {total} output blocks and up-sampling after"
            f" {[n for n, _ in ups]}; the file is damaged, or of another network"
        )
    return per_level - 1, total // per_level, ups[0][1] if ups else "block"
