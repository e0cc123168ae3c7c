"""Saves arrays batch by batch, so that a stopped computation can resume.

Only host 0 reads and writes. It broadcasts which files exist, because all hosts must do
the same and the others may see another state of the disk.
"""

import hashlib
import io
from collections.abc import Callable, Mapping

import jax
import numpy as np
from etils import epath

from palette_jax import atomic, parallel

_HASH = "sha256"  # Of the other arrays in a file.


class BatchFiles:
    """Arrays by name, with a file for each batch."""

    def __init__(self, folder: epath.Path, count: int):
        """Opens the files of `count` batches."""
        self.folder = folder
        self._count = count

    def has(self, index: int) -> bool:
        """Returns whether a batch is saved; all hosts must call this equally often."""
        return on_host_0(lambda: self._load(index) is not None)

    def save(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Saves the arrays of a batch atomically."""
        if jax.process_index() == 0:
            file = io.BytesIO()
            np.savez(file, allow_pickle=False, **arrays, **{_HASH: _hash(arrays)})
            atomic.write_bytes(self._path(index), file.getvalue())

    def join(self) -> dict[str, np.ndarray]:
        """Returns the arrays of all batches, joined along their first axis."""
        loaded = [self._load(index) or {} for index in range(self._count)]
        return {name: np.concatenate([a[name] for a in loaded]) for name in loaded[0]}

    def _load(self, index: int) -> dict[str, np.ndarray] | None:
        """Returns the arrays that `save` wrote; None for any other file."""
        try:
            with np.load(io.BytesIO(self._path(index).read_bytes())) as file:
                arrays = dict(file)
            return arrays if arrays.pop(_HASH) == _hash(arrays) else None
        except Exception:  # A damaged archive can raise almost anything.
            return None

    def _path(self, index: int) -> epath.Path:
        return self.folder / f"{index:05}.npz"


def on_host_0(is_so: Callable[[], bool]) -> bool:
    """Returns host 0's answer on every host."""
    answer = jax.process_index() == 0 and is_so()
    return bool(parallel.from_host_0(float(answer)))


def _hash(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return np.array(digest.hexdigest())
