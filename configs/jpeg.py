"""JPEG restoration: the source was compressed at quality 5 to 30.

python main.py --config=configs/jpeg.py --workdir=runs/jpeg
"""

import ml_collections

from configs import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "jpeg"
    return config
