"""Colorization: the source is the picture's luma (paper, section 5.1).

python main.py --config=configs/colorize.py --workdir=runs/colorize
"""

import ml_collections

from configs import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "colorize"
    return config
