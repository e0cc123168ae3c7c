"""`palette-jax restore`, as a user runs it."""

import importlib.resources
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from palette_jax.config import build_restorer
from palette_jax.data import sources
from palette_jax.interop.safetensors_file import export_safetensors
from palette_jax.pictures import files
from palette_jax.programs import restore as program
from palette_jax.restoration.jobs import Job
from palette_jax.restoration.restorer import Restorer
from tests.pictures.test_files import BROKEN, ODD
from tests.programs.untrained import command, save_run
from tests.restoration.oracle import make_restorer, negative

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


@pytest.fixture(scope="module")
def loaded(checkpoint) -> Restorer:
    """The checkpoint, loaded and compiled once for all tests of this file."""
    return build_restorer.load_restorer(str(checkpoint))


@pytest.fixture
def restore(monkeypatch, checkpoint, loaded, tmp_path):
    """`restore(*args)` runs the command in a folder of its own."""

    def load(named: object, *, task: str | None) -> Restorer:
        is_loaded = named == str(checkpoint)
        return loaded if is_loaded else build_restorer.load_restorer(named, task=task)

    monkeypatch.setattr(program, "load_restorer", load)
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
    assert "4 restored, 0 existed already, 1 failed" in said.err
    assert "Traceback" not in said.err


def test_a_warning_of_all_pictures_is_printed_once(restore, photos, tmp_path, capsys):
    mask = np.full((9, 12), 10, np.uint8)
    mask[2:6] = 200
    Image.fromarray(mask).save(tmp_path / "mask.png")
    flags = ("--task=inpaint", f"--mask={tmp_path / 'mask.png'}", "--num-steps=3")
    restore(photos, *flags)
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 4
    assert said.err.count("ddpm with 3 steps leaves colour noise") == 1
    assert said.err.count("the brighter of its two values, 200") == 1
    # A picture's own are printed for each, and where all is there, there are none.
    wide = np.zeros((9, 12, 4), np.uint8)
    for name in ("c.png", "d.png"):
        (tmp_path / "own").mkdir(exist_ok=True)
        Image.fromarray(wide).save(tmp_path / "own" / name)
    restore(tmp_path / "own", *flags, "--out=own_out")
    said = capsys.readouterr().err
    for name in ("c.png", "d.png"):
        assert f"{name}: " in said
    restore(tmp_path / "own", *flags, "--out=own_out")
    assert "colour noise" not in capsys.readouterr().err


def test_a_result_is_made_again_from_its_settings(restore, photos, tmp_path) -> None:
    photo = photos / "a.png"
    flags = ("--task=uncrop", "--side=left", "--extend=25%", "--seed=7")
    assert restore(photo, *flags, "--num-samples=2", "--out=old") == 0
    old = tmp_path / "old" / "a_seed8.png"
    # A result tells the name of its checkpoint, not where it lay.
    assert restore(photo, f"--like={old}", "--out=new", checkpoint=None) == 1
    assert restore(photo, f"--like={old}", "--out=new") == 0
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


def test_steps_are_checked_with_the_hints_of_the_result(
    restore, photos, tmp_path, capsys
) -> None:
    run = save_run(tmp_path / "run", data={"hints": True})
    hints = np.zeros((9, 12, 4), np.uint8)
    hints[2:5, 3:8] = 250, 10, 20, 255
    Image.fromarray(hints).save("hints.png")
    flags = (photos / "a.png", "--task=colorize", "--hints=hints.png", "--sampler=ddim")
    two = ("--num-steps=2", "--check-steps", "--out=two")
    assert restore(*flags, *two, checkpoint=run) == 0
    said = capsys.readouterr().out
    assert restore(*flags, "--num-steps=4", "--out=four", checkpoint=run) == 0
    a, b = (
        files.read(tmp_path / name / "a.png").pixels.astype(float)
        for name in ("two", "four")
    )
    distance = np.sqrt(np.mean((a - b) ** 2))
    assert distance > 1
    assert f"2 steps are {distance:.2f} of 255" in said


def test_nothing_is_overwritten_unless_told(restore, photos, capsys) -> None:
    photo, result = photos / "a.png", pathlib.Path("restored/a.png")
    assert restore(photo, "--task=jpeg") == 0
    before = result.read_bytes()
    assert restore(photo, "--task=jpeg", "--seed=1") == 1
    assert "give --overwrite" in capsys.readouterr().err
    assert result.read_bytes() == before
    assert restore(photo, "--task=jpeg", "--seed=1", "--overwrite") == 0
    assert result.read_bytes() != before
    # A stranger's file is no result of ours either, and the photo is never replaced.
    Image.new("RGB", (12, 9)).save(result)
    assert restore(photo, "--task=jpeg") == 1
    before = photo.read_bytes()
    assert restore(photo, "--task=jpeg", f"--out={photos}", "--overwrite") == 1
    assert "would replace it" in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_what_another_command_wrote_meanwhile_is_kept(
    restore, photos, loaded, monkeypatch, capsys
) -> None:
    """Also what happens where a disk takes a.png and A.png for one file."""
    photo, target = photos / "deep" / "c.png", pathlib.Path("restored/c.png")
    restore_many = loaded.restore_many

    def meanwhile(*args: Any, **options: Any) -> Any:
        target.parent.mkdir()
        Image.new("RGB", (3, 3)).save(target)
        return restore_many(*args, **options)

    monkeypatch.setattr(loaded, "restore_many", meanwhile)
    assert restore(photo, "--task=jpeg") == 1
    assert Image.open(target).size == (3, 3)
    said = capsys.readouterr().err
    assert "restored/c.png exists and is no result" in said
    assert "1 found, 0 restored, 0 existed already, 1 failed" in said


def _save_noise(folder: pathlib.Path, *names: str) -> None:
    """Saves a different picture under each name."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for name in names:
        pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def test_results_in_the_folder_of_their_pictures_are_left_out(
    restore, tmp_path, capsys
) -> None:
    _save_noise(tmp_path / "mine", "a.png", "b.png")
    made = ("--task=colorize", "--num-samples=2", "--out=mine/colors")
    assert restore("mine", *made) == 0
    assert restore("mine", "--task=jpeg", "--format=jpg", "--out=mine/jpeg") == 0
    assert "8 results in the folder of their pictures are left out" in (
        capsys.readouterr().err
    )
    assert restore("mine", "--task=jpeg", "--out=better") == 0
    assert list(_files(pathlib.Path("better"))) == ["a.png", "b.png"]
    # By name, or without their pictures, results are pictures like others.
    capsys.readouterr()
    assert restore("mine/jpeg", "mine/colors/a_seed0.png", "--task=jpeg") == 0
    assert list(_files(tmp_path / "restored")) == ["a.png", "a_seed0.png", "b.png"]
    assert "left out" not in capsys.readouterr().err


def test_pictures_whose_names_are_one_on_the_disk_do_not_replace_each_other(
    restore, tmp_path, monkeypatch, capsys
) -> None:
    """`a.png` and `A.png`, on a disk that does not distinguish them."""
    _save_noise(tmp_path / "mine", "a.png", "A.png")
    targets = Job.targets
    monkeypatch.setattr(
        *(Job, "targets"),
        lambda *args: [p.with_name(p.name.lower()) for p in targets(*args)],
    )
    for _ in range(2):
        assert restore("mine", "--task=jpeg", "--overwrite") == 1
        said = capsys.readouterr()
        assert "is the result of another picture" in said.err
        assert said.out.count("restored/a.png") == 1


def test_samples_come_with_a_grid_and_their_deviation(restore, photos, tmp_path):
    out = tmp_path / "restored"
    assert restore(photos / "a.png", "--task=colorize", "--num-samples=3") == 0
    samples = [files.read(out / f"a_seed{seed}.png").pixels for seed in range(3)]
    spread = np.std(np.float64(samples), axis=0).mean(-1)
    with Image.open(out / "a_seeds0-2_deviation.png") as image:
        assert image.mode == "L"
        np.testing.assert_allclose(image, np.minimum(4 * spread, 255), atol=0.51)
    grid = files.read(out / "a_seeds0-2_grid.png").pixels
    assert grid.shape == (9, 5 * 12 + 4 * 4, 3)
    np.testing.assert_array_equal(grid[:, 16:28], samples[0])
    # Other seeds have a grid of their own, and what a stranger put there stays.
    before = _files(out)
    assert restore(photos / "a.png", "--task=colorize", "--num-samples=3") == 0
    (out / "a_seeds5-6_grid.png").write_text("precious")
    flags = ("--task=colorize", "--num-samples=2", "--seed=5")
    assert restore(photos / "a.png", *flags) == 1
    assert _files(out) == {**before, "a_seeds5-6_grid.png": b"precious"}


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
        (("--task=uncrop", "--side=top", "--extend=999999%"), "0 to 16 times"),
        (("--task=uncrop", "--side=top", "--extend=-5%"), "0 to 16 times"),
        (("--task=uncrop", "--side=top", "--extend=nan"), "0 to 16 times"),
        (("--task=uncrop", "--extend=half"), "a share such as 50%"),
        (("--task=jpeg", "--seed=4294967296"), "from 0 to 4,294,967,295 for --seed"),
        (("--task=jpeg", "--seed=-1"), "from 0 to 4,294,967,295 for --seed"),
        (
            ("--task=jpeg", "--seed=4294967295", "--num-samples=2"),
            "a seed from 0 to 4294967294",
        ),
        (("--task=jpeg", "--num-samples=0"), "from 1 to 10,000 for --num-samples"),
        (("--like=a.png",), "without settings"),
        (("--task=jpeg", "--hints=h.png"), "no --hints with task jpeg"),
        (("--task=colorize", "--side=left"), "no --side with task colorize"),
        (("--task=jpeg", "--extend=left=50%"), "no --extend with task jpeg"),
        (("--task=jpeg", "--keep-luminance"), "no --keep-luminance with task jpeg"),
        (("--task=colorize", "--invert"), "no --invert with task colorize"),
    ],
)
def test_wrong_flags_are_said_in_a_line(restore, photos, capsys, flags, words):
    assert restore(photos / "a.png", *flags) in (1, 2)
    said = capsys.readouterr().err
    assert words in said.splitlines()[-1] and "Traceback" not in said


def test_a_mask_can_be_checked_before_anything_is_painted(
    restore, photos, tmp_path, capsys
) -> None:
    mask = np.zeros((18, 24), np.uint8)
    mask[4:12] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    flags = ("--task=inpaint", f"--mask={tmp_path / 'm.png'}", "--check-mask")
    # Without weights, since none are needed.
    assert restore(photos / "a.png", *flags, checkpoint=None) == 0
    said = capsys.readouterr()
    assert "44.4% would be painted" in said.out
    assert "got 24 x 18; it is resized" in said.err
    shown = files.read(tmp_path / "restored" / "a_mask.png").pixels
    original = files.read(photos / "a.png").pixels
    np.testing.assert_array_equal(shown[:2], original[:2])
    assert (shown[2:6, :, 0] >= 170).all()
    assert restore(photos / "a.png", *flags, checkpoint=None) == 1
    assert "give --overwrite" in capsys.readouterr().err


def test_no_checkpoint_and_no_pictures_are_said(
    restore, photos, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(build_restorer, "SHIPPED", tmp_path)
    assert restore(photos / "a.png", "--task=jpeg", checkpoint=None) == 1
    assert "expected --checkpoint, got none" in capsys.readouterr().err
    assert restore(photos / "a.png", "--task=jpeg", checkpoint=tmp_path) == 1
    assert "expected checkpoints in" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert restore(tmp_path / "empty", "--task=jpeg") == 1
    assert "expected pictures in" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file", "file/in", "link", "x" * 300])
def test_where_nothing_can_be_written_is_said_first(
    restore, photos, tmp_path, capsys, place
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    out = f"--out={tmp_path / place}"
    assert restore(photos / "a.png", "--task=jpeg", out, checkpoint="none") == 1
    assert "for results that can be written" in capsys.readouterr().err


def test_a_refused_command_leaves_no_folder(restore, photos, tmp_path) -> None:
    out = tmp_path / "new" / "results"
    command = (photos / "a.png", "--task=jpeg", f"--out={out}")
    mask = f"--mask={photos / 'a.png'}"  # Which this task does not take.
    for refused in (mask, "--num-steps=0", "--task=unknown"):
        assert restore(*command, refused) != 0
        assert not out.parent.exists()
    assert restore(*command) == 0
    assert list(out.iterdir()) == [out / "a.png"]


def test_the_colours_of_the_package_s_own_weights_are_nearer_than_gray(
    monkeypatch, tmp_path
) -> None:
    """Right after installation, on photographs that they were not trained on."""
    originals = {}
    (tmp_path / "gray").mkdir()
    for package, names in sources._SAMPLES.items():
        for name in names:
            path = importlib.resources.files(package) / name
            with Image.open(io.BytesIO(path.read_bytes())) as photo:
                small = ImageOps.fit(photo.convert("RGB"), (64, 64))
            stem = pathlib.Path(name).stem
            small.convert("L").save(tmp_path / "gray" / f"{stem}.png")
            originals[stem] = np.asarray(small, np.float64)
    monkeypatch.chdir(tmp_path)
    flags = ("--task=colorize", "--num-samples=8", "--quality-preset=fast")
    assert command(monkeypatch, "restore", tmp_path / "gray", *flags) == 0
    errors = {"gray": 0.0, "mean": 0.0}
    for name, original in originals.items():
        gray = files.read(tmp_path / "gray" / f"{name}.png").pixels
        results = [files.read(f"restored/{name}_seed{i}.png").pixels for i in range(8)]
        errors["gray"] += np.mean((gray - original) ** 2)
        errors["mean"] += np.mean((np.mean(results, axis=0) - original) ** 2)
    assert errors["mean"] < 0.8 * errors["gray"], errors


def test_weights_that_come_with_the_package_need_no_checkpoint(
    restore, photos, checkpoint, tmp_path, monkeypatch, capsys
) -> None:
    config, params, _ = build_restorer.load_weights(checkpoint)
    weights = tmp_path / "weights"
    all_tasks, only = weights / "all.safetensors", weights / "only.safetensors"
    export_safetensors(params, all_tasks, config=config.to_dict())
    config.unlock()
    config.task = "jpeg"
    export_safetensors(params, only, config=config.to_dict())
    monkeypatch.setattr(build_restorer, "SHIPPED", weights)

    def weights_of(name: str) -> object:
        return files.read_about(tmp_path / name)["weights"]

    photo = photos / "a.png"
    for task, named in (("jpeg", only.name), ("colorize", all_tasks.name)):
        for out, given in ((task, None), (f"{task}_run", checkpoint)):
            flags = (f"--task={task}", f"--out={out}")
            assert restore(photo, *flags, checkpoint=given) == 0
        assert weights_of(f"{task}/a.png") == named
        pixels = [files.read(f"{out}/a.png").pixels for out in (task, f"{task}_run")]
        np.testing.assert_array_equal(*pixels)
    # The same again from what was written, and from the file as a checkpoint.
    for out, flags in (
        ("like", ("--like=jpeg/a.png",)),
        ("file", ("--task=jpeg", f"--checkpoint={only}")),
    ):
        assert restore(photo, *flags, f"--out={out}", checkpoint=None) == 0
        again = files.read(f"{out}/a.png").pixels
        np.testing.assert_array_equal(again, files.read("jpeg/a.png").pixels)
    assert "will differ" not in capsys.readouterr().err
    # Another task than any of these know.
    all_tasks.unlink()
    assert restore(photo, "--task=colorize", "--out=none", checkpoint=None) == 1
    assert "know jpeg, not colorize" in capsys.readouterr().err


def test_other_weights_than_those_of_like_are_warned_of(
    restore, photos, tmp_path, capsys
) -> None:
    other = save_run(tmp_path / "other", weight=0.2)
    assert restore(photos / "a.png", "--task=jpeg", "--out=old") == 0
    like = "--like=old/a.png"
    assert restore(photos / "a.png", like, "--out=new", checkpoint=other) == 0
    assert "results will differ" in capsys.readouterr().err
    # The same weights at another place go on with what is there.
    moved = tmp_path / "moved"
    shutil.copytree(other, moved)
    assert restore(photos / "a.png", like, "--out=new", checkpoint=moved) == 0
    assert "1 of 1 results exist already" in capsys.readouterr().out


def test_results_may_lie_anywhere_but_among_the_pictures(
    restore, photos, capsys
) -> None:
    shutil.copytree(photos / "deep", "in")
    assert restore("in", "--task=jpeg", "--num-steps=1", "--out=.") == 0
    assert pathlib.Path("c.png").exists()
    assert restore("in", "--task=jpeg", "--num-steps=1", "--out=in") == 1
    assert "another folder than the pictures" in capsys.readouterr().err
    for _ in range(2):  # The second time, results are no pictures to restore.
        assert restore("in", "--task=jpeg", "--num-steps=1", "--out=in/new") == 0
    assert sorted(_files(pathlib.Path("in"))) == ["c.png", "new/c.png"]


def test_odd_pictures_are_restored_or_refused_in_a_sentence(
    restore, tmp_path, capsys, monkeypatch
) -> None:
    # The network is that of tests/restoration/test_files.py, which looks at the pixels.
    monkeypatch.setattr(
        program, "load_restorer", lambda *_, **__: make_restorer(negative)
    )
    folder = tmp_path / "odd"
    folder.mkdir()
    for name, (data, _) in {**ODD, **BROKEN}.items():
        (folder / f"{name}.png").write_bytes(data)  # Pillow goes by what is inside.
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    assert restore(folder, "--task=jpeg", "--sampler=ddim") == 1
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    refused = {line.split(": ")[1].removeprefix(f"{folder}/") for line in errors}
    assert refused == {f"{name}.png" for name in (*BROKEN, "huge")}
    assert all(": expected " in line for line in errors)
    assert "Traceback" not in said.err
    for name, (_, shape) in ODD.items():
        with Image.open(tmp_path / "restored" / f"{name}.png") as result:
            assert result.size == shape[::-1]


def test_what_becomes_too_large_is_refused_and_the_others_restored(
    restore, photos, tmp_path, capsys
) -> None:
    Image.new("1", (700, 700)).save(tmp_path / "large.png")
    sources = (tmp_path / "large.png", photos / "a.png")
    assert restore(*sources, "--task=uncrop", "--side=all", "--extend=9") == 1
    assert "large.png: expected at most 100,000,000" in capsys.readouterr().err
    assert files.read("restored/a.png").pixels.shape == (9 * 19, 12 * 19, 3)


def test_known_pixels_are_kept_whatever_the_mode(restore, photos, tmp_path) -> None:
    rgb = Image.open(photos / "a.png")
    alpha = Image.fromarray(np.arange(108, dtype=np.uint8).reshape(9, 12))
    deep = np.random.default_rng(0).integers(0, 65536, (9, 12), dtype=np.uint16)
    modes = {mode: rgb.convert(mode) for mode in ("L", "LA", "RGBA", "1")}
    modes |= {"P": rgb.quantize(20), "16": Image.fromarray(deep)}
    for mode in ("LA", "RGBA"):
        modes[mode].putalpha(alpha)
    mask = np.zeros((9, 12), np.uint8)
    mask[3:6, 4:9] = 255
    (tmp_path / "in").mkdir()
    for mode, image in modes.items():
        image.save(tmp_path / "in" / f"{mode}.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert restore("in", "--task=inpaint", "--mask=m.png", "--out=inpaint") == 0
    uncrop = ("--task=uncrop", "--side=left", "--extend=50%", "--out=uncrop")
    assert restore("in", *uncrop) == 0

    def values(image: Image.Image) -> np.ndarray:
        is_deep = image.mode == "I;16"
        return np.asarray(image if is_deep else image.convert("RGBA"))

    for mode, image in modes.items():
        with Image.open(f"inpaint/{mode}.png") as saved:
            kept = mask == 0
            np.testing.assert_array_equal(values(saved)[kept], values(image)[kept])
            assert (values(saved) != values(image)).any(), mode
        with Image.open(f"uncrop/{mode}.png") as saved:
            np.testing.assert_array_equal(values(saved)[:, 6:], values(image))


def test_the_library_does_what_its_page_says(checkpoint, photos, tmp_path, monkeypatch):
    page = pathlib.Path(__file__).parents[2] / "docs" / "restore.md"
    blocks = page.read_text().split("```python\n")[1:]
    monkeypatch.chdir(tmp_path)
    pathlib.Path("runs").mkdir()
    pathlib.Path("runs/multi").symlink_to(checkpoint)
    Image.open(photos / "a.png").save("photo.jpg")
    hole = np.zeros((9, 12), np.uint8)
    hole[3:5] = 255
    Image.fromarray(hole).save("mask.png")
    names: dict[str, object] = {}
    for block in blocks:
        exec(block.split("```")[0], names)
    assert files.read("restored.png").pixels.shape == (9, 12, 3)
    assert files.read_about("restored.png")["settings"]["seed"] == 3


@pytest.mark.parametrize("name", ["README.md", "docs/restore.md"])
def test_the_first_commands_of_the_docs_run_one_after_the_other(
    name, restore, photos, tmp_path
) -> None:
    text = (pathlib.Path(__file__).parents[2] / name).read_text()
    begin = "    palette-jax restore "
    first = text[text.index(begin) :].split("\n\n")[0].splitlines()
    Image.open(photos / "a.png").save("photo.jpg")
    Image.new("L", (12, 9), 255).save("mask.png")
    pathlib.Path("photos").mkdir()
    shutil.copy(photos / "a.png", "photos")
    for line in first:
        command = line.removeprefix(begin).split("#")[0]
        assert restore(*command.split()) == 0, line


def test_a_stopped_folder_goes_on_to_the_same_bytes(
    restore, photos, checkpoint, tmp_path
) -> None:
    folder, steps = tmp_path / "in", ("--task=jpeg", "--num-steps=20")
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
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
        if "07.png" in line:
            process.send_signal(signal.SIGINT)
            break
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert "the same command resumes" in said
    part = _files(tmp_path / "part")
    assert 8 <= len(part) < 24
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "part").iterdir()}
    time.sleep(0.01)
    assert restore(folder, *steps, "--out=part") == 0
    assert _files(tmp_path / "part") == _files(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())


def test_the_settings_of_a_result_serve_another_task(
    restore, photos, tmp_path, capsys
) -> None:
    Image.new("L", (12, 9), 255).save(tmp_path / "m.png")
    mask = ("--task=inpaint", "--mask=m.png", "--invert", "--seed=5")
    assert restore(photos / "a.png", *mask) == 0
    like = ("--like=restored/a.png", "--task=jpeg", "--out=other")
    assert restore(photos / "a.png", *like) == 0, capsys.readouterr().err
    about = files.read_about("other/a.png")
    assert about["settings"]["seed"] == 5 and "invert" not in about


def test_a_pipe_is_refused_and_not_waited_for(restore, photos, capsys) -> None:
    os.mkfifo("pipe.png")
    for flags in (("--task=jpeg",), ("--task=inpaint", "--mask=pipe.png")):
        photo = "pipe.png" if len(flags) == 1 else photos / "a.png"
        assert restore(photo, *flags) == 1
        assert "got a pipe or a device: pipe.png" in capsys.readouterr().err


def test_weights_of_another_kind_are_named(restore, photos, tmp_path, capsys) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK")
    assert restore(photos / "a.png", "--task=jpeg", checkpoint="model.pt") == 1
    assert "palette-jax import model.pt --out=RUN" in capsys.readouterr().err


def test_a_run_may_be_named_like_a_file(restore, photos, checkpoint, tmp_path) -> None:
    (tmp_path / "run.safetensors").symlink_to(checkpoint)
    assert restore(photos / "a.png", "--task=jpeg", checkpoint="run.safetensors") == 0
