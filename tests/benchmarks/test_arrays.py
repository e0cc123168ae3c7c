"""Training without TensorFlow: the same pictures and laws as with it."""

import functools
import io
import itertools
import json
import pathlib
import subprocess
import sys
import zipfile
from collections.abc import Callable

import jax
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from PIL import Image

from benchmarks import array_data, array_masks, array_tasks, pack_pictures
from benchmarks import train_from_arrays as trainer
from palette_jax.config import flags
from palette_jax.config.build_restorer import load_weights
from palette_jax.data import degradations, masks, sources, tasks
from palette_jax.errors import UserError
from palette_jax.interop.safetensors_file import export_safetensors
from palette_jax.programs import distill
from tests.programs import untrained

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE = 32


def _picture(seed: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Smooth colours with some noise, as of a photograph."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, 3), np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(image).astype(int) + rng.integers(-9, 10, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(12):
        picture = Image.fromarray(_picture(index, 40, 48 + index))
        picture.save(folder / f"picture_{index}.jpg", quality=90)
    return folder


@pytest.fixture(scope="module")
def packed(
    folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    file = tmp_path_factory.mktemp("packed") / "pictures.zip"
    left_out = pack_pictures.pack([folder], file, short_side=64, max_bytes=2**20)
    assert not left_out
    return file


def _recipe(packed: pathlib.Path, **changes: object) -> array_data.Recipe:
    every = tuple((name, 1.0) for name in array_tasks.TASKS)
    recipe = array_data.Recipe(str(packed), every, "luma", True, SIZE, 4, 0.5, 0, 3)
    return recipe._replace(**changes)


def test_jpegs_are_packed_as_they_are_and_the_rest_upright_and_small(
    folder: pathlib.Path, packed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with zipfile.ZipFile(packed) as archive:
        assert len(archive.namelist()) == 12
        for name in archive.namelist():
            assert archive.read(name) == (folder / name).read_bytes()
    picture = Image.fromarray(_picture(0, 30, 90))
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by a quarter.
    picture.save(tmp_path / "turned.jpg", exif=exif)
    picture.resize((300, 100)).save(tmp_path / "large.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 and no more")
    left_out = pack_pictures.pack(
        [tmp_path], tmp_path / "out.zip", short_side=50, max_bytes=2**20
    )
    assert len(left_out) == 1 and "broken.jpg" in left_out[0]
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        shapes = {
            name: Image.open(io.BytesIO(archive.read(name))).size
            for name in archive.namelist()
        }
    assert shapes == {"turned.jpg": (30, 90), "large.png": (150, 50)}


def test_a_packed_file_keeps_its_limit_and_says_what_it_left_out(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "small.zip"
    left_out = pack_pictures.pack([folder], file, short_side=64, max_bytes=9000)
    assert file.stat().st_size <= 9000
    assert len(zipfile.ZipFile(file).namelist()) + len(left_out) == 12
    with pytest.raises(UserError, match="different names"):
        pack_pictures.pack([folder, folder], file, short_side=64, max_bytes=9000)
    with pytest.raises(UserError, match="no folder"):
        pack_pictures.pack([file], file, short_side=64, max_bytes=9000)


def test_the_pictures_held_out_are_those_of_the_folder(
    folder: pathlib.Path, packed: pathlib.Path
) -> None:
    train, held_out = sources.hold_out(sources.folder(str(folder)), 3)
    names = array_data.split(_recipe(packed))
    assert names == (sorted(train.names.tolist()), sorted(held_out.names.tolist()))
    with pytest.raises(UserError, match=r"data\.num_eval=12"):
        array_data.split(_recipe(packed, num_eval=12))
    with pytest.raises(UserError, match="pack_pictures FOLDER"):
        array_data.split(_recipe(folder / "picture_0.jpg"))


@pytest.mark.parametrize("name", array_tasks.TASKS)
def test_only_what_is_degraded_differs_and_a_seed_gives_it_again(name: str) -> None:
    task = array_tasks.TASKS[name]
    for seed in range(20):
        y = _picture(seed)
        x, hole = task(np.random.default_rng(seed), y)
        again = task(np.random.default_rng(seed), y)
        assert np.array_equal(x, again.x) and np.array_equal(hole, again.hole)
        assert x.dtype == hole.dtype == np.uint8 and hole.shape == (SIZE, SIZE, 1)
        if name in ("inpaint", "uncrop"):
            assert set(np.unique(hole)) == {0, 1}
            np.testing.assert_array_equal(x, y * (1 - hole))
            low, high = (0.1, 0.4) if name == "inpaint" else (0.45, 0.55)
            assert low <= hole.mean() <= high
        else:
            assert not hole.any() and not np.array_equal(x, y)


def test_what_is_not_drawn_is_what_tensorflow_makes() -> None:
    y = _picture(0)
    seed = tf.constant([0, 0], tf.int64)
    rng = np.random.default_rng(0)
    for x, twin in (
        (array_tasks.colorize(rng, y).x, tasks.colorize),
        (
            array_tasks.colorize(rng, y, gray="lightness").x,
            functools.partial(tasks.colorize, gray="lightness"),
        ),
        (array_tasks.superres(rng, y).x, tasks.superres),
    ):
        np.testing.assert_array_equal(x, twin(seed, {"y": tf.constant(y)})["x"])
    for quality in (5, 30, 90):
        twin = functools.partial(tasks.jpeg, min_quality=quality, max_quality=quality)
        x = array_tasks.compress(y, quality)
        np.testing.assert_array_equal(x, twin(seed, {"y": tf.constant(y)})["x"])


def _assert_one_law(name: str, graph: Callable, ours: Callable) -> None:
    """Compares a number of many draws of both, by Kolmogorov's and Smirnov's test."""
    count = 300
    graph = tf.function(graph)
    theirs = [float(graph(tf.constant([1, i], tf.int64))) for i in range(count)]
    found = [float(ours(np.random.default_rng((1, i)))) for i in range(count)]
    both = np.sort([*theirs, *found])
    curves = [
        np.searchsorted(np.sort(a), both, "right") / count for a in (theirs, found)
    ]
    # Exceeded by one in a thousand pairs of samples of one law.
    assert np.abs(curves[0] - curves[1]).max() < 1.95 * np.sqrt(2 / count), name


@pytest.mark.parametrize("name", ["rectangles", "free_form", "hints"])
def test_holes_have_the_laws_of_those_in_the_graph(name: str) -> None:
    graph, ours = getattr(masks, name), getattr(array_masks, name)
    _assert_one_law(
        name,
        lambda seed: tf.reduce_mean(tf.cast(graph(seed, SIZE), tf.float32)),
        lambda rng: ours(rng, SIZE).mean(),
    )


@pytest.mark.parametrize("name", ["_fade", "_blur", "_grain", "_scratch"])
def test_time_has_the_laws_of_that_in_the_graph(name: str) -> None:
    graph, ours = getattr(degradations, name), getattr(array_tasks, name)
    y = _picture(3).astype(np.float32)
    _assert_one_law(
        name,
        lambda seed: tf.reduce_mean(tf.abs(graph(seed, tf.constant(y)) - y)),
        lambda rng: np.abs(ours(rng, y) - y).mean(),
    )


def test_batches_do_not_depend_on_the_workers(packed: pathlib.Path) -> None:
    maker = array_data.Maker(_recipe(packed))
    with array_data.Feed(_recipe(packed), workers=2) as feed:
        for step in range(3):
            batch, alone = next(feed), maker.train_batch(step)
            jax.tree.map(np.testing.assert_array_equal, batch, alone)
    assert batch["x"].shape == (4, SIZE, SIZE, 3)
    other = array_data.Maker(_recipe(packed, seed=1)).train_batch(0)
    assert not np.array_equal(other["y"], maker.train_batch(0)["y"])


def test_an_epoch_shows_every_picture_once(packed: pathlib.Path) -> None:
    maker = array_data.Maker(_recipe(packed))
    read = []
    maker._read = lambda name: read.append(name) or _picture(0)
    for place in range(18):
        maker._example(place)
    assert sorted(read[:9]) == sorted(read[9:]) == maker.train
    assert read[:9] != read[9:]


def test_the_held_out_batch_shows_each_task_and_marks_what_fills_up(
    packed: pathlib.Path,
) -> None:
    maker = array_data.Maker(_recipe(packed))
    batch = maker.held_out_batch(4, 0)
    assert batch["valid"].tolist() == [True] * 3 + [False]
    assert len(set(batch["id"][:3].tolist())) == 3
    jax.tree.map(np.testing.assert_array_equal, batch, maker.held_out_batch(4, 0))


def test_the_plan_fits_the_time_and_its_rate_never_rises() -> None:
    for step, pace, seconds in ((10, 2.0, 100.0), (500, 31.7, 400.0), (3, 0.01, 5.0)):
        plan = trainer.make_plan(step, pace, seconds)
        assert 1 <= plan.num_steps - step <= max(pace * seconds, 1)
        shares = [plan.share(s) for s in range(step + 1, plan.num_steps + 1)]
        assert all(a >= b for a, b in itertools.pairwise(shares))
        assert 0 < shares[-1] <= 1 and plan.share(plan.num_steps + 1) == 0
        decays = sum(share < 1 for share in shares)
        assert decays <= 0.3 * plan.num_steps + 1


def test_colours_are_true_where_they_are_hinted_at() -> None:
    y, shown = _picture(1), 0
    gray = array_tasks.colorize(np.random.default_rng(0), y).x
    for seed in range(30):
        x = array_tasks.colorize(np.random.default_rng(seed), y, hints=True).x
        differs = (x != gray).any(-1)
        np.testing.assert_array_equal(x[differs], y[differs])
        shown += differs.any()
    assert 5 < shown < 25


def test_what_one_file_cannot_give_is_refused(packed: pathlib.Path) -> None:
    config = flags.load("paired:tiny")
    with pytest.raises(UserError, match="got paired, which needs more"):
        array_data.make_recipe(config, str(packed))
    config = flags.load("multitask:tiny")
    assert dict(array_data.make_recipe(config, str(packed)).tasks)["jpeg"] == 1.0


@pytest.mark.parametrize(
    ("flags_given", "says"),
    [
        (["--teacher=no.safetensors"], "name the --workdir of a run or a file"),
        (["--teacher=no"], "give the --workdir"),
        (["--teacher=damaged.safetensors"], "download it again"),
        (["--teacher=others.safetensors"], "palette-jax export"),
        (["--teacher=student.safetensors"], "use its own teacher, first"),
        (["--config=multitask:tiny", "--steps=4"], "leave --steps out"),
        (["--config=multitask:tiny", "--config.distill.steps=4"], "distill RUN"),
    ],
)
def test_what_is_no_teacher_is_refused(
    packed: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    flags_given: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    teacher = flags.load("multitask:tiny")
    student = distill.student_config(teacher, "first", 2)
    for name, config in (("teacher", teacher), ("student", student)):
        export_safetensors({}, f"{name}.safetensors", config=config.to_dict())
    safetensors.numpy.save_file({}, "others.safetensors", {"config": "none of ours"})
    pathlib.Path("damaged.safetensors").write_bytes(b"cut off")
    command = ["--minutes=1", f"--pictures={packed}", "--out=out", *flags_given]
    command.append("--config.data.num_eval=3")
    with pytest.raises(UserError, match=says):
        trainer.main(command)
    assert not pathlib.Path("out").exists()


@pytest.mark.slow
def test_training_from_a_file_and_going_on_from_its_weights(
    packed: pathlib.Path,
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = (
        "import runpy, sys\n"
        "sys.modules['tensorflow'] = sys.modules['clu'] = None\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
    )
    trains = [
        *(sys.executable, "-c", program, "benchmarks.train_from_arrays"),
        *("--minutes=0.5", f"--pictures={packed}", "--workers=1"),
    ]
    command = [
        *(*trains, "--config=multitask:tiny", f"--out={tmp_path / 'out'}"),
        *("--config.data.image_size=8", "--config.data.hints"),
        *("--config.model.base_features=8", "--config.model.attn_resolutions=4"),
        *("--config.data.num_eval=4", "--config.eval.batch_size=4"),
        "--config.train.batch_size=4",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    names = sorted(path.name for path in out.iterdir())
    weights = "weights-00001-of-00001.safetensors"
    assert names == ["curve.html", "log.json", "sheet.png", weights]
    log = json.loads((out / "log.json").read_text())
    assert log["steps"] >= 1 and log["pictures_shown"] == 4 * log["steps"]
    assert next(point["step"] for point in log["points"]) == 0
    config, params, _ = load_weights(out / weights)
    assert config.data.hints and "conv_in" in params
    assert f"palette-jax import {out / weights}" in done.stdout
    run = tmp_path / "run"
    assert untrained.command(monkeypatch, "import", out / weights, f"--out={run}") == 0
    command = [
        *(sys.executable, "main.py", f"--config={run}/config.py:tiny"),
        *(f"--workdir={run}", "--config.train.num_steps=1"),
        *("--config.train.batch_size=4", "--config.eval.batch_size=4"),
        *("--config.data.num_eval=4", "--config.sample.num_steps=1"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resuming from step 0" in done.stderr

    # What is left is a teacher.
    student = tmp_path / "student"
    command = [*trains, f"--teacher={out / weights}", "--steps=2", f"--out={student}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config, own, _ = load_weights(student / weights)
    assert config.distill.steps == config.sample.num_steps == 2
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), own, params)
    assert 0 < max(jax.tree.leaves(moved)) < 0.1
    run = tmp_path / "student_run"
    imports = ("import", student / weights, f"--out={run}")
    assert untrained.command(monkeypatch, *imports) == 0
    restore = (
        "restore",
        folder / "picture_0.jpg",
        "--task=jpeg",
        f"--out={tmp_path / 'restored'}",
    )
    for place in (student / weights, run):
        command = (*restore, f"--checkpoint={place}", "--overwrite")
        assert untrained.command(monkeypatch, *command, "--num-steps=8") == 1
        assert "expected the 2 steps of ddim" in capsys.readouterr().err
        assert untrained.command(monkeypatch, *command) == 0
