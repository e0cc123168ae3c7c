"""The evaluation pictures, restored by the averaged weights of a run."""

from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import UInt8

from palette_jax import build, build_data, parallel, processes
from palette_jax.training import checkpoints

SHEET_ROWS = 16


class Restored:
    """A checkpoint at work on the evaluation set.

    Attributes:
      step: of the checkpoint.
    """

    def __init__(self, config: ml_collections.ConfigDict, workdir: str):
        """Loads the newest checkpoint, its averaged weights alone."""
        self._config = config
        self._stop = processes.StopFlag()
        mesh = parallel.make_mesh(fsdp=config.parallel.fsdp)
        shapes = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
        abstract = parallel.with_shardings(
            shapes, parallel.param_shardings(mesh, shapes)
        )
        self._params, self.step = checkpoints.restore_params(
            epath.Path(workdir) / "checkpoints", abstract
        )
        self._restore = build.make_restore(config, mesh)

    def batches(
        self, task: str
    ) -> Iterator[tuple[dict[str, Any], UInt8[np.ndarray, "n b h w 3"]]]:
        """Yields each batch of a task without its padding, and its results.

        Every host gets all of them, and host 0 writes what comes of them.

        Raises:
          Stopped: when told to.
        """
        count = 0
        for batch in build_data.eval_batches(self._config, task):
            samples = []
            for index in range(self._config.sample.num_samples):
                if self._stop.poll():
                    raise processes.Stopped
                restored = self._restore(self._params, batch, index)
                samples.append(parallel.gather(restored))
            batch = parallel.gather_batch(batch)
            valid = np.flatnonzero(batch["valid"])
            count += len(valid)
            logging.info("%s: %d pictures restored", task, count)
            yield (
                {name: value[valid] for name, value in batch.items()},
                np.stack(samples)[:, valid],
            )
