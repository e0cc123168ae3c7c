"""One model for several tasks, which are drawn anew for each picture (Table 7).

    python main.py --config=configs/multitask.py --workdir=runs/multitask

The paper's model knows colorization, inpainting and JPEG restoration; the small ones
here know uncropping as well.
"""

import ml_collections

from configs import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "multitask"
    if variant != "paper":
        config.mix.uncrop = 1.0
    return config
