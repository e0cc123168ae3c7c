"""Pictures of any kind from their files, through a restoration, and back."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from palette_jax.pictures import files
from palette_jax.pictures.files import PictureError
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import Sides
from tests.restoration.oracle import FILLED, constant, make_restorer, negative


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


def _gray_profile() -> bytes:
    """Returns an ICC profile of one channel whose curve is a gamma of 1."""

    def tag(kind: bytes, data: bytes) -> bytes:
        return (kind + bytes(4) + data).ljust(-(-(8 + len(data)) // 4) * 4, b"\0")

    white = struct.pack(">3i", 63190, 65536, 54061)  # D50, in 16.16 fixed point.
    tags = {
        b"desc": tag(b"desc", struct.pack(">I", 2) + b"g\0" + bytes(78)),
        b"wtpt": tag(b"XYZ ", white),
        b"kTRC": tag(b"curv", struct.pack(">I", 0)),
        b"cprt": tag(b"text", b"none\0"),
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">2I", start + len(body), len(data))
        body += data
    header = bytearray(128)
    header[8:12] = bytes([2, 0x20, 0, 0])
    header[12:24], header[36:40] = b"mntrGRAYXYZ ", b"acsp"
    header[68:80] = white
    header[:4] = struct.pack(">I", start + len(body))
    return bytes(header) + table + body


def _png_of_16_bits(pixels: np.ndarray) -> bytes:
    """Returns a PNG of 2 or 3 channels of 16 bits, which Pillow only reads."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    height, width, channels = pixels.shape
    kind = {2: 4, 3: 2}[channels]  # Gray with opacity, RGB.
    header = struct.pack(">2I5B", width, height, 16, kind, 0, 0, 0)
    deep = pixels.astype(">u2") * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


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
    "16 bits, RGB": (_png_of_16_bits(_pixels(9, 7, 3)), (7, 9)),
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
    settings = Settings("old_photo", sampler="ddim", num_steps=2)
    result = make_restorer(negative, task_names=("old_photo",)).restore(photo, settings)
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
        # Not the rotation, which the pixels have: a viewer would turn them again.
        assert dict(image.getexif()) == {0x010F: "a camera"}
    assert files.read_about(path) == {"seed": 7, "what": "ä"}
    if suffix == ".png":
        np.testing.assert_array_equal(again.pixels, photo.pixels)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # No half file.


DEEP = np.random.default_rng(3).integers(0, 65536, (9, 14), dtype=np.uint16)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
@pytest.mark.parametrize("task", ["inpaint", "uncrop"])
def test_known_pixels_of_16_bits_are_kept_to_the_bit(mode, task, tmp_path) -> None:
    dtypes = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}
    image = Image.frombytes(mode, (14, 9), DEEP.astype(dtypes[mode]).tobytes())
    photo = files.read(_file(image, "TIFF"))
    hole, known = None, np.s_[:, :14]
    settings = Settings("uncrop", extend=Sides(right=0.5), num_steps=2)
    if task == "inpaint":
        hole, known = np.zeros((9, 14, 1), np.uint8), np.s_[:, :10]
        hole[:, 10:] = 1
        settings = Settings("inpaint", num_steps=2)
    result = make_restorer(constant).restore(photo, settings, hole=hole)
    result.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.mode == "I;16"
        values = np.asarray(saved)
    np.testing.assert_array_equal(values[known], DEEP[known])
    assert (values[:, -4:] == FILLED * 257).all()  # Painted; 255 is 65535.
    # It goes on from there with all of its bits, and has 8 where all is new.
    np.testing.assert_array_equal(result.as_photo().deep, values)
    whole = make_restorer(negative).restore(photo, Settings("jpeg", num_steps=2))
    whole.save(tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").mode == "L"


def test_a_gray_profile_is_kept_and_carried_out_where_colours_come(tmp_path) -> None:
    profile, pixels = _gray_profile(), np.full((8, 8), 55, np.uint8)
    photo = files.read(_file(Image.fromarray(pixels), "PNG", icc_profile=profile))
    assert not photo.warnings
    np.testing.assert_array_equal(photo.pixels[..., 0], pixels)
    hole = np.zeros((8, 8, 1), np.uint8)
    hole[4:] = 1
    restorer = make_restorer(negative)
    kept = restorer.restore(photo, Settings("inpaint", num_steps=2), hole=hole)
    kept.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.mode == "L" and saved.info["icc_profile"] == profile
        np.testing.assert_array_equal(np.asarray(saved)[:4], pixels[:4])
    colored = restorer.restore(photo, Settings("colorize", num_steps=2))
    colored.save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as saved:
        assert "icc_profile" not in saved.info
        # sRGB of 55/255 in linear light is 127; what is restored is its negative.
        assert np.abs(np.asarray(saved).astype(int) - (255 - 127)).max() <= 2


# sRGB of 55/255 in linear light is 127; 0.55556 was a Macintosh's.
@pytest.mark.parametrize(("gamma", "seen"), [(1.0, 127), (0.45455, 55), (0.55556, 71)])
def test_the_gamma_of_a_png_is_kept_and_carried_out_where_colours_come(
    tmp_path, gamma: float, seen: int
) -> None:
    pixels, info = np.full((8, 8), 55, np.uint8), PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", round(gamma * 100_000)))
    photo = files.read(_file(Image.fromarray(pixels), "PNG", pnginfo=info))
    hole = np.zeros((8, 8, 1), np.uint8)
    hole[4:] = 1
    restorer = make_restorer(negative)
    kept = restorer.restore(photo, Settings("inpaint", num_steps=2), hole=hole)
    kept.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.info["gamma"] == gamma
        np.testing.assert_array_equal(np.asarray(saved)[:4], pixels[:4])
    kept.save(tmp_path / "a.jpg")
    assert np.abs(files.read(tmp_path / "a.jpg").pixels[:4].mean() - seen) < 2
    colored = restorer.restore(photo, Settings("colorize", num_steps=2))
    colored.save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as saved:
        assert "gamma" not in saved.info
        assert np.abs(np.asarray(saved).astype(int) - (255 - seen)).max() <= 2


def test_a_profile_rules_out_the_gamma_beside_it() -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100_000))
    image = Image.fromarray(np.full((8, 8, 3), 55, np.uint8))
    for beside in ({"icc_profile": _srgb_profile()}, {}):
        photo = files.read(_file(image, "PNG", pnginfo=info, **beside))
        assert (photo.gamma is None) == bool(beside)


def test_a_tiff_gives_its_camera_and_not_its_layout(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera", 8
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif[0x8769] = 0  # Pillow writes the part that a tag announces.
    photo = files.read(_file(_rgb(9, 20), "TIFF", exif=exif))
    assert photo.pixels.shape == (9, 20, 3)
    files.write(tmp_path / "a.png", photo.pixels, photo)
    with Image.open(tmp_path / "a.png") as saved:
        assert dict(saved.getexif()).keys() == {0x010F, 0x8769}
        assert saved.getexif().get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"


def test_exif_too_long_for_a_jpeg_does_not_cost_the_result(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    photo = files.Photo(_pixels(4, 4), exif=exif.tobytes())
    for name in ("a.png", "a.jpg"):
        files.write(tmp_path / name, photo.pixels, photo)
        with Image.open(tmp_path / name) as saved:
            assert (0x010E in saved.getexif()) == (name == "a.png")


def test_whatever_pillow_raises_is_said_in_a_sentence() -> None:
    rng = np.random.default_rng(0)
    for data, _ in ODD.values():
        for _ in range(20):
            broken = bytearray(data)
            for place in rng.integers(0, min(len(data), 300), 3):
                broken[place] = rng.integers(256)
            try:
                files.read(bytes(broken), name="it", max_pixels=10**6)
            except PictureError as error:
                assert str(error).startswith("it: expected")


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


def test_gray_of_16_bits_with_opacity_stays_gray() -> None:
    pixels = _pixels(9, 7, 2)
    photo = files.read(_png_of_16_bits(pixels))
    assert photo.is_gray and photo.alpha is not None
    np.testing.assert_array_equal(photo.pixels, np.repeat(pixels[..., :1], 3, -1))
    np.testing.assert_array_equal(photo.alpha, pixels[..., 1])
    assert any("8 of the 16 bits" in warning for warning in photo.warnings)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_resolution_is_kept_across_and_down(suffix: str, tmp_path) -> None:
    photo = files.read(_file(_rgb(9, 20), "PNG", dpi=(300, 150)))
    path = tmp_path / f"out{suffix}"
    files.write(path, photo.pixels, photo)
    with Image.open(path) as saved:  # PNG counts pixels a metre.
        for dpi in (photo.dpi, saved.info["dpi"]):
            assert dpi == pytest.approx((300, 150), abs=0.02)
    assert files.read(_file(_rgb(9, 20), "PNG")).dpi is None


def test_16_bits_are_rounded_to_the_nearest_8() -> None:
    image = Image.frombytes("I;16", (14, 9), DEEP.astype("<u2").tobytes())
    colours = np.dstack([DEEP, DEEP[::-1], DEEP // 2])
    for given, wanted in ((image, np.dstack([DEEP] * 3)), (colours, colours)):
        photo = files.as_photo(given)
        assert np.abs(photo.pixels - wanted / 257).max() <= 0.5


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_colours_that_were_multiplied_by_the_opacity_are_divided_again(mode) -> None:
    clear = _pixels(12, 9, 4) // 2 + 128
    if mode == "La":
        clear[..., :3] = clear[..., :1]
    image = Image.fromarray(clear).convert(mode.upper()).convert(mode)
    photo = files.as_photo(image)
    assert np.abs(photo.pixels - clear[..., :3].astype(int)).max() <= 2
    np.testing.assert_array_equal(photo.alpha, clear[..., 3])
