"""Uncropping: half of the picture, at one side or all around, is filled in.

    python main.py --config=configs/uncrop.py --workdir=runs/uncrop
    python main.py --mode=evaluate --workdir=runs/uncrop

Paper, section 5.3. Its model learns from ImageNet and Places2, and so does `paper`;
other sources are chosen by `data.*`, which base.py explains.

The variants are paper, small and tiny; config/base.py lists their sizes and machines.

A panorama is made of a model of this task by `palette-jax panorama PHOTO`.

The paper, not measured here, half of the picture missing at the right side: on
ctest10k FID 5.8, Inception Score 138.1, accuracy 63.4%, perceptual distance 85.9; on
places10k FID 3.53 and perceptual distance 103.3 (Table 3). The originals have 2.7,
250.1, 76.0% and 0, and 2.1 and 0. What small models reach is in docs/results.md.
"""

import ml_collections

from palette_jax.config import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "uncrop"
    if variant == "paper":
        config.data.extra_tfds_name = "places365_small"
    return config
