"""Colorization: the source is the picture's luma (paper, section 5.1).

    python main.py --config=configs/colorize.py --workdir=runs/colorize
    python main.py --mode=evaluate --workdir=runs/colorize

The variants are paper, small and tiny; config/base.py lists their sizes and machines.

The paper, not measured here: FID 15.78 on the first 5,000 validation pictures of
ImageNet (Table 1); on ctest10k FID 3.4, Inception Score 212.9, accuracy 72.0%,
perceptual distance 48.0 (Table 7); the regression baseline, which is
`--config.diffusion.objective=regress`, 5.5, 176.9, 68.0% and 61.1. The originals have
2.7, 250.1, 76.0% and 0. Trained with `--config.diffusion.loss_norm=l1` it has 3.4,
215.8, 71.9% and 45.8, and LPIPS between samples is 0.09 instead of 0.15 (Tables 6 and
8). What small models reach is in docs/results.md.
"""

import ml_collections

from palette_jax.config import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "colorize"
    return config
