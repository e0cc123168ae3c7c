"""Inception-v1 (GoogLeNet), whose pooled features give the perceptual distance.

The paper names the network and the layer, and not the weights: these are torchvision's,
so compare these distances among themselves and not with the paper's.
"""

import jax
from etils import epath

from palette_jax.metrics.extractor import Extractor


def load(
    path: epath.PathLike,
    *,
    batch_size: int = 64,
    mesh: jax.sharding.Mesh | None = None,
) -> Extractor:
    """Returns the network; its output is "pool", 1024 features for each picture.

    Raises:
      WeightsError: if the file holds other weights, or is damaged.
    """
    raise NotImplementedError
