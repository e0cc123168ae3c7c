"""Runs frozen networks on any number of pictures, with one compiled function."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import UInt8

from palette_jax.types import Params


class Extractor:
    """A frozen network, compiled once for a batch of fixed size.

    The last batch is padded, so that nothing is compiled again. Pictures of another
    size compile only the small resizing function if the network has a fixed input size.

    Attributes:
      sha256: of the weight file; for two files, both hashes joined by a plus.
    """

    def __init__(
        self,
        prepare: Callable[[jax.Array], jax.Array],
        apply: Callable[..., Any],
        params: Params,
        *,
        sha256: str,
        outputs: tuple[str, ...],
        batch_size: int = 64,
        mesh: Mesh | None = None,
    ):
        """Puts the weights on the devices.

        Args:
          prepare: converts bytes `[b, h, w, 3]` to the input of the network.
          apply: `apply(params, *prepared)`, to arrays of `b` rows by name.
          params: the folded weights.
          sha256: of the file of the weights.
          outputs: the names that `apply` returns.
          batch_size: rounded up to a multiple of the number of devices.
          mesh: devices of this process that share each batch; the default is the
            first device.
        """
        mesh = mesh or Mesh(np.array(jax.local_devices()[:1]), "data")
        self.outputs, self.sha256 = outputs, sha256
        self.batch_size = -(-batch_size // mesh.size) * mesh.size
        self._split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        whole = NamedSharding(mesh, PartitionSpec())
        self._params = jax.device_put(params, whole)
        self._prepare = jax.jit(prepare, out_shardings=self._split)
        # The host reads each device's rows: no device waits for another.
        self._apply = jax.jit(apply, out_shardings=self._split)

    def __call__(
        self, *pictures: UInt8[np.ndarray, "n h w 3"]
    ) -> dict[str, np.ndarray]:
        """Returns the outputs, one row for each picture (or pair of pictures)."""
        count = len(pictures[0])
        rows: list[Any] = []
        for start in range(0, count, self.batch_size):
            share = [some[start : start + self.batch_size] for some in pictures]
            rows.append(self._run(share))
            if len(rows) > 1:  # The devices compute the next batch meanwhile.
                rows[-2] = jax.tree.map(np.asarray, rows[-2])
        joined = {name: [row[name] for row in rows] for name in self.outputs}
        return {name: np.concatenate(all_)[:count] for name, all_ in joined.items()}

    def _run(self, share: list[np.ndarray]) -> Mapping[str, jax.Array]:
        """Returns the outputs of one batch, padded with black pictures."""
        padding = [(0, self.batch_size - len(share[0])), (0, 0), (0, 0), (0, 0)]
        # By default accelerators multiply with 8 or 11 bits, which changes features.
        with jax.default_matmul_precision("float32"):
            prepared = [
                self._prepare(jax.device_put(np.pad(some, padding), self._split))
                for some in share
            ]
            return self._apply(self._params, *prepared)
