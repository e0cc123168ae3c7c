"""`palette-jax restore`, as a user runs it."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from palette_jax.restoration import files
from tests.programs.untrained import command, save_run

# A missing package: None in sys.modules makes its import fail.
WITHOUT_TENSORFLOW = (
    "import sys; sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None;"
    "from palette_jax import cli; sys.exit(cli.main())"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> pathlib.Path:
    return save_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    """Pictures in a folder and one in a folder of it, and a text named .jpg."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deep").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "b.png", "deep/c.png"):
        pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "bad.jpg").write_text("This is no picture.")
    (folder / "notes.txt").write_text("Nobody asks to restore this.")
    return folder


@pytest.fixture
def restore(monkeypatch, checkpoint, tmp_path):
    """`restore(*args)` runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    steps = ("--sampler=ddpm", "--num-steps=2")

    def restore(*args: object, checkpoint: object = checkpoint) -> int:
        given = (f"--checkpoint={checkpoint}",) if checkpoint else ()
        return command(monkeypatch, "restore", *steps, *given, *args)

    return restore


def _files(folder: pathlib.Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_folder_gives_a_folder_and_a_bad_file_is_named(restore, photos, capsys):
    assert restore(photos, "--task=jpeg") == 1
    assert list(_files(pathlib.Path("restored"))) == [
        "a.png",
        "b.jpg.png",  # Two pictures of one name keep their endings.
        "b.png.png",
        "deep/c.png",
    ]
    said = capsys.readouterr()
    assert "restored/deep/c.png" in said.out
    assert f"error: {photos / 'bad.jpg'}: expected a picture" in said.err
    assert "1 of 5 pictures were not restored" in said.err
    assert "Traceback" not in said.err


def test_a_result_is_made_again_from_its_settings(restore, photos, tmp_path) -> None:
    photo = photos / "a.png"
    flags = ("--task=uncrop", "--side=left", "--extend=25%", "--seed=7")
    assert restore(photo, *flags, "--num-samples=2", "--out=old") == 0
    old = tmp_path / "old" / "a_seed8.png"
    assert restore(photo, f"--like={old}", "--out=new", checkpoint=None) == 0
    assert (tmp_path / "new" / "a.png").read_bytes() == old.read_bytes()
    settings = files.read_about(old)["settings"]
    assert (settings["task"], settings["seed"]) == ("uncrop", 8)
    assert files.read(old).pixels.shape == (9, 15, 3)
    # A flag goes before what was read.
    assert restore(photo, f"--like={old}", "--seed=7", "--out=other") == 0
    first = files.read(tmp_path / "old" / "a_seed7.png").pixels
    np.testing.assert_array_equal(
        files.read(tmp_path / "other" / "a.png").pixels, first
    )


def test_nothing_is_overwritten_unless_told(restore, photos, capsys) -> None:
    photo, result = photos / "a.png", pathlib.Path("restored/a.png")
    assert restore(photo, "--task=jpeg") == 0
    before = result.read_bytes()
    assert restore(photo, "--task=jpeg", "--seed=1") == 1
    assert "give --overwrite" in capsys.readouterr().err
    assert result.read_bytes() == before
    assert restore(photo, "--task=jpeg", "--seed=1", "--overwrite") == 0
    assert result.read_bytes() != before
    # A stranger's file is no result of ours either.
    Image.new("RGB", (12, 9)).save(result)
    assert restore(photo, "--task=jpeg") == 1


def test_samples_come_with_a_grid_and_their_deviation(restore, photos, tmp_path):
    out = tmp_path / "restored"
    assert restore(photos / "a.png", "--task=colorize", "--num-samples=3") == 0
    samples = [files.read(out / f"a_seed{seed}.png").pixels for seed in range(3)]
    spread = np.std(np.float64(samples), axis=0).mean(-1)
    with Image.open(out / "a_deviation.png") as image:
        assert image.mode == "L"
        np.testing.assert_allclose(image, np.minimum(4 * spread, 255), atol=0.51)
    grid = files.read(out / "a_grid.png").pixels
    assert grid.shape == (9, 5 * 12 + 4 * 4, 3)
    np.testing.assert_array_equal(grid[:, 16:28], samples[0])


def test_masks_of_a_folder_are_matched_by_name(restore, photos, tmp_path, capsys):
    masks, hole = tmp_path / "masks", np.zeros((9, 12), np.uint8)
    masks.mkdir()
    hole[2:6, 3:8] = 255
    Image.fromarray(hole).save(masks / "a.webp", lossless=True)
    assert restore(photos, "--task=inpaint", f"--mask={masks}") == 1
    assert "expected its mask at" in capsys.readouterr().err
    assert list(_files(tmp_path / "restored")) == ["a.png"]
    original = files.read(photos / "a.png").pixels
    painted = files.read(tmp_path / "restored" / "a.png").pixels
    np.testing.assert_array_equal(painted[hole == 0], original[hole == 0])
    assert (painted != original).any(-1)[hole > 0].mean() > 0.9
    out = tmp_path / "inverted"
    flags = (f"--mask={masks / 'a.webp'}", "--invert", f"--out={out}")
    assert restore(photos / "a.png", "--task=inpaint", *flags) == 0
    painted = files.read(out / "a.png").pixels
    np.testing.assert_array_equal(painted[hole > 0], original[hole > 0])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "expected --task out of colorize, inpaint, uncrop, jpeg"),
        (("--task=uncrop",), "expected a side to extend"),
        (("--task=uncrop", "--extend=0.5"), "expected --side with --extend"),
        (("--task=inpaint",), "expected --mask with task inpaint"),
        (("--task=jpeg", "--mask=a.png"), "got no such"),
        (("--task=paired",), "expected a task that the network was trained for"),
        (("--task=uncrop", "--side=top", "--extend=50"), "0 to 16 times"),
        (("--task=uncrop", "--extend=half"), "a share such as 50%"),
        (("--task=jpeg", "--num-samples=0"), "num_samples >= 1"),
        (("--like=a.png",), "without its settings"),
    ],
)
def test_wrong_flags_are_said_in_a_line(restore, photos, capsys, flags, words):
    assert restore(photos / "a.png", *flags) in (1, 2)
    said = capsys.readouterr().err
    assert words in said.splitlines()[-1] and "Traceback" not in said


def test_no_checkpoint_and_no_pictures_are_said(restore, photos, tmp_path, capsys):
    assert restore(photos / "a.png", "--task=jpeg", checkpoint=None) == 1
    assert "expected --checkpoint=DIR" in capsys.readouterr().err
    assert restore(photos / "a.png", "--task=jpeg", checkpoint=tmp_path) == 1
    assert "expected checkpoints in" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert restore(tmp_path / "empty", "--task=jpeg") == 1
    assert "expected pictures in" in capsys.readouterr().err


def test_a_stopped_folder_goes_on_to_the_same_bytes(
    restore, photos, checkpoint, tmp_path
) -> None:
    folder, steps = tmp_path / "in", ("--task=jpeg", "--num-steps=60")
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02}.png").write_bytes((photos / "a.png").read_bytes())
    assert restore(folder, *steps, "--out=whole") == 0

    program = [sys.executable, "-c", WITHOUT_TENSORFLOW, "restore", str(folder)]
    flags = [*steps, "--out=part", f"--checkpoint={checkpoint}", "--sampler=ddpm"]
    process = subprocess.Popen(
        [*program, *flags],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )
    for line in process.stdout:
        if "03.png" in line:
            process.send_signal(signal.SIGINT)
            break
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert "goes on from there" in said
    part = _files(tmp_path / "part")
    assert 4 <= len(part) < 12
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "part").iterdir()}
    time.sleep(0.01)
    assert restore(folder, *steps, "--out=part") == 0
    assert _files(tmp_path / "part") == _files(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())
