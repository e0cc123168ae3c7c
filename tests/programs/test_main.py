"""main.py as a user meets it: commands, results, and what it says of mistakes."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from palette_jax import processes
from palette_jax.config import build
from palette_jax.config.build_restorer import load_weights
from palette_jax.pictures import sheets
from palette_jax.programs import train
from tests import xla_flags
from tests.programs.conftest import TINY, Run
from tests.programs.untrained import save_run

ROOT = pathlib.Path(__file__).resolve().parents[2]
Main = Callable[..., Run]


@pytest.fixture(scope="module")
def run(
    main: Main, photos: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, Run]:
    """A finished run of two tasks on a folder with two broken files."""
    folder = tmp_path_factory.mktemp("run")
    result = main(*_train(photos, "run"), folder=folder)
    assert result.code == 0, result.output
    return folder, result


def _train(photos: pathlib.Path, workdir: str) -> list[str]:
    return [
        f"--config={ROOT}/configs/multitask.py:tiny",
        f"--workdir={workdir}",
        "--config.data.source=folder",
        f"--config.data.folder={photos}",
        "--config.data.max_broken_share=0.5",
        "--config.mix.inpaint=0",
        "--config.mix.jpeg=0",
        *TINY,
    ]


def test_broken_pictures_are_named_and_training_completes(run: tuple) -> None:
    folder, result = run
    # Which of the broken ones a short run meets is up to the order.
    for name in ("cut.jpg", "text.jpg"):
        if f"{name}" in result.output:
            break
    else:
        pytest.fail(result.output)
    assert "step 4/4" in result.output
    assert "the last checkpoint is step 4" in result.output
    assert (folder / "run" / "previews" / "step_0000004.png").exists()


def test_the_loss_of_a_checkpoint_is_that_of_its_averaged_weights(run: tuple) -> None:
    """By which the best one is kept; after four steps the raw ones are others."""
    workdir = run[0] / "run"
    config, averaged, step = load_weights(workdir)
    held_out = train._HeldOut(config, build.make_mesh(config), ())
    metrics = json.loads((workdir / "checkpoints/4/metrics/metrics").read_text())
    loss = held_out.loss(averaged, processes.StopFlag())
    assert step == 4 and metrics == {"held_out_loss": pytest.approx(loss, rel=1e-5)}


def test_the_same_command_again_has_nothing_left_to_do(
    run: tuple, main: Main, photos: pathlib.Path
) -> None:
    folder, _ = run
    result = main(*_train(photos, "run"), folder=folder)
    assert result.code == 0, result.output
    assert "resuming from step 4" in result.output
    assert "step 4/4" not in result.output


def test_sample_writes_each_result_under_its_inputs_name(
    run: tuple, main: Main, photos: pathlib.Path
) -> None:
    folder, _ = run
    args = ("--mode=sample", "--workdir=run", "--config.sample.num_samples=2")
    result = main(*args, folder=folder)
    assert result.code == 0, result.output
    out = folder / "run" / "samples" / "step_0000004"
    for task in ("colorize", "uncrop"):
        told = json.loads((out / task / "samples.json").read_text())
        assert told["step"] == 4 and told["seed"] == 0
        assert told["sample"]["num_steps"] == 2
        assert 1 <= len(told["results"]) // 2 <= 4
        for entry in told["results"]:
            assert (photos / entry["input"]).exists()
            stem = entry["input"].rsplit(".", 1)[0]
            assert entry["file"] == f"{stem}_{entry['sample']}.png"
            assert Image.open(out / task / entry["file"]).size == (16, 16)
        sheet = Image.open(out / task / "contact_sheet.png")
        rows = len(told["results"]) // 2
        # Degraded, two samples, deviation, original, each 96 wide, with gaps of 2.
        height = sheets.HEAD + rows * 96 + (rows - 1) * 2
        assert sheet.size == (5 * 96 + 4 * 2, height)
        # Of each input the samples side by side, and how far they differ.
        stem = told["results"][0]["input"].rsplit(".", 1)[0]
        grid = Image.open(out / task / f"{stem}_grid.png")
        assert grid.size == (5 * 96 + 4 * 2, sheets.HEAD + 96)
        pixels = [
            np.float64(Image.open(out / task / f"{stem}_{i}.png")) for i in (0, 1)
        ]
        spread = np.abs(pixels[0] - pixels[1]).mean(-1) / 2
        drawn = np.asarray(Image.open(out / task / f"{stem}_deviation.png"))[..., 0]
        np.testing.assert_allclose(drawn, np.minimum(4 * spread, 255), atol=0.51)


def test_what_was_known_is_kept_in_the_results(run: tuple, main: Main) -> None:
    folder, _ = run
    result = main("--mode=sample", "--workdir=run", folder=folder)
    assert result.code == 0, result.output
    out = folder / "run" / "samples" / "step_0000004" / "uncrop"
    sheet = np.asarray(Image.open(out / "contact_sheet.png"))[sheets.HEAD :]
    # The right half was missing: the left one is the original's.
    degraded, sample, original = (sheet[:, i * 98 : i * 98 + 96] for i in range(3))
    np.testing.assert_array_equal(sample[:, :48], original[:, :48])
    np.testing.assert_array_equal(degraded[:96, 48:], 128)


def test_evaluate_prints_and_writes_a_table(run: tuple, main: Main) -> None:
    folder, _ = run
    result = main("--mode=evaluate", "--workdir=run", folder=folder)
    assert result.code == 0, result.output
    out = folder / "run" / "evaluation" / "step_0000004"
    table = json.loads((out / "table.json").read_text())
    for task in ("colorize", "uncrop"):
        model = table["tasks"][task]["model_psnr"]
        assert 0 < model < 60
        assert f"{model:.2f}" in result.output
        assert (out / f"{task}.png").exists()


def test_evaluation_reads_no_pictures_to_train_on(
    run: tuple, main: Main, photos: pathlib.Path
) -> None:
    folder, _ = run
    args = ("--mode=evaluate", "--workdir=run", "--config.data.folder=")
    there = f"--config.data.eval_folder={photos}"
    assert "add --config.data.eval_folder=" in main(*args, folder=folder).error
    result = main(*args, there, "--dry-run", folder=folder)
    assert result.code == 0, result.output
    count = len([path for path in photos.rglob("*") if path.is_file()])
    assert f"pictures: {count} to evaluate on" in result.output
    few = ("--config.eval.num_images=2", "--config.mix.uncrop=0")
    result = main(*args, there, *few, folder=folder)
    assert result.code == 0, result.output
    assert "report: " in result.output
    error = main(
        *_train(photos, "other"), "--config.data.folder=", there, folder=folder
    ).error
    assert "add --config.data.folder=" in error


def test_evaluation_of_another_network_is_refused(run: tuple, main: Main) -> None:
    folder, _ = run
    args = ("--mode=evaluate", "--workdir=run", "--config.model.base_features=16")
    error = main(*args, folder=folder).error
    assert "another network" in error and "expected" in error and "--workdir" in error


def test_a_run_of_another_network_is_refused_and_kept(
    run: tuple, main: Main, photos: pathlib.Path
) -> None:
    folder, _ = run
    args = [*_train(photos, "run"), "--config.model.base_features=16"]
    error = main(*args, folder=folder).error
    assert "model.base_features" in error and "--workdir" in error
    steps = folder / "run" / "checkpoints"
    assert {"2", "4"} <= {path.name for path in steps.iterdir()}


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    run: tuple, main: Main, photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder, _ = run
    shutil.copytree(folder / "run", tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints" / "4").rglob("*"):
        if path.is_file() and "state" in path.parts and "d" in path.parts:
            path.write_bytes(path.read_bytes()[:100])
    result = main(*_train(photos, "run"), folder=tmp_path)
    assert result.code == 0, result.output
    assert "resuming from step 2" in result.output
    assert "the last checkpoint is step 4" in result.output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--config.train.bach_size=3"], ["train.bach_size", "train.batch_size"]),
        (["--config.train.num_steps=many"], ["whole number", "num_steps", "many"]),
        (["--config.optim.learning_rate=fast"], ["a number", "learning_rate", "fast"]),
        (["--config.model.remat=maybe"], ["true or false", "model.remat", "maybe"]),
        (["--config.model.feature_multipliers=1,x"], ["numbers", "'x'"]),
        (["--config.train.num_steps"], ["value", "train.num_steps"]),
        (["--config.train.log_every=0"], ["train.log_every", ">= 1"]),
        (["--config.data.source=folder"], ["data.folder", "--config.data.folder="]),
        (["--config.task=uncorp"], ["uncorp", "did you mean 'uncrop'"]),
        (["config.train.num_steps=5"], ["--FLAG=VALUE", "config.train.num_steps=5"]),
        (["--mod=train"], ["mod"]),
        (["--config.model.attn_resolutions=5"], ["attn_resolutions", "[32, 16, 8]"]),
        (["--config.sample.sampler=ddmp"], ["ddmp", "did you mean 'ddpm'"]),
        (["--config.data.image_size=30"], ["multiple of 4", "30", "32"]),
        (["--config.train.batch_size=6"], ["train.batch_size", "multiple", "8"]),
        (["--config.diffusion.beta_max=1e-5"], ["beta_max", "schedule"]),
    ],
)
def test_a_wrong_config_is_told_in_one_line(
    main: Main, tmp_path: pathlib.Path, args: list[str], says: list[str]
) -> None:
    config = f"--config={ROOT}/configs/uncrop.py:tiny"
    error = main(config, "--workdir=run", *args, folder=tmp_path).error
    assert error.startswith("error: ")
    for text in says:
        assert text in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--workdir=run"], "--config=FILE"),
        (["--mode=evaluate", "--workdir=run"], "checkpoint"),
        ([f"--config={ROOT}/configs/uncrop.py:tiny"], "workdir"),
        ([f"--config={ROOT}/configs/uncrop.py:huge", "--workdir=run"], "variants"),
        (["--config=configs/no.py", "--workdir=run"], "no.py"),
    ],
)
def test_a_command_that_lacks_something_says_what(
    main: Main, tmp_path: pathlib.Path, args: list[str], says: str
) -> None:
    assert says in main(*args, folder=tmp_path).error


def test_a_negative_value_after_a_space_is_a_value(
    main: Main, tmp_path: pathlib.Path
) -> None:
    command = (f"--config={ROOT}/configs/uncrop.py:tiny", "--workdir=run", "--dry_run")
    result = main(*command, "--config.seed", "-1", folder=tmp_path)
    assert "expected seed >= 0" in result.error and "got -1" in result.error


def test_a_warning_of_the_config_is_printed_once(
    main: Main, tmp_path: pathlib.Path
) -> None:
    command = (f"--config={ROOT}/configs/uncrop.py:tiny", "--workdir=run", "--dry_run")
    few = ("--config.sample.sampler=ddpm", "--config.sample.num_steps=4")
    result = main(*command, *few, folder=tmp_path)
    assert result.code == 0, result.output
    assert result.output.count("ddpm with 4 steps and the large variance leaves") == 1


def test_flags_may_be_written_as_people_write_them(
    main: Main, tmp_path: pathlib.Path
) -> None:
    command = ["--config", f"{ROOT}/configs/uncrop.py:tiny", "--workdir", "run"]
    command += ["--config.train.num_steps", "7", "--config.seed", "3"]
    # A script's own overrides and then those of its caller: the last one counts.
    command += ["--config.model.feature_multipliers=1,2", "--config.train.keep=9"]
    command += ["--config.model.feature_multipliers=1,1,3", "--config.train.keep=8"]
    result = main(*command, "--config.model.remat", "--dry_run", folder=tmp_path)
    assert result.code == 0, result.output
    said = result.output.splitlines()
    for line in (
        "train.num_steps = 7",
        "seed = 3",
        "model.feature_multipliers = (1, 1, 3)",
        "train.keep = 8",
        "model.remat = True",
    ):
        assert line in said


@pytest.mark.parametrize("case", ["missing", "empty", "small"])
def test_a_folder_without_usable_pictures_is_told_in_one_line(
    main: Main, tmp_path: pathlib.Path, case: str
) -> None:
    folder = tmp_path / "photos"
    if case != "missing":
        folder.mkdir()
    if case == "small":
        for i in range(12):
            Image.new("RGB", (10, 10), (20 * i, 0, 0)).save(folder / f"{i}.png")
    error = main(*_train(folder, "run"), folder=tmp_path).error
    assert str(folder) in error or "10 x 10" in error or "0.png" in error
    if case == "small":
        assert "10" in error and "16" in error


@pytest.mark.slow
def test_two_devices_sample_with_what_four_trained_with_fsdp(
    tmp_path: pathlib.Path,
) -> None:
    few = {"min_side": 8, "num_eval": 4, "source": "sample_photos"}
    save_run(tmp_path / "run", fsdp=4, data=few)
    command = [sys.executable, str(ROOT / "main.py"), "--mode=sample", "--workdir=run"]
    flags = ("sample.num_steps=1", "eval.batch_size=2", "eval.num_images=2")
    environment = os.environ | {"XLA_FLAGS": xla_flags.fast_to_compile(num_devices=2)}
    result = subprocess.run(
        [*command, *(f"--config.{flag}" for flag in flags)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "run").rglob("samples*/**/*.png")), result.stdout


def test_training_without_its_packages_says_which_extra_has_them(
    tmp_path: pathlib.Path,
) -> None:
    missing = (
        "import importlib.util, sys; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *more: None if name in"
        " ('tensorflow', 'clu') else find(name, *more);"
        "from palette_jax import cli; sys.exit(cli.main())"
    )
    command = [sys.executable, "-c", missing, "train", "--config=uncrop:tiny"]
    result = subprocess.run(
        [*command, "--workdir=run"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert "got no tensorflow, clu; pip install 'palette-jax[train]'" in line
    assert not list(tmp_path.iterdir())


def test_the_command_works_from_a_shell_in_a_fresh_folder(
    tmp_path: pathlib.Path,
) -> None:
    command = [sys.executable, str(ROOT / "main.py"), "--dry_run", "--workdir=run"]
    result = subprocess.run(
        [*command, f"--config={ROOT}/configs/uncrop.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    assert "parameters: 552,814,083" in result.stdout
    assert not list(tmp_path.iterdir())
