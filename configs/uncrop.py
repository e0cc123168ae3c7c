"""Uncropping: half of the picture at one side, or around it, is painted anew.

python main.py --config=configs/uncrop.py --workdir=runs/uncrop
"""

import ml_collections

from configs import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "uncrop"
    return config
