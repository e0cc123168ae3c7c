"""Inception-v3 of 2015-12-05, the network that FID and Inception Score are defined by.

Its features are those of pytorch-fid: the same key names, poolings and resize. FID by
another resize (TensorFlow 1's, or one that antialiases) is another number.
"""

import jax
from etils import epath

from palette_jax.metrics.extractor import Extractor

FEATURES = ("64", "192", "768", "2048")
"""The names of the features, by their number of channels, shallow to deep."""
LOGITS = "logits"
"""1008 class scores before the softmax; no bias, as in the score's own program."""


def find(*, folder: epath.PathLike | None = None) -> epath.Path:
    """Returns the weight file, or the one cut off after the 768-d feature.

    Raises:
      MissingWeightsError: if neither is there.
    """
    raise NotImplementedError


def load(
    path: epath.PathLike,
    *,
    batch_size: int = 64,
    mesh: jax.sharding.Mesh | None = None,
) -> Extractor:
    """Returns the network, from pictures of any one size to features by name.

    Its `outputs` are "64", "192", "768", "2048" (means over the positions) and
    "logits"; a file that ends after Mixed_6e has no "2048" and no "logits".

    Raises:
      WeightsError: if the file holds other weights, or is damaged.
    """
    raise NotImplementedError
