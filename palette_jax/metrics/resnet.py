"""ResNet-50, whose top-1 accuracy on restored pictures the paper reports."""

import jax
from etils import epath

from palette_jax.metrics.extractor import Extractor


def load(
    path: epath.PathLike,
    *,
    batch_size: int = 64,
    mesh: jax.sharding.Mesh | None = None,
) -> Extractor:
    """Returns the network; its output is "logits", 1000 scores for each picture.

    The key names are torchvision's. Pictures are prepared as these weights are
    published with: short side to 256, the central 224 x 224, mean and deviation of
    ImageNet.

    Raises:
      WeightsError: if the file holds other weights, or is damaged.
    """
    raise NotImplementedError
