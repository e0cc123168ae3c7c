"""Tests that pictures are decoded as Pillow does it, and squared without distortion."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps, PngImagePlugin

from palette_jax.data import images


def decode(file: bytes) -> np.ndarray:
    return images.decode(tf.constant(file)).numpy()


def as_pillow(file: bytes) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("quality", [5, 30, 75, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_is_decoded_to_the_bytes_of_pillow(
    make_photo, encode, quality, subsampling
):
    file = encode(make_photo(), "JPEG", quality=quality, subsampling=subsampling)
    np.testing.assert_array_equal(decode(file), as_pillow(file))


def test_real_jpegs_are_decoded_to_the_bytes_of_pillow(reference_data):
    paths = sorted((reference_data / "caltech101").glob("*/*.jpg"))[::400]
    assert paths
    for path in paths:
        file = path.read_bytes()
        np.testing.assert_array_equal(decode(file), as_pillow(file), str(path))


@pytest.mark.parametrize(
    "mode, file_format",
    [
        *[(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")],
        *[(mode, "JPEG") for mode in ("L", "RGB")],
        *[(mode, "BMP") for mode in ("RGB", "RGBA")],
        *[(mode, "GIF") for mode in ("1", "L", "P")],
        *[(mode, "WEBP") for mode in ("RGB", "RGBA")],
    ],
)
def test_every_mode_is_decoded_to_the_bytes_of_pillow(
    make_photo, encode, mode, file_format
):
    photo = make_photo()
    if mode == "RGBA":
        photo.putalpha(photo.convert("L"))
    file = encode(photo.convert(mode), file_format)
    np.testing.assert_array_equal(decode(file), as_pillow(file))


def test_cmyk_jpeg_is_close_to_pillow(make_photo, encode):
    # The two convert CMYK by different formulas; wrong inks would be far off.
    file = encode(make_photo().convert("CMYK"), "JPEG", quality=90)
    difference = decode(file).astype(int) - as_pillow(file)
    assert abs(difference).max() < 16


def test_16_bit_png_keeps_its_upper_bits(encode):
    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    decoded = decode(encode(Image.fromarray(levels), "PNG"))
    np.testing.assert_array_equal(decoded, np.repeat((levels >> 8)[..., None], 3, -1))


def test_of_an_animated_gif_the_first_frame_is_taken(make_photo, encode):
    frames = [make_photo(seed).quantize(64) for seed in range(3)]
    file = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(file), as_pillow(file))


def test_an_animated_webp_is_refused_before_tensorflow_reads_it(make_photo, encode):
    frames = [make_photo(seed) for seed in range(3)]
    file = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(tf.errors.InvalidArgumentError, match="animated WebP"):
        decode(file)


@pytest.mark.parametrize("mode", ["1", "P", "L"])
def test_bmp_with_a_palette_is_refused_and_not_misread(make_photo, encode, mode):
    file = encode(make_photo().convert(mode), "BMP")
    with pytest.raises(tf.errors.InvalidArgumentError, match="palette"):
        decode(file)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(
    make_photo, encode, orientation, order, kind
):
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "a camera with a name"
    exif[0x0112] = orientation
    file = encode(make_photo(), kind, exif=exif, lossless=True)
    assert (b"II*" if order == "<" else b"MM\x00*") in file
    np.testing.assert_array_equal(decode(file), as_pillow(file))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("form", ['="{}"', ">{}</tiff:Orientation>"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_xmp_counts_where_exif_has_none(
    make_photo, encode, orientation, form, kind
):
    xmp = f"<rdf:Description tiff:Orientation{form.format(orientation)}".encode()
    options: dict = {"xmp": xmp}
    if kind == "PNG":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    file = encode(make_photo(), kind, lossless=True, **options)
    np.testing.assert_array_equal(decode(file), as_pillow(file))
    exif = Image.Exif()
    exif[0x0112] = 3
    file = encode(make_photo(), kind, lossless=True, exif=exif, **options)
    np.testing.assert_array_equal(decode(file), as_pillow(file))


def test_what_is_no_picture_is_an_error(make_photo, encode):
    whole = encode(make_photo(), "JPEG")
    for file in (b"", b"a text, not a picture", whole[: len(whole) // 2], whole[:40]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(file)


@pytest.mark.parametrize("height, width, size", [(300, 200, 64), (60, 90, 128)])
def test_a_circle_stays_a_circle(height, width, size):
    y, x = np.mgrid[:height, :width]
    radius = 0.4 * min(height, width)
    circle = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) < radius
    image = tf.constant(np.repeat(circle[..., None], 3, -1) * np.uint8(255))
    inside = images.center_square(image, size).numpy()[..., 0] > 127
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
    assert abs(np.ptp(rows) + 1 - 0.8 * size) <= 2
    assert abs(rows.mean() - (size - 1) / 2) <= 0.5


def test_a_square_of_the_right_size_is_not_changed(make_photo, make_seed):
    image = tf.constant(np.asarray(make_photo(0, 64, 64)))
    np.testing.assert_array_equal(images.center_square(image, 64), image)
    window = images.random_square(make_seed(0), image, 64, 1.0)
    np.testing.assert_array_equal(window, image)


def test_shrinking_takes_the_mean_and_rounds_it(make_photo):
    image = np.asarray(make_photo(0, 64, 64))
    blocks = image.reshape(16, 4, 16, 4, 3).astype(np.float64).mean((1, 3))
    shrunk = images.resize(tf.constant(image), 16, 16).numpy()
    assert abs(shrunk - blocks).max() <= 0.5 + 1e-3


def test_enlarging_neither_wraps_around_nor_shifts():
    image = np.zeros([8, 8, 3], np.uint8)
    image[:, 4:] = 255
    enlarged = images.resize(tf.constant(image), 64, 64).numpy()
    assert (enlarged[:, :24] < 32).all() and (enlarged[:, 40:] > 223).all()
    # Symmetric about the edge in the middle.
    np.testing.assert_allclose(enlarged, 255.0 - enlarged[:, ::-1], atol=1)


def test_windows_cover_the_scales_and_places_asked_for(make_seed):
    # A picture that says where each pixel is from.
    y, x = np.mgrid[:50, :200].astype(np.uint8)
    image = tf.constant(np.stack([y, x, x], -1))
    tops, lefts, sides = [], [], []
    for i in range(300):
        window = images.random_square(make_seed(i), image, 10, 0.5).numpy().astype(int)
        step = (window[0, -1, 1] - window[0, 0, 1]) / 9
        assert abs(step - (window[-1, 0, 0] - window[0, 0, 0]) / 9) < 0.25
        sides.append(10 * step)
        tops.append(window[0, 0, 0] - (step - 1) / 2)
        lefts.append(window[0, 0, 1] - (step - 1) / 2)
    assert 23 < min(sides) < 28 and 47 < max(sides) < 52
    assert abs(np.mean(sides) - 37.5) < 2
    assert min(lefts) < 5 and max(np.add(lefts, sides)) > 195
    assert min(tops) < 2 and max(np.add(tops, sides)) > 48
    assert abs(np.mean(np.add(lefts, np.divide(sides, 2))) - 100) < 10
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.3  # Anywhere, not on a diagonal.


@pytest.mark.parametrize("is_high", [False, True])
def test_the_largest_window_has_the_short_side(is_high, make_seed):
    along, across = np.mgrid[:100, :64].astype(np.uint8)
    image = np.stack([along, across, across], -1)
    image = tf.constant(image if is_high else image.swapaxes(0, 1))
    starts = set()
    for i in range(200):
        window = images.random_square(make_seed(i), image, 64, 1.0).numpy()
        window = window if is_high else window.swapaxes(0, 1)
        np.testing.assert_array_equal(window[0, :, 1], np.arange(64))
        np.testing.assert_array_equal(np.diff(window[:, 0, 0].astype(int)), 1)
        starts.add(int(window[0, 0, 0]))
    assert min(starts) == 0 and max(starts) == 36


def test_one_half_of_the_pictures_is_mirrored(make_photo, make_seed):
    image = np.asarray(make_photo())
    mirrored = 0
    for i in range(400):
        flipped = images.flip(make_seed(i), tf.constant(image)).numpy()
        is_mirrored = np.array_equal(flipped, image[:, ::-1])
        assert is_mirrored or np.array_equal(flipped, image)
        mirrored += is_mirrored
    assert abs(mirrored - 200) < 4 * 10
