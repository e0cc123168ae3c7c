"""Frozen networks on any number of pictures: one compiled function, large batches."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jaxtyping import UInt8

from palette_jax.types import Params


class Extractor:
    """A frozen network, compiled once for a batch of fixed size.

    A last batch that is not full is padded, so that nothing is compiled anew. Pictures
    of another height or width compile the resize anew, which is small, and not the
    network.

    Attributes:
      outputs: the names of what it returns.
      sha256: of the weight file; of two files, both hashes joined by a plus.
      batch_size: how many pictures go through the network at once.
    """

    outputs: tuple[str, ...]
    sha256: str
    batch_size: int

    def __init__(
        self,
        prepare: Callable[..., jax.Array],
        apply: Callable[..., Mapping[str, jax.Array]],
        params: Params,
        *,
        sha256: str,
        outputs: tuple[str, ...],
        batch_size: int = 64,
        mesh: jax.sharding.Mesh | None = None,
    ):
        """Prepares a function for use.

        Args:
          prepare: makes of bytes `[b, h, w, 3]` what the network takes.
          apply: `apply(params, *prepared)`, to arrays of `b` rows by name.
          params: the folded weights.
          sha256: of the file of the weights.
          outputs: the names that `apply` returns.
          batch_size: rounded up to what the devices divide.
          mesh: devices of this process among which each batch is split; the default
            is the first device.
        """
        raise NotImplementedError

    def __call__(
        self, *pictures: UInt8[np.ndarray, "n h w 3"]
    ) -> dict[str, np.ndarray]:
        """Returns the outputs, one row for each picture (or pair of pictures)."""
        raise NotImplementedError
