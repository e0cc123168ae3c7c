"""The evaluation pictures, restored by the averaged weights of a run."""

from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import UInt8

from palette_jax import parallel, processes
from palette_jax.config import build, build_data
from palette_jax.evaluation.parts import Pictures
from palette_jax.training import checkpoints, manifest

SHEET_ROWS = 16


class Restored:
    """A checkpoint at work on the evaluation set.

    Attributes:
      source: the pictures to evaluate on.
      step: of the checkpoint.
      fingerprint: a hash of its files; empty for those of first versions.
    """

    def __init__(self, config: ml_collections.ConfigDict, workdir: str):
        """Loads the newest checkpoint, its averaged weights alone."""
        self._config = config
        self.source = build_data.eval_source(config)
        self._stop = processes.StopFlag()
        mesh = build.make_mesh(config)
        shapes = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
        abstract = parallel.with_shardings(
            shapes, parallel.param_shardings(mesh, shapes)
        )
        folder = epath.Path(workdir) / "checkpoints"
        self._params, self.step = checkpoints.restore_params(folder, abstract)
        self.fingerprint = manifest.fingerprint(folder / str(self.step))
        self._restore = build.make_restore(config, mesh)

    def batches(
        self, task: str, *, kept: Pictures | None = None
    ) -> Iterator[tuple[dict[str, Any], UInt8[np.ndarray, "n b h w 3"]]]:
        """Yields each batch of a task without its padding, and its results.

        Every host gets all of them, and host 0 writes what comes of them.

        Args:
          task: of those that the model knows.
          kept: where results are kept as they are made; those that are there already
            are taken and not made anew.

        Raises:
          Stopped: when told to.
        """
        count = 0
        for batch in build_data.eval_batches(self._config, task, source=self.source):
            whole = parallel.gather_batch(batch)
            valid = np.flatnonzero(whole["valid"])
            whole = {name: value[valid] for name, value in whole.items()}
            count += len(valid)
            if kept and kept.has(whole["name"].tolist()):
                self.check_stop()
                height, width = whole["y"].shape[1:3]
                yield whole, kept.samples(whole["name"].tolist(), height, width)
                continue
            samples = self._samples(batch)[:, valid]
            if kept:
                kept.save(whole, samples)
            logging.info("%s: %d pictures restored", task, count)
            yield whole, samples

    def check_stop(self) -> None:
        """Raises `Stopped` when told to stop; all hosts must ask equally often."""
        if self._stop.poll():
            raise processes.Stopped

    def _samples(self, batch: dict[str, np.ndarray]) -> UInt8[np.ndarray, "n b h w 3"]:
        samples = []
        for index in range(self._config.sample.num_samples):
            self.check_stop()
            restored = self._restore(self._params, batch, index)
            samples.append(parallel.gather(restored))
        return np.stack(samples)
