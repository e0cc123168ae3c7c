"""`palette-jax panorama`, as a user runs it."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from palette_jax.pictures import files
from palette_jax.restoration import panorama
from palette_jax.restoration.settings import Settings
from palette_jax.tasks import Sides
from tests.programs.untrained import command, save_run
from tests.restoration.oracle import FILLED, constant, make_restorer

STEPS = ("--sampler=ddpm", "--num-steps=2")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> pathlib.Path:
    return save_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(monkeypatch, checkpoint, tmp_path):
    """`run(*args)` runs the command in a folder with a square picture."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    flags = (*STEPS, f"--checkpoint={checkpoint}")
    return lambda *args: command(monkeypatch, "panorama", "photo.png", *flags, *args)


def _result(out: str = "restored") -> np.ndarray:
    return files.read(f"{out}/photo_panorama.png").pixels


def test_the_papers_panorama_is_nine_pictures_wide() -> None:
    photo = files.Photo(np.zeros((256, 256, 3), np.uint8))
    turns = panorama.turns(photo, ["left", "right"])
    assert turns == [("left", 128), ("right", 128)] * 8
    assert 256 + sum(pixels for _, pixels in turns) == 2304


def test_each_side_grows_by_its_pixels_with_opacity_and_16_bits() -> None:
    """Of a photo that is no square; what is painted is opaque."""
    rng = np.random.default_rng(0)
    deep, alpha = rng.integers(0, (2**16, 2**8), (6, 20, 2)).transpose(2, 0, 1)
    pixels = np.repeat((deep >> 8)[..., None], 3, -1).astype(np.uint8)
    photo = files.Photo(
        pixels, alpha.astype(np.uint8), is_gray=True, deep=deep.astype(np.uint16)
    )
    turns = panorama.turns(photo, ["left", "top"], repeats=2)
    assert turns == [("left", 10), ("top", 3)] * 2
    settings = Settings("uncrop", num_steps=2, extend=Sides(left=1.0))
    results = list(panorama.extend(make_restorer(constant), photo, settings, turns))
    sizes = [result.pictures[0].shape[:2] for result in results]
    assert sizes == [(6, 30), (9, 30), (9, 40), (12, 40)]
    last = results[-1].as_photo()
    for found, known, painted in (
        (last.pixels, pixels, FILLED),
        (last.alpha, alpha, 255),
        (last.deep, deep, 257 * FILLED),
    ):
        wanted = np.full((12, 40, *known.shape[2:]), painted)
        wanted[6:, 20:] = known
        np.testing.assert_array_equal(found, wanted)


def test_a_panorama_without_end_is_refused_at_once(run, capsys) -> None:
    assert run("--repeats=3000000", "--side=top", "--side=left") == 1
    assert "expected a panorama of at most 100,000,000 pixels" in (
        capsys.readouterr().err
    )
    assert not pathlib.Path("restored").exists()


def test_what_is_there_stays_as_it_is_at_every_joint(run, tmp_path) -> None:
    """Each extension has the one before in it, to the bit, and so the photo."""
    photo = files.read("photo.png").pixels
    assert run("--repeats=1", "--out=one") == 0
    assert run("--repeats=2", "--out=two") == 0
    one, two = _result("one"), _result("two")
    assert one.shape == (8, 16, 3) and two.shape == (8, 24, 3)
    np.testing.assert_array_equal(one[:, 4:12], photo)
    np.testing.assert_array_equal(two[:, 4:20], one)
    # What was painted is a picture, and none that repeats.
    painted = [two[:, i : i + 4] for i in (0, 4, 16, 20)]
    assert len({part.tobytes() for part in painted}) == 4
    assert min(part.std() for part in painted) > 0


def test_one_that_was_stopped_goes_on_where_it_was(run, capsys) -> None:
    assert run("--repeats=1", "--side=right") == 0
    first = _result()
    assert run("--repeats=2", "--side=right") == 0
    assert "1 of 2 extensions exist" in capsys.readouterr().out
    assert _result().shape == (8, 16, 3)
    np.testing.assert_array_equal(_result()[:, :12], first)
    assert run("--repeats=2", "--side=right", "--out=whole") == 0
    np.testing.assert_array_equal(_result(), _result("whole"))
    # With other settings it is another panorama, and nothing is overwritten.
    assert run("--repeats=2", "--side=right", "--seed=1") == 1
    assert "give --overwrite" in capsys.readouterr().err


def test_a_warning_of_the_settings_is_printed_once(run, capsys) -> None:
    assert run("--repeats=2") == 0
    assert capsys.readouterr().err.count("ddpm with 2 steps leaves colour noise") == 1
    assert run("--repeats=2") == 0
    assert "colour noise" not in capsys.readouterr().err


def test_any_side_by_any_share(run) -> None:
    photo = files.read("photo.png").pixels
    flags = ("--side=top", "--side=left", "--side=bottom", "--extend=25%")
    assert run("--repeats=1", *flags) == 0
    assert _result().shape == (12, 10, 3)
    np.testing.assert_array_equal(_result()[2:10, 2:], photo)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--repeats=0", "expected a whole number from 1 to"),
        ("--extend=much", "expected a share"),
        ("--side=middle", "expected --side out of "),
        ("--extend=0", "side to extend"),
    ],
)
def test_a_wrong_flag_is_said(run, capsys, flag: str, says: str) -> None:
    assert run(flag) != 0
    assert says in capsys.readouterr().err
