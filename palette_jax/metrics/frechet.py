"""The Fréchet distance between two sets of features (Heusel et al. 2017), in float64.

Statistics are summed up batch by batch and merged, so a set may be of any length.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from etils import epath
from jaxtyping import Float, Float64


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and spread of the features of some pictures.

    Attributes:
      count: how many pictures.
      mean: of the features.
      scatter: the sum of the outer products of the features less their mean.
    """

    count: int
    mean: Float64[np.ndarray, " f"]
    scatter: Float64[np.ndarray, "f f"]

    @property
    def covariance(self) -> Float64[np.ndarray, "f f"]:
        """The covariance, with the divisor `count - 1`.

        Raises:
          MetricError: if there are fewer than two pictures.
        """
        raise NotImplementedError


def statistics(features: Float[np.ndarray, "n f"], names: Sequence[str]) -> Statistics:
    """Returns the statistics of a batch of one picture or more.

    Args:
      features: of each picture.
      names: of the files, for the message.

    Raises:
      MetricError: naming the files whose features are not finite.
    """
    raise NotImplementedError


def merge(first: Statistics, second: Statistics) -> Statistics:
    """Returns the statistics of both sets together."""
    raise NotImplementedError


def distance(first: Statistics, second: Statistics) -> float:
    """Returns the Fréchet distance: 0 for equal sets, and never negative.

    Raises:
      MetricError: if either set has fewer than two pictures, or if the features of
        the one are not those of the other.
    """
    raise NotImplementedError


def reference_hash(
    files: Mapping[str, int], *, resize: str, crop: str, weights: str
) -> str:
    """Returns a hash that tells two references apart, in 16 hexadecimal digits.

    Args:
      files: bytes of each file by its name below the folder; in any order.
      resize: how the pictures were resized, in words, such as "256 area".
      crop: how they were cropped, in words.
      weights: the sha256 of the network's file.
    """
    raise NotImplementedError


def cached(
    path: epath.PathLike, compute: Callable[[], Mapping[str, Statistics]]
) -> dict[str, Statistics]:
    """Returns the statistics by feature name from a file, or computes and keeps them.

    A file that cannot be read is computed anew, and so is never an error. Name the file
    by `reference_hash`.
    """
    raise NotImplementedError


def save(path: epath.PathLike, by_name: Mapping[str, Statistics]) -> None:
    """Writes statistics by feature name, whole or not at all."""
    raise NotImplementedError


def read(path: epath.PathLike) -> dict[str, Statistics]:
    """Returns what `save` wrote.

    Raises:
      MetricError: if the file is damaged, or of another kind.
    """
    raise NotImplementedError
