"""Inpainting: strokes and rectangles are painted anew (paper, section 5.2).

python main.py --config=configs/inpaint.py --workdir=runs/inpaint
"""

import ml_collections

from configs import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "inpaint"
    return config
