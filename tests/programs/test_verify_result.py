"""`palette-jax verify RESULT PHOTO`, and the hole that a result holds."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from palette_jax.errors import UserError
from palette_jax.pictures import files, masks
from tests.programs.untrained import command, save_run

pytestmark = pytest.mark.usefixtures("folder")
SIZE = (9, 12)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return save_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder with photos and a mask, which the commands run in."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*SIZE, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    deep = rng.integers(0, 65536, SIZE, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    mask = np.zeros(SIZE, np.uint8)
    mask[3:6, 2:7] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, checkpoint: pathlib.Path
) -> Callable[..., int]:
    def run(name: str, *args: str) -> int:
        return command(monkeypatch, name, *args, f"--checkpoint={checkpoint}")

    return run


def _restore(run: Callable[..., int], photo: str, *args: str) -> str:
    assert run("restore", photo, "--sampler=ddim", "--num-steps=2", *args) == 0
    ending = "jpg" if "--format=jpg" in args else "png"
    return f"restored/{photo.removesuffix('.png')}.{ending}"


def _edit(path: str, row: int, column: int) -> None:
    """Changes a pixel, and keeps what the file says of itself."""
    with Image.open(path) as image:
        image.load()
        values = np.array(image)
        text = PngImagePlugin.PngInfo()
        text.add_itxt("palette_jax", image.info["palette_jax"])
    values[row, column] ^= 1
    Image.fromarray(values).save(path, pnginfo=text)


def test_a_filled_hole_is_proved_by_the_file_alone(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    result = _restore(run, "clear.png", "--task=inpaint", "--mask=mask.png")
    pathlib.Path("mask.png").unlink()
    assert run("verify", result, "clear.png") == 0
    said = capsys.readouterr().out
    assert f"all {9 * 12 - 15} known pixels (86.1% of the picture)" in said
    assert "regenerated: every pixel has the same bits" in said
    # Inside the hole the photo does not matter, and the network has the last word.
    _edit(result, 4, 4)
    assert run("verify", result, "clear.png") == 1
    said = capsys.readouterr().out
    assert "kept: all" in said and "by up to 1 of 255" in said
    _edit(result, 8, 11)
    assert run("verify", result, "clear.png") == 1
    assert "not kept: 1 of 93 known pixels" in (said := capsys.readouterr().out)
    assert "row 8, column 11" in said


def test_16_bits_are_kept_beside_what_is_added(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--task=uncrop", "--side=left", "--extend=50%")
    result = _restore(run, "deep.png", *flags)
    assert run("verify", result, "deep.png") == 0
    assert "all 108 known pixels (66.7%" in capsys.readouterr().out
    _edit(result, 0, 17)  # By one of 65,536.
    assert run("verify", result, "deep.png") == 1
    assert "not kept: 1 of 108" in capsys.readouterr().out


def test_what_keeps_nothing_is_regenerated(
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for ending in ("jpg", "png"):
        result = _restore(run, "clear.png", "--task=jpeg", f"--format={ending}")
        assert run("verify", result, "clear.png") == 0
        said = capsys.readouterr().out
        assert "kept: no pixels" in said and "regenerated: every" in said
    # Without the weights the file alone says what was kept, and no more.
    assert command(monkeypatch, "verify", result, "clear.png") == 1
    assert "add --checkpoint=PATH" in capsys.readouterr().err


def test_what_is_no_result_of_the_photo_is_told(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", "clear.png", "clear.png") == 1
    assert "without settings" in capsys.readouterr().err
    assert run("verify", "clear.png") == 1
    assert "expected a photo beside a result" in capsys.readouterr().err
    result = _restore(run, "clear.png", "--task=inpaint", "--mask=mask.png")
    assert run("verify", result, "missing.png") == 1
    assert "missing.png: there is no such file" in capsys.readouterr().err
    Image.new("RGB", (4, 4)).save("small.png")
    assert run("verify", result, "small.png") == 1
    said = capsys.readouterr()
    assert "another file" in said.out and "hole of 4 x 4 pixels" in said.err


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 31)])
def test_a_hole_goes_into_a_text_and_back(shape: tuple[int, int]) -> None:
    hole = np.random.default_rng(0).integers(0, 2, (*shape, 1), dtype=np.uint8)
    np.testing.assert_array_equal(masks.unpack(masks.pack(hole), shape), hole)
    for text in (
        "",
        "~~~",
        masks.pack(np.ones((99, 9, 1), np.uint8)),
    ):
        with pytest.raises(UserError, match="expected a hole"):
            masks.unpack(text, shape)


def test_results_name_no_place(run: Callable[..., int], folder: pathlib.Path) -> None:
    result = _restore(run, "clear.png", "--task=inpaint", f"--mask={folder}/mask.png")
    assert str(folder) not in str(files.read_about(result))


@pytest.mark.parametrize(
    ("forged", "words"),
    [
        ({"weights": None}, "has no weights None"),
        ({"weights": 7}, "has no weights 7"),
        ({"weights": "../../other.safetensors"}, "has no weights"),
        ({"settings": []}, "expected settings of a restoration"),
        ({"hole": 5}, "expected a hole, got a damaged one"),
    ],
)
def test_forged_results_are_told_without_a_trace(
    run, monkeypatch, folder: pathlib.Path, capsys, forged: dict, words: str
) -> None:
    result = _restore(run, "clear.png", "--task=inpaint", "--mask=mask.png")
    about = {**(files.read_about(result) or {}), **forged}
    about.pop("checkpoint")
    pixels = files.read(result).pixels
    files.write("forged.png", pixels, files.Photo(pixels), about=about)
    assert command(monkeypatch, "verify", "forged.png", "clear.png") == 1
    assert words in capsys.readouterr().err
    if "settings" in forged:
        assert run("restore", "clear.png", "--like=forged.png", "--mask=mask.png") == 1
        assert words in capsys.readouterr().err


def test_a_text_of_a_million_brackets_is_no_result(folder: pathlib.Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("palette_jax", "[" * 1_000_000)
    Image.new("L", (4, 4)).save("deep.png", pnginfo=text)
    assert files.read_about("deep.png") is None
