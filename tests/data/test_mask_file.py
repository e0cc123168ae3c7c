"""The official file of masks: its bits, its order, and files that are not it."""

import pathlib

import numpy as np
import pytest

from palette_jax.config import build_data
from palette_jax.config.checks import check_values
from palette_jax.config.values import ConfigError
from palette_jax.configs import inpaint
from palette_jax.data import mask_file
from palette_jax.errors import UserError

COUNT = 5


@pytest.fixture
def masks(tmp_path: pathlib.Path) -> tuple[pathlib.Path, np.ndarray]:
    """A file as I2SB's code reads it, of a few pictures; and its masks of 20 to 30%."""
    rng, packed = np.random.default_rng(0), {}
    for share in ("10-20", "20-30", "30-40"):
        drawn = (rng.random((COUNT, 256, 256)) < int(share[:2]) / 100 + 0.05).astype(
            np.uint8
        )
        # The authors pack all pixels of all masks in one row of bits.
        packed[f"{share}% freeform"] = np.packbits(drawn)
        if share == "20-30":
            wanted = drawn
    np.savez(tmp_path / "imagenet_freeform_masks.npz", **packed)
    return tmp_path / "imagenet_freeform_masks.npz", wanted


def test_masks_are_those_that_numpy_unpacks(masks: tuple) -> None:
    path, wanted = masks
    found = mask_file.read(path, "20_30")
    unpacked = np.unpackbits(found, axis=1).reshape(COUNT, 256, 256)
    np.testing.assert_array_equal(unpacked, wanted)


def _config(path: pathlib.Path, photos: pathlib.Path, names: list[str]):
    (path.parent / "list.txt").write_text("\n".join(names))
    config = inpaint.get_config("paper")
    with config.unlocked():
        config.data.update(
            {
                "source": "folder",
                "folder": str(photos),
                "eval_folder": str(photos),
                "eval_list": str(path.parent / "list.txt"),
                "image_size": 256,
            }
        )
        config.eval.update(
            {
                "inpaint_mask": "free_form_20_30",
                "mask_file": str(path),
                "batch_size": 2,
            }
        )
    return config


def test_a_mask_belongs_to_the_picture_of_its_place_in_the_list(
    masks: tuple, photos: pathlib.Path
) -> None:
    path, wanted = masks
    names = [f"class {i % 3}/{i:02d}.png" for i in (7, 2, 9, 4, 0)]
    config = _config(path, photos, names)
    check_values(config)
    found = {}
    for batch in build_data.eval_batches(config, "inpaint"):
        for i in np.flatnonzero(batch["valid"]):
            found[batch["name"][i]] = batch["hole"][i, ..., 0]
            hole = batch["hole"][i] > 0
            assert (np.where(hole, 0, batch["x"][i]) == batch["x"][i]).all()
    assert list(found) == names
    for index, name in enumerate(names):
        np.testing.assert_array_equal(found[name], wanted[index])
    # Of the first pictures only: the same masks.
    with config.unlocked():
        config.eval.num_images = 3
    (first, second) = build_data.eval_batches(config, "inpaint")
    holes = np.concatenate([first["hole"], second["hole"]])[:3, ..., 0]
    np.testing.assert_array_equal(holes, wanted[:3])


def test_masks_of_another_list_are_refused(masks: tuple, photos: pathlib.Path) -> None:
    config = _config(masks[0], photos, ["class 0/00.png", "class 1/01.png"])
    with pytest.raises(ConfigError, match=r"each of 2 pictures.*got 5.*eval_list"):
        build_data.eval_batches(config, "inpaint")


@pytest.mark.parametrize("case", ["none", "text", "other keys", "odd size"])
def test_a_file_that_is_not_the_official_one_is_refused(
    tmp_path: pathlib.Path, case: str
) -> None:
    path = tmp_path / "masks.npz"
    if case == "text":
        path.write_text("no archive")
    elif case == "other keys":
        np.savez(path, masks=np.zeros((2, 8192), np.uint8))
    elif case == "odd size":
        np.savez(path, **{"20-30% freeform": np.zeros(100, np.uint8)})
    with pytest.raises(UserError, match=r"masks\.npz"):
        mask_file.read(path, "20_30")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("eval.inpaint_mask", "center", "inpaint_mask=free_form_20_30"),
        ("data.image_size", 128, "256 pixels with eval.mask_file"),
    ],
)
def test_settings_that_no_official_mask_fits_are_refused_at_once(
    masks: tuple, photos: pathlib.Path, key: str, value: object, says: str
) -> None:
    config = _config(masks[0], photos, ["class 0/00.png"])
    group, name = key.split(".")
    with config.unlocked():
        config[group][name] = value
    with pytest.raises(ConfigError, match=says):
        check_values(config)
