"""Arrays that are kept batch by batch, so that what was stopped goes on there.

Host 0 alone writes and reads, and tells the others what is there: their view of a disk
may be another, and all must do the same.
"""

import io
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from palette_jax import atomic, parallel


class BatchFiles:
    """Arrays by name, a file for each batch.

    Attributes:
      folder: where they are.
    """

    def __init__(self, folder: epath.Path, count: int):
        """Opens the files of `count` batches."""
        self.folder = folder
        self._count = count

    def has(self, index: int) -> bool:
        """Returns whether a batch is done; all hosts must ask equally often."""
        return on_host_0(lambda: _is_whole(self._path(index)))

    def save(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps the arrays of a batch: whole or not at all."""
        if jax.process_index() == 0:
            file = io.BytesIO()
            # A name may hold a slash in a zip file, where it would be a folder.
            renamed: dict[str, Any] = {
                name.replace("/", "|"): array for name, array in arrays.items()
            }
            np.savez(file, **renamed)
            write_whole(self._path(index), file.getvalue())

    def join(self) -> dict[str, np.ndarray]:
        """Returns the arrays of all batches, joined along their first axis."""
        loaded = [self._load(index) for index in range(self._count)]
        return {name: np.concatenate([a[name] for a in loaded]) for name in loaded[0]}

    def _load(self, index: int) -> dict[str, np.ndarray]:
        with np.load(io.BytesIO(self._path(index).read_bytes())) as arrays:
            return {name.replace("|", "/"): arrays[name] for name in arrays.files}

    def _path(self, index: int) -> epath.Path:
        return self.folder / f"{index:05}.npz"


def on_host_0(is_so: Callable[[], bool]) -> bool:
    """Returns on every host what a question is answered with on host 0."""
    said = jax.process_index() == 0 and is_so()
    return bool(parallel.from_host_0(float(said)))


def write_whole(path: epath.Path, content: bytes) -> None:
    """Writes a file that is whole or not there, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, content)


def _is_whole(path: epath.Path) -> bool:
    """Returns whether a file of arrays is there and was not cut off."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return zipfile.is_zipfile(file)
