"""Results that are kept as they are made, so that what was stopped goes on there.

Host 0 alone writes and reads, and tells the others what is there: their view of a disk
may be another, and all must do the same.
"""

import concurrent.futures
import io
import itertools
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from palette_jax import atomic, parallel

STATISTICS_FOLDER = "~/.cache/palette_jax/statistics"
"""Of the pictures that Fréchet distances refer to, by their hash."""

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


def file_names(names: Sequence[str]) -> dict[str, str]:
    """Returns for each picture's name the name of its results, without an ending.

    Of `1.jpg` and `1.png` the second is `1.png`; `photo/1.2` has no ending to drop.
    """
    stems: dict[str, str] = {}
    for name in names:
        has_ending = name.lower().endswith(_EXTENSIONS)
        stem = name.rsplit(".", 1)[0] if has_ending else name
        wanted = itertools.chain(
            [stem], (f"{name}{'_' * n}" for n in itertools.count())
        )
        stems[next(text for text in wanted if text not in stems)] = name
    return {name: stem for stem, name in stems.items()}


class Parts:
    """Arrays by name, a file for each batch.

    Attributes:
      folder: where they are.
    """

    def __init__(self, folder: epath.Path, count: int):
        """Opens the parts of `count` batches."""
        self.folder = folder
        self._count = count

    def has(self, index: int) -> bool:
        """Returns whether a batch is done; all hosts must ask equally often."""
        return on_host_0(lambda: _is_whole(self._path(index)))

    def are_complete(self) -> bool:
        """Returns whether all batches are done; all hosts must ask."""
        paths = map(self._path, range(self._count))
        return on_host_0(lambda: all(map(_is_whole, paths)))

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

    def load(self, index: int) -> dict[str, np.ndarray]:
        """Returns the arrays of a batch, on host 0."""
        with np.load(io.BytesIO(self._path(index).read_bytes())) as arrays:
            return {name.replace("|", "/"): arrays[name] for name in arrays.files}

    def join(self) -> dict[str, np.ndarray]:
        """Returns the arrays of all batches, joined along their first axis."""
        loaded = [self.load(index) for index in range(self._count)]
        loaded = [arrays for arrays in loaded if len(arrays["name"])]
        return {name: np.concatenate([a[name] for a in loaded]) for name in loaded[0]}

    def _path(self, index: int) -> epath.Path:
        return self.folder / f"{index:05}.npz"


class Pictures:
    """The pictures of an evaluation as PNG files: given, original and each sample.

    Attributes:
      folder: where they are.
      samples_by_name: the kinds of pictures that are results, such as `sample_0`.
    """

    def __init__(self, folder: epath.Path, names: Sequence[str], num_samples: int):
        """Opens the folder of an evaluation of the pictures of these names."""
        self.folder = folder
        self._files = file_names(names)
        self.samples_by_name = [f"sample_{index}" for index in range(num_samples)]

    def has(self, names: Sequence[str]) -> bool:
        """Returns whether all samples of a batch are there; all hosts must ask."""
        paths = [
            self._path(kind, name) for name in names for kind in self.samples_by_name
        ]
        return on_host_0(lambda: all(path.exists() for path in paths))

    def save(
        self,
        batch: Mapping[str, np.ndarray],
        samples: UInt8[np.ndarray, "n b h w 3"],
    ) -> None:
        """Keeps a batch; the samples last, since they tell that it is there."""
        if jax.process_index() != 0:
            return
        given = np.where(batch["hole"] > 0, 128, batch["x"]).astype(np.uint8)
        names = batch["name"].tolist()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for kind, pictures in (
                ("given", given),
                ("original", batch["y"]),
                *zip(self.samples_by_name, samples, strict=True),
            ):
                paths = [self._path(kind, name) for name in names]
                list(pool.map(_write_png, paths, pictures))

    def load(self, kind: str, names: Sequence[str]) -> UInt8[np.ndarray, "b h w 3"]:
        """Returns pictures of a kind, such as `sample_0`, on host 0."""
        paths = [self._path(kind, name) for name in names]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return np.stack(list(pool.map(_read_png, paths)))

    def samples(
        self, names: Sequence[str], height: int, width: int
    ) -> UInt8[np.ndarray, "n b h w 3"]:
        """Returns all samples of a batch, on every host."""
        shape = (len(self.samples_by_name), len(names), height, width, 3)
        loaded = np.zeros(shape, np.uint8)
        if jax.process_index() == 0 and len(names):
            loaded = np.stack([self.load(kind, names) for kind in self.samples_by_name])
        return parallel.gather(loaded[None])[0]

    def file(self, name: str) -> str:
        """Returns how the files of a picture are called, without an ending."""
        return self._files[name]

    def _path(self, kind: str, name: str) -> epath.Path:
        return self.folder / kind / f"{self._files[name]}.png"


def _is_whole(path: epath.Path) -> bool:
    """Returns whether a file of arrays is there and was not cut off."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return zipfile.is_zipfile(file)


def on_host_0(is_so: Any) -> bool:
    """Returns on every host what a question is answered with on host 0."""
    said = jax.process_index() == 0 and is_so()
    return bool(parallel.from_host_0(float(said)))


def write_whole(path: epath.Path, content: bytes) -> None:
    """Writes a file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, content)


def _write_png(path: epath.Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    write_whole(path, file.getvalue())


def _read_png(path: epath.Path) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return np.asarray(image)
