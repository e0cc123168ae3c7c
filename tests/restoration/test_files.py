"""Pictures of any kind from their files, through a restoration, and back."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from palette_jax.restoration import files
from palette_jax.restoration.files import PictureError
from palette_jax.restoration.settings import Settings
from tests.restoration.oracle import make_restorer, negative


def _pixels(width: int, height: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(width)
    array = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return array[..., 0] if channels == 1 else array


def _file(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _rgb(width: int, height: int) -> Image.Image:
    return Image.fromarray(_pixels(width, height))


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned to the right.
    exif[0x010F] = "a camera"
    return _file(_rgb(9, 20), "JPEG", exif=exif)


def _srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


_GRAY_16 = (_pixels(13, 10, 1).astype(np.uint16) * 257).astype(np.uint16)
ODD = {
    "one pixel": (_file(_rgb(1, 1), "PNG"), (1, 1)),
    "one bit": (_file(Image.fromarray(_pixels(7, 3, 1)).convert("1"), "PNG"), (3, 7)),
    "gray, wide": (_file(Image.fromarray(_pixels(4000, 37, 1)), "JPEG"), (37, 4000)),
    "gray, opacity": (_file(_rgb(5, 30).convert("LA"), "PNG"), (30, 5)),
    "opacity": (_file(Image.fromarray(_pixels(12, 9, 4)), "PNG"), (9, 12)),
    "palette, transparent": (
        _file(_rgb(11, 8).quantize(16), "GIF", transparency=3),
        (8, 11),
    ),
    "animation": (
        _file(_rgb(9, 9), "GIF", save_all=True, append_images=[_rgb(10, 9)]),
        (9, 9),
    ),
    "16 bits": (_file(Image.fromarray(_GRAY_16), "PNG"), (10, 13)),
    "floats": (_file(Image.fromarray(np.float32(_GRAY_16) / 65535), "TIFF"), (10, 13)),
    "CMYK": (_file(_rgb(16, 16).convert("CMYK"), "JPEG"), (16, 16)),
    "LAB": (_file(Image.new("LAB", (6, 17), (150, 118, 140)), "TIFF"), (17, 6)),
    "rotated": (_rotated(), (9, 20)),
    "profile": (_file(_rgb(8, 8), "PNG", icc_profile=_srgb_profile()), (8, 8)),
    "broken profile": (
        _file(_rgb(8, 8).convert("CMYK"), "JPEG", icc_profile=b"no profile"),
        (8, 8),
    ),
}
BROKEN = {
    "empty": (b"", "expected a picture"),
    "text": (b"this is a letter, not a picture", "expected a picture"),
    "cut off": (_file(_rgb(64, 64), "PNG")[:900], "broken"),
    "cut off JPEG": (_file(_rgb(64, 64), "JPEG")[:900], "broken"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_are_restored_at_their_size(name: str, tmp_path) -> None:
    data, shape = ODD[name]
    photo = files.read(data, name=name)
    # EXIF 6 shows a picture turned: its 9 columns become 9 rows.
    assert photo.pixels.shape == (*shape, 3)
    assert photo.alpha is None or photo.alpha.shape == shape
    settings = Settings("jpeg", sampler="ddim", num_steps=2)
    result = make_restorer(negative).restore(photo, settings)
    result.save(tmp_path / "result.png")
    with Image.open(tmp_path / "result.png") as image:
        assert image.size == shape[::-1]
        assert (image.mode in ("L", "LA")) == photo.is_gray
        assert ("A" in image.mode) == (photo.alpha is not None)
        assert 0x0112 not in image.getexif()
        back = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(back - (255 - photo.pixels.astype(int))).max() <= 1


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_picture_is_refused_in_a_sentence(name: str) -> None:
    data, words = BROKEN[name]
    with pytest.raises(PictureError, match=words) as raised:
        files.read(data, name=name)
    assert str(raised.value).startswith(f"{name}: expected")


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(PictureError, match="at most 50 pixels, got 8 x 8 = 64"):
        files.read(_file(_rgb(8, 8), "PNG"), max_pixels=50)
    bomb = _file(Image.new("1", (20_000, 20_000)), "PNG")
    with pytest.raises(PictureError, match="at most 100,000,000 pixels"):
        files.read(bomb)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(PictureError, match=r"none\.png: there is no such file"):
        files.read(tmp_path / "none.png")


def test_pixels_are_those_of_the_file_turned_upright() -> None:
    photo = files.read(ODD["rotated"][0])
    with Image.open(io.BytesIO(ODD["rotated"][0])) as image:
        turned = np.rot90(np.asarray(image), -1)
    np.testing.assert_array_equal(photo.pixels, turned)
    high_bytes = files.read(ODD["16 bits"][0]).pixels[..., 1]
    np.testing.assert_array_equal(high_bytes, _GRAY_16 // 257)
    opaque = files.read(ODD["opacity"][0])
    np.testing.assert_array_equal(
        np.dstack([opaque.pixels, opaque.alpha]), _pixels(12, 9, 4)
    )


def test_the_colours_of_other_spaces_are_those_of_a_converter() -> None:
    lab = files.read(ODD["LAB"][0])
    skimage_color = pytest.importorskip("skimage.color")
    wanted = skimage_color.lab2rgb(np.array([150 / 2.55, 118 - 128, 140 - 128]))
    np.testing.assert_allclose(lab.pixels[0, 0] / 255, wanted, atol=0.02)
    assert any("sRGB" in warning for warning in lab.warnings)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_profile_exif_and_settings_are_kept(suffix: str, tmp_path) -> None:
    photo = files.read(_rotated())
    photo = files.Photo(
        photo.pixels, exif=photo.exif, icc_profile=_srgb_profile(), name="it"
    )
    path = tmp_path / f"out{suffix}"
    files.write(path, photo.pixels, photo, about={"seed": 7, "what": "ä"})
    again = files.read(path)
    assert again.icc_profile == photo.icc_profile
    with Image.open(path) as image:
        assert image.getexif()[0x010F] == "a camera"
    assert files.read_about(path) == {"seed": 7, "what": "ä"}
    if suffix == ".png":
        np.testing.assert_array_equal(again.pixels, photo.pixels)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # No half file.


def test_files_without_settings_have_none(tmp_path) -> None:
    assert files.read_about(tmp_path / "missing.png") is None
    for name, file_format in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        _rgb(4, 4).save(tmp_path / name, file_format)
        assert files.read_about(tmp_path / name) is None


def test_only_png_and_jpeg_are_written(tmp_path) -> None:
    photo = files.read(_file(_rgb(4, 4), "PNG"))
    with pytest.raises(PictureError, match=r"ends in \.png or \.jpg"):
        files.write(tmp_path / "a.webp", photo.pixels, photo)
    (tmp_path / "file").write_text("")
    with pytest.raises(PictureError, match="could not write"):
        files.write(tmp_path / "file" / "a.png", photo.pixels, photo)
