"""Every key, with the paper's value where the paper states one.

The other configs import this one and change some values. The variant sets the size:

  paper  256 x 256, batch 1024, a million steps of a network of 553 million parameters:
         some 7e21 operations, weeks on 100 accelerators. For slices of TPUs or GPU
         clusters; docs/scaling.md lists the memory and time on each.
  small  128 x 128, batch 64, 100,000 steps: one GPU of 24 GB or more, a day or two.
  tiny   32 x 32, batch 16: two CPU cores, five minutes, with photographs that ship with
         a dependency.
"""

import ml_collections

from palette_jax.config.values import ConfigError


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the keys that all tasks share."""
    sizes = {"paper": _paper, "small": _small, "tiny": _tiny}
    if variant not in sizes:
        raise ConfigError(
            f"expected one of the variants {', '.join(sizes)}, got {variant!r};"
            " write e.g. --config=configs/uncrop.py:tiny"
        )
    config = _paper()
    if variant != "paper":
        sizes[variant](config)
        _shorten(config)
    config.variant = variant
    return config.lock()


def _paper() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.task = "uncrop"  # A name out of palette_jax/tasks, or multitask.
    config.variant = "paper"

    # Weights of the tasks of `multitask`, with any sum; 0 leaves a task out. The paper
    # mixes three tasks, in shares that it does not state.
    config.mix = ml_collections.ConfigDict(
        {
            "colorize": 1.0,
            "inpaint": 1.0,
            "uncrop": 0.0,
            "jpeg": 1.0,
            "superres": 0.0,
            "old_photo": 0.0,
        }
    )

    config.data = ml_collections.ConfigDict()
    config.data.source = "tfds"  # tfds, folder, paired or sample_photos.
    config.data.tfds_name = "imagenet2012"
    config.data.tfds_dir = ""  # Empty: ~/tensorflow_datasets.
    config.data.train_split = "train"
    config.data.eval_split = "validation"
    config.data.folder = ""  # Of pictures, also gs://...
    config.data.input_folder = ""  # `paired`: the inputs.
    config.data.target_folder = ""  # `paired`: the targets.
    # A second source (paper: Places2 beside ImageNet) and its share of the examples.
    config.data.extra_tfds_name = ""
    config.data.extra_folder = ""
    config.data.extra_weight = 0.5
    config.data.eval_folder = ""  # Evaluates on all pictures of a folder instead.
    config.data.eval_list = ""  # File of names, e.g. ctest10k.
    config.data.num_eval = 64  # Held out of a source without an evaluation split.
    # Pictures are held out if the hash of their name is below this bound. A new run
    # chooses the bound for num_eval pictures and keeps it if the folder changes.
    config.data.held_out_below = 0
    config.data.image_size = 256
    config.data.min_scale = (
        1.0  # Smallest training crop, of the short side; 1: largest.
    )
    config.data.hints = False  # Colorization also learns from a few true colours.
    config.data.gray = "luma"  # Input of colorization; lightness: L* of Lab.
    config.data.min_side = 32  # Pixels; smaller pictures are skipped as broken.
    config.data.max_broken_share = 0.01  # Of a source; more stop the run.

    config.model = ml_collections.ConfigDict()
    config.model.base_features = 256
    config.model.feature_multipliers = (1, 1, 2, 2, 4, 4)
    config.model.num_res_blocks = 2
    config.model.patch_size = (
        1  # 2: packs 2 x 2 pixels into one; a quarter of the work.
    )
    config.model.attention = "global"  # local, dilated, more_blocks: Table 5; none.
    config.model.attn_resolutions = (32, 16, 8)  # In pixels, not in rates.
    config.model.head_features = 64
    config.model.num_heads = 0  # At all levels; 0: by head_features.
    config.model.dropout = 0.0  # Not stated in the paper; ADM's value at 256.
    config.model.remat = False
    config.model.dtype = "bfloat16"  # Of the computation; parameters are float32.
    # For weights of other projects.
    config.model.resize = "block"  # block, conv or conv_pad_end.
    config.model.conditioning = "scale_shift"  # scale_shift or shift.
    config.model.norm_groups = 32
    config.model.norm_epsilon = 1e-5
    config.model.level_position = "log_snr"  # log_snr, step (ADM's) or gamma.
    config.model.level_freq_shift = 0

    config.diffusion = ml_collections.ConfigDict()
    # The output of the network: denoise, the noise; velocity, which gives better
    # colours in few steps of training and sampling; regress, the picture: the baseline.
    config.diffusion.objective = "denoise"
    config.diffusion.loss_norm = "l2"  # l1: the ablation of Table 6.
    # The distribution of trained levels: linear, the paper's betas; log_normal, EDM's.
    config.diffusion.schedule = "linear"
    config.diffusion.num_steps = 2000
    config.diffusion.beta_min = 1e-6
    config.diffusion.beta_max = 0.01

    # A student of a trained run, which samples in few steps; `palette-jax distill` sets
    # these keys.
    config.distill = ml_collections.ConfigDict()
    config.distill.teacher = ""  # The teacher's run, or a file of its weights.
    config.distill.steps = 0  # Of the student; 0: not a student.
    config.distill.teacher_steps = 64  # Of the teacher, a multiple of the student's.

    config.optim = ml_collections.ConfigDict()
    config.optim.learning_rate = 1e-4
    config.optim.warmup_steps = 10_000
    config.optim.decay_steps = 0  # The last steps, over which the rate falls to 0.
    config.optim.muon = False  # Muon for the kernels, Adam for all else.
    config.optim.b1 = 0.9  # Adam's usual values; not stated in the paper.
    config.optim.b2 = 0.999
    config.optim.clip_norm = 0.0  # 0: no clipping.
    config.optim.accumulate = 1  # Parts that a batch is cut into to save memory.
    config.optim.ema_decay = 0.9999

    config.train = ml_collections.ConfigDict()
    config.train.batch_size = 1024  # Over all devices of all hosts.
    config.train.num_steps = 1_000_000
    config.train.log_every = 100
    config.train.checkpoint_every = 5000
    config.train.checkpoint_minutes = 15.0  # Also by the clock; 0: only by steps.
    config.train.keep = 3  # Checkpoints, beside the best by held-out loss.
    config.train.preview_every = 10_000
    config.train.num_previews = 8

    config.sample = ml_collections.ConfigDict()
    config.sample.sampler = "ddpm"  # ddpm, ddim, dpmpp_2m, unipc_2 or unipc_3.
    # Exponent of the steps' spacing: 1 is even, more is denser near the clean end; 0 is
    # the sampler's default, 1 for ddpm.
    config.sample.spacing = 0.0
    config.sample.schedule = "paper"  # trimmed: no step below the trained levels.
    config.sample.num_steps = 1000  # Any number; the schedule keeps its end points.
    config.sample.beta_min = 1e-4
    config.sample.beta_max = 0.09
    config.sample.variance = "large"  # Of ddpm: large, 1 - alpha, or small.
    config.sample.eta = 0.0  # Of ddim.
    config.sample.clip = False  # Clips the estimates of the clean picture.
    config.sample.num_samples = 1  # Different results for each picture.

    config.eval = ml_collections.ConfigDict()
    config.eval.batch_size = 64
    config.eval.num_images = 0  # 0: all.
    config.eval.protocol = "paper"  # paper, i2sb or clean-fid; docs/evaluation.md.
    # center, mixed, rectangles, free_form, or by its share free_form_10_20, _20_30 and
    # _30_40 (percent).
    config.eval.inpaint_mask = "center"
    config.eval.mask_file = ""  # The official masks of that share, an .npz file.
    config.eval.uncrop_side = "right"  # right, left, top, bottom, all or mixed.
    config.eval.jpeg_quality = 5

    config.parallel = ml_collections.ConfigDict()
    config.parallel.fsdp = 1  # Devices that share one copy of the parameters.
    config.parallel.slices = 0  # Of TPUs; 0: from the devices. fsdp stays in one.
    config.parallel.compile = "jit"  # pmap: whole copies on all devices, so fsdp = 1.
    return config


def _shorten(config: ml_collections.ConfigDict) -> None:
    """Changes what short runs learn, and their steps."""
    config.diffusion.objective = "velocity"
    config.sample.schedule = "trimmed"
    config.sample.clip = True
    config.sample.sampler = "unipc_2"
    config.sample.num_steps = 16


def _small(config: ml_collections.ConfigDict) -> None:
    config.data.image_size = 128
    config.model.base_features = 128
    config.model.feature_multipliers = (1, 2, 3, 4)
    config.model.attn_resolutions = (32, 16)
    config.optim.warmup_steps = 1000
    config.optim.ema_decay = 0.999
    config.train.batch_size = 64
    config.train.num_steps = 100_000
    config.train.checkpoint_every = 1000
    config.train.preview_every = 2000


def _tiny(config: ml_collections.ConfigDict) -> None:
    config.data.source = "sample_photos"
    config.data.image_size = 32
    config.data.min_scale = 0.3
    config.model.base_features = 32
    config.model.feature_multipliers = (1, 2, 2)
    config.model.num_res_blocks = 1
    config.model.attn_resolutions = (8,)
    config.model.dtype = "float32"
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 100
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.995
    config.train.batch_size = 16
    config.train.num_steps = 600
    config.train.log_every = 50
    config.train.checkpoint_every = 200
    config.train.preview_every = 300
    config.eval.batch_size = 32
    config.data.num_eval = 32
