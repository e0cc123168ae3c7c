"""Old photographs: fading, blur, grain, scratches and compression are undone.

    palette-jax train --config=old_photo:small --workdir=runs/old_photo
    palette-jax evaluate --workdir=runs/old_photo

The damage is drawn for each picture (palette_jax/data/degradations.py).

The variants are paper, small and tiny; config/base.py lists their sizes and machines.

The paper has no such task, so there is no number to expect.
"""

import ml_collections

from palette_jax.config import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "old_photo"
    return config
