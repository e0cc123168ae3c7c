"""Restores the evaluation pictures with the averaged weights of a run."""

import concurrent.futures
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Bool, UInt8

from palette_jax import parallel, processes
from palette_jax.config import build, build_data
from palette_jax.evaluation.batch_files import on_host_0
from palette_jax.evaluation.metrics import distortion, pictures
from palette_jax.pictures import sheets, walk
from palette_jax.training import checkpoints, manifest

SHEET_ROWS = 16


def file_names(names: Sequence[str]) -> dict[str, str]:
    """Returns the name of the results of each picture, without extension.

    With `1.jpg` and `1.png`, the second is `1.png`; `photo/1.2` has no extension.
    """
    stems: dict[str, str] = {}
    for name in names:
        wanted = itertools.chain(
            [walk.stem(name)], (f"{name}{'_' * n}" for n in itertools.count())
        )
        stems[next(text for text in wanted if text not in stems)] = name
    return {name: stem for stem, name in stems.items()}


class Folders:
    """The pictures of a task as PNG files, in a folder for each kind.

    The kinds are `given`, `original`, `mask` (white at painted pixels), `trivial` (the
    trivial baseline), `sample_0` and so on, and the `mean` of several samples.

    Attributes:
      samples: the kinds of the results.
    """

    def __init__(self, folder: epath.Path, names: Sequence[str], num_samples: int):
        """Opens the folders for pictures of these names."""
        self.folder = folder
        self.samples = [f"sample_{index}" for index in range(num_samples)]
        self._files = file_names(names)

    def files(self, kind: str, names: Sequence[str]) -> dict[str, epath.Path]:
        """Returns the files of a kind by the pictures' names without extension."""
        stems = [self._files[name] for name in names]
        return {stem: self.folder / kind / f"{stem}.png" for stem in stems}

    def has(self, names: Sequence[str]) -> bool:
        """Returns whether the samples of pictures exist; all hosts must call this."""
        return on_host_0(
            lambda: all(
                path.exists()
                for kind in self.samples
                for path in self.files(kind, names).values()
            )
        )

    def save(
        self, batch: Mapping[str, np.ndarray], samples: UInt8[np.ndarray, "n b h w 3"]
    ) -> None:
        """Saves a batch; the samples last, because `has` checks them."""
        if jax.process_index() != 0:
            return
        hole, names = batch["hole"], batch["name"].tolist()
        paints = np.where(hole.any((1, 2, 3), keepdims=True), hole, 1)
        kinds = {
            "given": np.where(hole > 0, 128, batch["x"]),
            "original": batch["y"],
            "mask": 255 * paints[..., 0],
            "trivial": np.round(distortion.trivial_estimate(batch["x"], hole)),
        }
        if len(samples) > 1:
            kinds["mean"] = np.round(samples.mean(0))
        kinds |= dict(zip(self.samples, samples, strict=True))
        write = functools.partial(sheets.save_png, compress_level=1)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for kind, arrays in kinds.items():
                paths = self.files(kind, names).values()
                list(pool.map(write, paths, arrays.astype(np.uint8)))


class Restored:
    """Restores the evaluation pictures with a checkpoint.

    Attributes:
      fingerprint: a hash of its files; empty for checkpoints of first versions.
    """

    def __init__(self, config: ml_collections.ConfigDict, workdir: str):
        """Loads only the averaged weights of the newest checkpoint."""
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

    def look(self, task: str) -> tuple[list[str], Bool[np.ndarray, " n"]]:
        """Returns the readable pictures, and which of them are gray.

        Checking them first avoids an error after hours of sampling.
        """
        names, gray = [], []
        for batch in build_data.eval_batches(self._config, task, source=self.source):
            self.check_stop()
            own = {"gray": pictures.is_gray(batch["y"])}
            whole = parallel.gather_batch(
                own | {name: batch[name] for name in ("name", "valid")}
            )
            names += whole["name"][whole["valid"]].tolist()
            gray.append(whole["gray"][whole["valid"]])
        return names, np.concatenate(gray)

    def batches(
        self, task: str, *, saved: Folders | None = None
    ) -> Iterator[tuple[dict[str, Any], UInt8[np.ndarray, "n b h w 3"]]]:
        """Yields each batch of a task without its padding, and its results.

        Every host gets all batches, and host 0 writes the files.

        Raises:
          Stopped: on a request to stop.
        """
        count = 0
        for batch in build_data.eval_batches(self._config, task, source=self.source):
            whole = parallel.gather_batch(batch)
            valid = np.flatnonzero(whole["valid"])
            whole = {name: value[valid] for name, value in whole.items()}
            count += len(valid)
            if saved and saved.has(whole["name"].tolist()):
                self.check_stop()
                continue
            samples = self._samples(batch)[:, valid]
            logging.info("%s: %d pictures restored", task, count)
            yield whole, samples

    def into_folders(self, task: str, folders: Folders, names: Sequence[str]) -> None:
        """Restores the pictures of these names that are not in the folders yet.

        Raises:
          Stopped: on a request to stop.
        """
        if folders.has(names):
            return
        for batch, samples in self.batches(task, saved=folders):
            folders.save(batch, samples)

    def check_stop(self) -> None:
        """Raises `Stopped` on a request to stop; all hosts must call equally often."""
        if self._stop.poll():
            raise processes.Stopped

    def _samples(self, batch: dict[str, np.ndarray]) -> UInt8[np.ndarray, "n b h w 3"]:
        samples = []
        for index in range(self._config.sample.num_samples):
            self.check_stop()
            restored = self._restore(self._params, batch, index)
            samples.append(parallel.gather(restored))
        return np.stack(samples)
