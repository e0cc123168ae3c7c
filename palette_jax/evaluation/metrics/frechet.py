"""The Fréchet distance between two sets of features (Heusel et al. 2017), in float64.

Statistics are computed batch by batch and merged, so a set may have any size.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float, Float64

from palette_jax import atomic
from palette_jax.errors import MetricError
from palette_jax.evaluation.metrics.pictures import refuse_not_finite

# The rounding error of the distance of a set to itself, relative to the spread.
_ROUNDING = 1e-10
_PUBLIC = ("mu", "sigma")  # The arrays in files of pytorch-fid and clean-fid.


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and spread of the features of some pictures.

    Attributes:
      scatter: the sum of the outer products of the centred features.
    """

    count: int
    mean: Float64[np.ndarray, " f"]
    scatter: Float64[np.ndarray, "f f"]

    @property
    def covariance(self) -> Float64[np.ndarray, "f f"]:
        """The covariance of two pictures or more, with the divisor `count - 1`."""
        return self.scatter / (self.count - 1)


def statistics(features: Float[np.ndarray, "n f"], names: Sequence[str]) -> Statistics:
    """Returns the statistics of a batch of one picture or more.

    Raises:
      MetricError: naming the files whose features are not finite.
    """
    refuse_not_finite(features, names)
    rows = features.astype(np.float64)
    mean = rows.mean(0)
    centred = rows - mean
    return Statistics(len(rows), mean, centred.T @ centred)


def merge(first: Statistics, second: Statistics) -> Statistics:
    """Returns the statistics of the union of both sets."""
    count = first.count + second.count
    step = second.mean - first.mean
    mean = first.mean + step * (second.count / count)
    between = np.outer(step, step) * (first.count * second.count / count)
    return Statistics(count, mean, first.scatter + second.scatter + between)


def distance(first: Statistics, second: Statistics) -> float:
    """Returns the Fréchet distance: 0 for equal sets, and never negative.

    The trace of the root of the product of both covariances is the sum of the singular
    values of the product of their roots. This needs no root of an unsymmetric matrix,
    and no regularization for few pictures.

    Raises:
      MetricError: if the sets have different features.
    """
    if len(first.mean) != len(second.mean):
        raise MetricError(
            f"expected the same features of both sets, got {len(first.mean)} and"
            f" {len(second.mean)} of them"
        )
    one, two = first.covariance, second.covariance
    shift = np.square(first.mean - second.mean).sum()
    spread = np.trace(one) + np.trace(two)
    common = np.linalg.svd(_root(one).T @ _root(two), compute_uv=False).sum()
    found = float(shift + spread - 2 * common)
    return found if found > _ROUNDING * spread else 0.0


def _root(covariance: Float64[np.ndarray, "f f"]) -> Float64[np.ndarray, "f r"]:
    """Returns a matrix R with R R^T equal to the covariance."""
    values, vectors = np.linalg.eigh(covariance)
    positive = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, positive] * np.sqrt(values[positive])


def find(path: epath.PathLike) -> dict[str, Statistics] | None:
    """Returns the statistics that `keep` wrote; warns of a damaged file."""
    path = epath.Path(path)
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            names = {key.rpartition("/")[0] for key in arrays}
            return {
                name: Statistics(
                    int(arrays[f"{name}/count"]),
                    arrays[f"{name}/mean"],
                    arrays[f"{name}/scatter"],
                )
                for name in sorted(names)
            }
    except Exception as error:  # A damaged archive can raise almost anything.
        logging.warning("%s is damaged (%s); it is computed again", path, error)
        return None


def keep(path: epath.PathLike, by_name: Mapping[str, Statistics]) -> None:
    """Writes statistics by feature name, atomically; only warns if it cannot."""
    path, buffer = epath.Path(path), io.BytesIO()
    arrays = {
        f"{name}/{field}": value
        for name, found in by_name.items()
        for field, value in vars(found).items()
    }
    np.savez(buffer, allow_pickle=False, **arrays)
    try:
        atomic.write_bytes(path, buffer.getvalue())
    except OSError as error:
        logging.warning("could not save the statistics in %s: %s", path, error)


def save_public(path: epath.PathLike, found: Statistics) -> None:
    """Writes `mu` and `sigma` in the format of pytorch-fid and clean-fid."""
    buffer = io.BytesIO()
    np.savez(buffer, mu=found.mean, sigma=found.covariance)
    atomic.write_bytes(path, buffer.getvalue())


def read_public(path: epath.PathLike) -> dict[str, Statistics]:
    """Returns the statistics of a file of pytorch-fid or clean-fid, by feature name.

    Raises:
      MetricError: if the file has no matching `mu` and `sigma`.
    """
    try:
        data = io.BytesIO(epath.Path(path).read_bytes())
        with np.load(data, allow_pickle=False) as arrays:
            mean, covariance = (arrays[key].astype(np.float64) for key in _PUBLIC)
    except Exception as error:  # A damaged archive can raise almost anything.
        raise MetricError(
            f"expected the statistics of pytorch-fid or clean-fid in {path}, an .npz"
            f" file with mu and sigma, got {type(error).__name__}: {error}; write one"
            " with --save-statistics"
        ) from error
    shapes = mean.shape, covariance.shape
    is_square = mean.ndim == 1 and covariance.shape == (len(mean), len(mean))
    if not is_square or not all(np.isfinite(a).all() for a in (mean, covariance)):
        raise MetricError(
            f"expected finite mu [f] and sigma [f, f] in {path}, got shapes {shapes[0]}"
            f" and {shapes[1]}, or values that are not finite"
        )
    # The file lacks the number of pictures. With two, the scatter is the covariance.
    return {str(len(mean)): Statistics(2, mean, covariance)}
