"""Pictures that the tests of the input pipelines share."""

import io
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image


@pytest.fixture(scope="session")
def make_photo() -> Callable[..., Image.Image]:
    """A colourful picture with smooth places, edges and noise."""

    def make(seed: int = 0, height: int = 61, width: int = 83) -> Image.Image:
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        noise = rng.normal(0, 8, smooth.shape)
        return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))

    return make


@pytest.fixture(scope="session")
def photos(tmp_path_factory, make_photo) -> pathlib.Path:
    """A folder of 23 pictures, of two sizes, in three folders."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(23):
        path = root / f"class {i % 3}" / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        make_photo(i, *((48, 64) if i % 2 else (60, 40))).save(path)
    return root


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """The file of a picture, as bytes."""

    def to_bytes(image: Image.Image, file_format: str, **options) -> bytes:
        file = io.BytesIO()
        image.save(file, file_format, **options)
        return file.getvalue()

    return to_bytes


@pytest.fixture(scope="session")
def make_seed() -> Callable[[int], tf.Tensor]:
    """The seed of an example."""
    return lambda i: tf.constant([7, i], tf.int64)
