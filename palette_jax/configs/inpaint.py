"""Inpainting: strokes and rectangles are filled in (paper, section 5.2).

    python main.py --config=configs/inpaint.py --workdir=runs/inpaint
    python main.py --mode=evaluate --workdir=runs/inpaint

This is the paper's model "I", of ImageNet alone. Its model "I+P" mixes Places2 in:

    --config.data.extra_tfds_name=places365_small --config.data.extra_weight=0.5

Any two sources do: a folder is `data.extra_folder`, and the weight its share of the
examples.

The variants are paper, small and tiny; config/base.py lists their sizes and machines.

The paper, not measured here, model I, on ctest10k with the centre of 128 x 128 pixels
missing: FID 6.4, Inception Score 173.3, accuracy 69.7%, perceptual distance 58.8; with
free-form masks of 20 to 30%: 5.2, 208.6, 72.6% and 27.4 (Table 9). Model I+P has 6.6,
173.9, 69.3% and 59.5, and 5.2, 205.5, 72.3% and 27.6. The originals have 5.1, 231.6,
74.6% and 0. What small models reach is in docs/results.md.

The study of attention (Table 5) is this config after half of the steps, with

    --config.train.batch_size=512 --config.train.num_steps=500000
    --config.model.attention=global, local, dilated or more_blocks

The paper, not measured here, parameters, FID, Inception Score, perceptual distance:
global 552M, 7.4, 164.8, 67.1; local 552M, 9.4, 149.8, 78.2; dilated 624M, 8.0, 157.5,
70.6; more_blocks 603M, 8.1, 157.1, 71.9. With `--config.diffusion.loss_norm=l1` it has
FID 3.6, perceptual distance 41.9, LPIPS between samples 0.11; with L2 3.6, 43.8, 0.13
(Table 6, on masks that are not stated).
"""

import ml_collections

from palette_jax.config import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "inpaint"
    return config
