r"""Any task without code: a folder of inputs and a folder of targets.

    python main.py --config=configs/paired.py:small --workdir=runs/maps \
      --config.data.input_folder=MAPS --config.data.target_folder=PHOTOS

`MAPS/x/1.png` belongs to `PHOTOS/x/1.jpg`: the same path and stem. Both are cropped and
flipped in the same way; pictures of a pair may differ in size, not in aspect. The hash
of the names selects the `data.num_eval` held-out pairs.

The variants are paper, small and tiny; config/base.py lists their sizes and machines.

The paper has no such task, so there is no number to expect.
"""

import ml_collections

from palette_jax.config import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "paired"
    config.data.source = "paired"
    return config
