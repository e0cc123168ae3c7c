"""The allowed values of the keys of a config."""

import typing

from palette_jax.pictures.protocols import PROTOCOLS
from palette_jax.restoration.settings import MAX_SAMPLES, MAX_STEPS, SAMPLERS
from palette_jax.tasks import TASKS
from palette_jax.tasks.task import Gray

NAMES = {
    "task": (*TASKS, "multitask"),
    "data.gray": typing.get_args(Gray),
    "data.source": ("tfds", "folder", "paired", "sample_photos"),
    "model.attention": ("global", "local", "dilated", "more_blocks", "none"),
    "model.conditioning": ("scale_shift", "shift"),
    "model.dtype": ("float32", "bfloat16"),
    "model.level_position": ("log_snr", "step", "gamma"),
    "model.resize": ("block", "conv", "conv_pad_end"),
    "diffusion.loss_norm": ("l1", "l2"),
    "diffusion.objective": ("denoise", "velocity", "regress"),
    "parallel.compile": ("jit", "pmap"),
    "sample.sampler": SAMPLERS,
    "diffusion.schedule": ("linear", "log_normal"),
    "sample.schedule": ("paper", "trimmed"),
    "sample.variance": ("large", "small"),
    "eval.inpaint_mask": (
        *("center", "mixed", "free_form", "rectangles"),
        *(f"free_form_{share}" for share in ("10_20", "20_30", "30_40")),
    ),
    "eval.protocol": tuple(PROTOCOLS),
    "eval.uncrop_side": ("left", "right", "top", "bottom", "all", "mixed"),
}

MAX_WIDTH = 65_536
"""Of a picture in pixels, and of a network in channels: no machine holds more."""
LARGEST = 2**31 - 1
"""Of a whole number: steps, shapes and seconds have 32 bits."""

RANGES = {
    (0, 1): ("data.extra_weight", "data.max_broken_share", "sample.eta"),
    # At 1, Adam divides by 0, the average stays where it began, nothing is kept.
    (0, 0.999999): ("optim.b1", "optim.b2", "optim.ema_decay", "model.dropout"),
    (1e-3, 1): ("data.min_scale",),
    (1e-12, 0.999): (
        *("diffusion.beta_min", "diffusion.beta_max"),
        *("sample.beta_min", "sample.beta_max", "model.norm_epsilon"),
    ),
    (1, 100): ("eval.jpeg_quality",),
    (0, 10): ("model.level_freq_shift", "sample.spacing"),
    (0, 2**32 - 1): ("seed",),  # Other values would repeat these.
    (0, 2**64): ("data.held_out_below",),
    (0, LARGEST): (
        *("eval.num_images", "optim.clip_norm", "parallel.slices"),
        "train.checkpoint_minutes",
        *("optim.decay_steps", "optim.learning_rate", "optim.warmup_steps"),
    ),
    (0, 1000): ("distill.steps",),  # More are no student.
    (1, MAX_STEPS): (
        *("diffusion.num_steps", "distill.teacher_steps", "sample.num_steps"),
    ),
    (1, MAX_SAMPLES): ("sample.num_samples",),
    (0, MAX_WIDTH): ("model.num_heads",),
    (1, MAX_WIDTH): (
        *("data.image_size", "model.base_features", "model.head_features"),
        *("model.norm_groups", "model.patch_size"),
    ),
    (1, 1000): ("model.num_res_blocks",),
    (1, LARGEST): (
        *("data.min_side", "data.num_eval", "eval.batch_size", "optim.accumulate"),
        *("train.batch_size", "train.checkpoint_every", "train.preview_every"),
        *("train.keep", "train.log_every", "train.num_previews", "train.num_steps"),
    ),
}
