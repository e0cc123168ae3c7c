"""LPIPS with AlexNet (Zhang et al. 2018, version 0.1): a learned distance of pairs."""

import jax
from etils import epath

from palette_jax.metrics.extractor import Extractor


def load(
    alexnet: epath.PathLike,
    linear: epath.PathLike,
    *,
    batch_size: int = 32,
    mesh: jax.sharding.Mesh | None = None,
) -> Extractor:
    """Returns the distance: call it with two sets of pictures, take "lpips".

    Pictures are taken at their own size, 32 pixels or more.

    Args:
      alexnet: torchvision's weights, `weight_files.find("alexnet")`.
      linear: the weights of the channels, `weight_files.find("lpips")`.
      batch_size: pairs that go through the network at once.
      mesh: as in `Extractor`.

    Raises:
      WeightsError: if a file holds other weights, or is damaged.
    """
    raise NotImplementedError
