"""Metrics from a classifier's outputs: Inception Score, accuracy, a distance."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Integer

from palette_jax.errors import MetricError
from palette_jax.evaluation.metrics.pictures import refuse_not_finite

SPLITS = 10  # In all publications.


def inception_score(
    logits: Float[np.ndarray, "n classes"],
    names: Sequence[str],
    *,
    in_order: bool = False,
) -> float:
    """Returns the mean over `SPLITS` parts of the pictures (Salimans et al. 2016).

    The pictures of a published list are split in their order. Others are shuffled by a
    hash of their names: if they were sorted by class, each split would have few classes
    and a score several times too small.

    Raises:
      MetricError: if logits are not finite.
    """
    refuse_not_finite(logits, names)
    if not in_order:
        hashes = [hashlib.sha256(name.encode("utf8", "replace")) for name in names]
        digests = [digest.hexdigest() for digest in hashes]
        logits = logits[sorted(range(len(names)), key=digests.__getitem__)]
    shifted = logits.astype(np.float64)
    shifted = shifted - shifted.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    scores = []
    for part in range(SPLITS):
        start, end = (len(logits) * i // SPLITS for i in (part, part + 1))
        some = log_p[start:end]
        marginal = np.exp(some).mean(0, keepdims=True)
        # A class with p = 0 in all pictures of the split adds nothing.
        terms = np.exp(some) * (some - np.log(np.maximum(marginal, 1e-300)))
        scores.append(np.exp(terms.sum(1).mean()))
    return float(np.mean(scores))


def is_right(
    logits: Float[np.ndarray, "n classes"], labels: Integer[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Returns for each picture whether its class has the highest logit.

    Raises:
      MetricError: if a label is not one of the classes, or a logit is not finite.
    """
    classes = logits.shape[1]
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise MetricError(f"expected labels of 0 to {classes - 1}, got {wrong[0]}")
    if not np.isfinite(logits).all():
        raise MetricError("expected finite logits, got NaN or infinity")
    return logits.argmax(1) == labels


def feature_distances(
    features: Float[np.ndarray, "n f"], reference: Float[np.ndarray, "n f"]
) -> Float64[np.ndarray, " n"]:
    """Returns the Euclidean distance of each pair; its mean is the perceptual distance.

    Both come from `inception_v1`'s "pool".
    """
    return np.linalg.norm(features.astype(np.float64) - reference, axis=1)
