"""The files of restored pictures, in closed form."""

import numpy as np
from etils import epath
from PIL import Image

from palette_jax.evaluation.restored import Folders


def test_files_are_what_their_kind_says(tmp_path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 256, (2, 4, 6, 3), np.uint8)
    samples = rng.integers(0, 256, (3, 2, 4, 6, 3), np.uint8)
    hole = np.zeros((2, 4, 6, 1), np.uint8)
    hole[0, :, 3:] = 1  # The second has no hole, so all of it is painted.
    batch = {"x": y * (1 - hole), "y": y, "hole": hole}
    names = np.array(["a/1.jpg", "a/1.png"])
    folders = Folders(epath.Path(tmp_path), names.tolist(), 3)
    assert not folders.has(names.tolist())
    folders.save({**batch, "name": names}, samples)
    assert folders.has(names.tolist())
    found = {
        kind: np.stack(
            [
                np.asarray(Image.open(path))
                for path in folders.files(kind, names.tolist()).values()
            ]
        )
        for kind in ("given", "original", "mask", "trivial", "mean", *folders.samples)
    }
    np.testing.assert_array_equal(found["original"], y)
    np.testing.assert_array_equal(found["given"][0, :, :3], y[0, :, :3])
    assert np.all(found["given"][0, :, 3:] == 128)
    np.testing.assert_array_equal(found["given"][1], y[1])
    np.testing.assert_array_equal(found["mask"][0], 255 * hole[0, ..., 0])
    assert np.all(found["mask"][1] == 255)
    color = np.round(y[0, :, :3].mean((0, 1)))
    np.testing.assert_array_equal(
        found["trivial"][0, :, 3:], np.broadcast_to(color, (4, 3, 3))
    )
    np.testing.assert_array_equal(found["trivial"][1], y[1])
    np.testing.assert_array_equal(found["mean"], np.round(samples.mean(0)))
    for index, kind in enumerate(folders.samples):
        np.testing.assert_array_equal(found[kind], samples[index])
