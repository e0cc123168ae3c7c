"""Inpainting: strokes and rectangles are painted anew (paper, section 5.2).

    python main.py --config=configs/inpaint.py --workdir=runs/inpaint
    python main.py --mode=evaluate --workdir=runs/inpaint

This is the paper's model "I", of ImageNet alone. Its model "I+P" mixes Places2 in:

    --config.data.extra_tfds_name=places365_small --config.data.extra_weight=0.5

The variants and what each asks of the machine are in base.py.

The paper, not measured here, model I, on ctest10k with the centre of 128 x 128 pixels
missing: FID 6.4, Inception Score 173.3, accuracy 69.7%, perceptual distance 58.8; with
free-form masks of 20 to 30%: 5.2, 208.6, 72.6% and 27.4 (Table 9). The originals have
5.1, 231.6, 74.6% and 0. What small models reach is in docs/results.md.
"""

import ml_collections

from configs import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "inpaint"
    return config
