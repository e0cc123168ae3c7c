"""Writes what diffusers computes, for tests that run without it.

In an environment with PyTorch and diffusers: python write_unet2d_numbers.py
"""

import hashlib
import json
import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("unet2d_numbers.json")
STEPS = (37, 800)
_MIXED = {
    "block_out_channels": (16, 24, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 16,
}
_ATTENTION = {
    "block_out_channels": (16, 32),
    "down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D"),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "sample_size": 16,
}
CASES = {
    # As the checkpoints of DDPM (google/ddpm-*) are configured.
    "ddpm": {
        **_MIXED,
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
    },
    "heads": {**_MIXED, "attention_head_dim": 8},
    "source": {**_MIXED, "attention_head_dim": 4, "in_channels": 6, "out_channels": 6},
    "adm": {
        **_ATTENTION,
        "attention_head_dim": 8,
        "attn_norm_num_groups": 4,
        "downsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "upsample_type": "resnet",
    },
    "resnet_blocks": {
        **_MIXED,
        "down_block_types": (
            "ResnetDownsampleBlock2D",
            "AttnDownBlock2D",
            "DownBlock2D",
        ),
        "downsample_type": "resnet",
        "up_block_types": ("ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "upsample_type": "resnet",
    },
    "no_attention": {
        **_MIXED,
        "add_attention": False,
        "down_block_types": ("DownBlock2D",) * 3,
        "up_block_types": ("UpBlock2D",) * 3,
    },
    "one_level": {
        **_ATTENTION,
        "block_out_channels": (16,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
    },
}


# As google/ddpm-cifar10-32 and google/ddpm-celebahq-256 are configured, with the hash
# and the number of their names and shapes.
_GOOGLE = {
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "layers_per_block": 2,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
}
PUBLISHED = {
    "cifar10": (
        _GOOGLE
        | {
            "sample_size": 32,
            "block_out_channels": (128, 256, 256, 256),
            "down_block_types": (
                "DownBlock2D",
                "AttnDownBlock2D",
                *("DownBlock2D",) * 2,
            ),
            "up_block_types": (*("UpBlock2D",) * 2, "AttnUpBlock2D", "UpBlock2D"),
        },
        "50280b0489a4e40d",
        328,
    ),
    "celebahq": (
        _GOOGLE
        | {
            "sample_size": 256,
            "block_out_channels": (128, 128, 256, 256, 512, 512),
            "down_block_types": (
                *("DownBlock2D",) * 4,
                "AttnDownBlock2D",
                "DownBlock2D",
            ),
            "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
        },
        "a57e3d3c9becfbdd",
        450,
    ),
}


def digest(shapes: dict[str, tuple[int, ...]]) -> str:
    """Returns a hash of names and shapes, to know them by without keeping them."""
    text = "\n".join(f"{name} {tuple(shapes[name])}" for name in sorted(shapes))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw_state(shapes: dict) -> dict[str, np.ndarray]:
    """Returns weights that follow from the names alone, none of them zero."""
    rng, state = np.random.default_rng(0), {}
    for name in sorted(shapes):
        array = rng.standard_normal(shapes[name])
        scale = (
            np.sqrt(1 / max(np.prod(shapes[name][1:]), 1)) if array.ndim > 1 else 0.1
        )
        is_norm = "norm" in name and name.endswith("weight")
        state[name] = (array * scale + (1 if is_norm else 0)).astype(np.float32)
    return state


def draw_input(channels: int, height: int = 16, width: int = 24) -> np.ndarray:
    """Returns noisy pictures, NCHW."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((2, channels, height, width)).astype(np.float32)


def run_theirs(config: dict) -> tuple[dict[str, tuple[int, ...]], np.ndarray]:
    """Returns the shapes of a `UNet2DModel` and its output, NCHW."""
    import diffusers
    import torch

    model = diffusers.UNet2DModel(**config).eval()
    shapes = {name: tuple(array.shape) for name, array in model.state_dict().items()}
    state = {k: torch.from_numpy(v) for k, v in draw_state(shapes).items()}
    model.load_state_dict(state)
    x = torch.from_numpy(draw_input(config.get("in_channels", 3)))
    with torch.no_grad():
        out = model(x, torch.tensor(STEPS)).sample
    return shapes, out.numpy()


def _main() -> None:
    numbers = {}
    for name in ("ddpm", "adm"):
        shapes, out = run_theirs(CASES[name])
        some = [round(float(value), 6) for value in out[:, :3, ::5, ::5].ravel()]
        numbers[name] = {"shapes": shapes, "out": some}
    FILE.write_text(json.dumps(numbers, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    _main()
