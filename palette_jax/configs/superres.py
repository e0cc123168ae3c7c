"""Super-resolution: four times as many pixels on each side.

    palette-jax train --config=superres:small --workdir=runs/superres
    palette-jax evaluate --workdir=runs/superres

The task of SR3 (Saharia et al. 2021), by authors of the paper; the network is given the
small picture enlarged. Sizes are those of the large picture.

The variants are paper, small and tiny; config/base.py lists their sizes and machines.

The paper has no such task, so there is no number to expect.
"""

import ml_collections

from palette_jax.config import base


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration of a variant: paper, small or tiny."""
    config = base.get_config(variant)
    config.task = "superres"
    return config
