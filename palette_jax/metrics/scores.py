"""Numbers made of a classifier's outputs: Inception Score, accuracy, a distance."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Integer


def inception_score(
    logits: Float[np.ndarray, "n classes"], names: Sequence[str], *, splits: int = 10
) -> tuple[float, float]:
    """Returns mean and deviation over the splits (Salimans et al. 2016).

    Args:
      logits: of Inception-v3.
      names: of the files, for the message.
      splits: consecutive parts, each with a score of its own; 10 in all publications.

    Raises:
      MetricError: if there are fewer pictures than splits, or logits are not finite.
    """
    raise NotImplementedError


def top1_accuracy(
    logits: Float[np.ndarray, "n classes"], labels: Integer[np.ndarray, " n"]
) -> float:
    """Returns the share of pictures whose highest logit is that of their class, 0 to 1.

    Raises:
      MetricError: if a label is not one of the classes.
    """
    raise NotImplementedError


def feature_distances(
    features: Float[np.ndarray, "n f"], reference: Float[np.ndarray, "n f"]
) -> Float64[np.ndarray, " n"]:
    """Returns the Euclidean distance of each pair; its mean is the perceptual distance.

    Both come from `inception_v1`'s "pool".
    """
    raise NotImplementedError
