"""--mode=evaluate: what it measures, and that it goes on where it was stopped."""

import argparse
import json
import pathlib
import re
import shutil
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from etils import epath
from PIL import Image

from palette_jax.config import build_data
from palette_jax.config.values import from_dict
from palette_jax.errors import MetricError
from palette_jax.evaluation import history, of_run, paper, plots, restored
from palette_jax.pictures.protocols import PROTOCOLS
from palette_jax.programs import run
from palette_jax.training import checkpoints
from tests.programs import fake_networks
from tests.programs.conftest import Process
from tests.programs.untrained import save_run

COUNT, SAMPLES = 10, 2
PATIENCE = 600  # Seconds. A loaded machine is slow; nothing here is about time.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return save_run(tmp_path_factory.mktemp("run")) / "checkpoints"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """COUNT pictures of one colour each, of which the list names the last ones."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(COUNT + 4):
        pixels = np.full((40, 40, 3), rng.integers(20, 236, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return folder


def _config(checkpoint: pathlib.Path, pictures: pathlib.Path) -> Any:
    config = from_dict(checkpoints.load_config(checkpoint))
    with config.unlocked():
        config.data.eval_folder = str(pictures)
        config.data.image_size = 8
        config.sample.num_steps = 2
        config.sample.num_samples = SAMPLES
        config.eval.batch_size = 4
        config.mix = {"colorize": 1.0, "inpaint": 0.0, "uncrop": 1.0, "jpeg": 0.0}
    return config


def _workdir(folder: pathlib.Path, checkpoint: pathlib.Path) -> pathlib.Path:
    shutil.copytree(checkpoint, folder / "run" / "checkpoints")
    return folder / "run"


@pytest.fixture(scope="module")
def evaluated(
    checkpoint: pathlib.Path,
    pictures: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[pathlib.Path, dict[str, Any]]:
    """An evaluation of the pictures that a list names, with known networks."""
    folder = tmp_path_factory.mktemp("evaluated")
    workdir = _workdir(folder, checkpoint)
    config = _config(checkpoint, pictures)
    lines = []
    for path in sorted(pictures.glob("*.png"))[4:]:
        red = int(np.asarray(Image.open(path))[0, 0, 0])
        lines.append(f"/deep/{path.name} {red if len(lines) % 2 else (red + 9) % 256}")
    (folder / "list.txt").write_text("\n".join(lines))
    with config.unlocked():
        config.data.eval_list = str(folder / "list.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        fake_networks.install(patch)
        assert of_run.evaluate(config, str(workdir)) == 0
    out = workdir / "evaluation" / "step_0000000"
    return out, json.loads((out / "table.json").read_text())


def test_the_rows_are_those_of_the_papers_tables(evaluated: tuple) -> None:
    _, results = evaluated
    for found in results["tasks"].values():
        names = ["original pictures", "trivial baseline", "model", "mean of 2 samples"]
        assert list(found["rows"]) == names
        first, _, model, mean = found["rows"].values()
        assert first["PD"] == 0 and first["FID"] > 0  # Of more pictures than these.
        # Every other class in the list is right, and the classifier is.
        assert first["CA"] == 50
        # A mean of squares is no less than the square of the mean.
        assert mean["PSNR"] > model["PSNR"]
        assert "FID" not in mean
        for title in ("FID", "IS", "PD"):
            values = [sample[title] for sample in found["samples"]]
            assert model[title] == pytest.approx(np.mean(values))
    assert "colourfulness" in results["tasks"]["colorize"]["rows"]["model"]
    assert "colourfulness" not in results["tasks"]["uncrop"]["rows"]["model"]
    gray = results["tasks"]["colorize"]["rows"]["trivial baseline"]
    assert gray["colourfulness"] == 0
    # Gray is (0, 0) in Lab, but for the six digits of the standard's matrices.
    assert gray["a*"] == pytest.approx(0, abs=0.01) == gray["b*"]


def test_all_that_a_number_depends_on_is_told(evaluated: tuple) -> None:
    out, results = evaluated
    told = results["protocol"]
    assert told["pictures"] == COUNT and told["reference"]["pictures"] == COUNT + 4
    assert told["reference"]["hash"] != told["pictures_hash"]
    assert re.fullmatch("[0-9a-f]{16}", told["reference"]["hash"])
    assert told["seed"] == 0 and told["steps"] == 2 and told["sampler"] == "unipc_2"
    assert told["weights"]["inception"] == fake_networks.SHA256
    page = (out / "report.html").read_text()
    for text in (
        "hash " + told["reference"]["hash"],
        "central square",
        "8 x 8",
        "unipc_2",
    ):
        assert text in page
    assert "FID of 10 pictures is only a trend" in page
    assert "not ctest10k, places10k or val5k" in page
    # Eight pixels are too few for these, which is said and not hidden.
    assert "11" in results["absent"]["SSIM"] and "31" in results["absent"]["LPIPS"]


def test_the_report_needs_no_network(evaluated: tuple) -> None:
    out, _ = evaluated
    page = (out / "report.html").read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses and all(a.startswith(("data:", "#")) for a in addresses)
    assert page.count("<h3>Best by") == page.count("<h3>Worst by") == 2


def test_restored_pictures_are_kept_and_what_was_known_is_in_them(
    evaluated: tuple, pictures: pathlib.Path
) -> None:
    out, results = evaluated
    folder = out / results["tasks"]["uncrop"]["folder"]
    for name in ("04", "13"):
        loaded = {
            kind: np.asarray(Image.open(folder / kind / f"{name}.png"))
            for kind in ("given", "original", "sample_0", "sample_1")
        }
        photo = np.asarray(Image.open(pictures / f"{name}.png"))
        np.testing.assert_array_equal(loaded["original"], photo[:8, :8])
        for sample in (loaded["sample_0"], loaded["sample_1"]):
            np.testing.assert_array_equal(sample[:, :4], loaded["original"][:, :4])
        assert (loaded["sample_0"] != loaded["sample_1"]).any()
        # Both programs judge these files: PSNR is over what the model paints.
        painted = [
            loaded[kind][:, 4:].astype(float) - loaded["original"][:, 4:]
            for kind in ("sample_0", "sample_1")
        ]
        expected = [10 * np.log10(255**2 / np.mean(np.square(d))) for d in painted]
        each = results["tasks"]["uncrop"]["each"][name]
        assert each["PSNR"] == pytest.approx(np.mean(expected))
    assert not (folder / "sample_0" / "03.png").exists()


def test_the_same_command_again_makes_nothing_anew(
    evaluated: tuple, checkpoint: pathlib.Path, pictures: pathlib.Path
) -> None:
    out, results = evaluated
    kept = {p: p.stat().st_mtime_ns for p in out.rglob("*/*.*") if p.is_file()}
    config = _config(checkpoint, pictures)
    with config.unlocked():
        config.data.eval_list = str(out.parents[2] / "list.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(out.parents[2]))
        fake_networks.install(patch)
        of_run.evaluate(config, str(out.parents[1]))
    assert json.loads((out / "table.json").read_text()) == results
    made = {p for p, time in kept.items() if p.stat().st_mtime_ns != time}
    assert {p.name for p in made} <= {"settings.json", "table.json"}


def test_the_trivial_baseline_is_measured_once_for_all_settings(
    evaluated: tuple,
    checkpoint: pathlib.Path,
    pictures: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    out, _ = evaluated
    home = out.parents[2]
    workdir = shutil.copytree(home / "run", tmp_path / "run")
    config = _config(checkpoint, pictures)
    with config.unlocked():
        config.data.eval_list = str(home / "list.txt")
        config.sample.num_steps = 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        fake_networks.install(patch)
        of_run.evaluate(config, str(workdir))
    saved = sorted(workdir.rglob("*.npz"))
    names = [name for path in saved for name in np.load(path) if "trivial/psnr" in name]
    assert len(names) == 2  # Of colorize and uncrop, each in one batch.


def test_a_run_is_judged_on_the_squares_of_its_protocol(
    checkpoint: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    rng = np.random.default_rng(0)
    for index in range(2):
        pixels = rng.integers(0, 256, (50, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    found = {}
    for protocol in PROTOCOLS:
        args = parser.parse_args(
            [f"--workdir={checkpoint.parent}", f"--protocol={protocol}"]
        )
        args.command = "evaluate"
        args.overrides = [
            ("data.eval_folder", str(tmp_path)),
            ("data.image_size", "16"),
            ("eval.batch_size", "2"),
        ]
        (batch,) = build_data.eval_batches(run._config(args), "uncrop")
        photo = np.asarray(Image.open(tmp_path / "1.png"))
        expected = PROTOCOLS[protocol].square(photo, 16)
        found[protocol] = batch["y"][1].astype(int)
        assert np.abs(found[protocol] - expected).max() <= 1
    assert np.abs(found["i2sb"] - found["paper"]).max() > 1
    np.testing.assert_array_equal(found["clean-fid"], found["paper"])


@pytest.mark.parametrize("case", ["one picture", "gray"])
def test_pictures_of_which_nothing_can_be_said_are_named(
    checkpoint: pathlib.Path, pictures: pathlib.Path, tmp_path: pathlib.Path, case: str
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    for name in ("05.png", "06.png"):
        Image.open(pictures / name).convert("L").save(folder / name)
    if case == "one picture":
        (folder / "06.png").unlink()
    config = _config(checkpoint, folder)
    with pytest.raises(MetricError, match=r"05\.png"):
        of_run.evaluate(config, str(_workdir(tmp_path, checkpoint)))


@pytest.mark.slow
def test_stopped_and_killed_it_ends_with_the_same_table(
    start: Callable[..., Process],
    checkpoint: pathlib.Path,
    pictures: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    args = (
        *("--mode=evaluate", "--workdir=run", "--config.sample.num_samples=2"),
        *("--config.eval.batch_size=4", "--config.sample.num_steps=4"),
        *(f"--config.data.eval_folder={pictures}", "--config.mix.jpeg=0"),
        "--config.mix.colorize=0",
    )
    for name in ("stopped", "undisturbed"):
        _workdir(tmp_path / name, checkpoint)
    process = start(*args, folder=tmp_path / "stopped")
    process.wait_for("pictures restored", timeout=PATIENCE)
    process.signal(signal.SIGTERM)
    stopped = process.finish(timeout=PATIENCE)
    assert stopped.code == 75, stopped.output
    made = _restored(tmp_path / "stopped")
    assert made

    process = start(*args, folder=tmp_path / "stopped")
    process.wait_for("pictures restored", count=2, timeout=PATIENCE)
    process.signal(signal.SIGKILL)
    process.finish(timeout=PATIENCE)
    assert made.keys() < _restored(tmp_path / "stopped").keys()
    for name in ("stopped", "undisturbed"):
        run = start(*args, folder=tmp_path / name).finish(timeout=PATIENCE)
        assert run.code == 0, run.output
    ours, theirs = (_restored(tmp_path / n) for n in ("stopped", "undisturbed"))
    assert ours.keys() == theirs.keys()
    assert all(ours[name][1] == theirs[name][1] for name in ours)
    assert all(ours[name][0] == time for name, (time, _) in made.items())
    tables = [
        (tmp_path / name / "run/evaluation/step_0000000/table.json").read_bytes()
        for name in ("stopped", "undisturbed")
    ]
    assert tables[0] == tables[1]


def _restored(folder: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    """Returns when each restored picture was written, and its bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("sample_*/*.png")
    }


def test_the_papers_rows_are_shown_for_its_own_protocol_alone() -> None:
    degradation = {"inpaint_mask": "center", "uncrop_side": "right", "jpeg_quality": 5}
    same: dict[str, Any] = {
        "protocol": "ctest10k",
        "pictures": 10_000,
        "size": 256,
        "reference_pictures": 50_000,
    }
    found, why = paper.find("jpeg", degradation, **same)
    assert found and not why
    assert found.rows["Palette"] == {"FID": 8.3, "IS": 133.6, "CA": 64.2, "PD": 95.5}
    for change, says in (
        ({"protocol": ""}, "ctest10k"),
        ({"pictures": 200}, "10,000"),
        ({"size": 128}, "256"),
    ):
        found, why = paper.find("jpeg", degradation, **same | change)
        assert found is None and says in why
    found, why = paper.find("jpeg", degradation | {"jpeg_quality": 7}, **same)
    assert found is None and "jpeg_quality=7" in why
    # Of another reference its FID would mislead; the other figures hold.
    found, _ = paper.find("colorize", degradation, **same | {"reference_pictures": 9})
    assert found and "FID" not in found.rows["Palette"]
    assert found.rows["Palette"]["IS"] == 212.9 and "left out" in found.note


def test_the_papers_rows_of_shares_and_of_5000_pictures() -> None:
    share = {"inpaint_mask": "free_form_20_30"}
    same: dict[str, Any] = {"pictures": 10_000, "size": 256}
    found, _ = paper.find(
        "inpaint", share, protocol="ctest10k", **same, reference_pictures=50_000
    )
    assert found and "official file of masks" in found.note
    assert found.rows["Palette"] == {"FID": 5.2, "IS": 205.5, "CA": 72.3, "PD": 27.6}
    found, _ = paper.find(
        "colorize",
        {},
        protocol="val5k",
        pictures=5000,
        size=256,
        reference_pictures=5000,
    )
    assert found and "14.68" in found.note and found.source == "Table 1"
    assert found.rows["ColTran"] == {"FID-5K": 19.37}
    assert found.rows["Palette"]["FID-5K"] == 15.78


def test_names_of_results_are_never_the_same() -> None:
    names = ["a.jpg", "a.png", "b/1.2", "b/c.d.JPEG", "a"]
    stems = restored.file_names(names)
    assert set(stems) == set(names) and len(set(stems.values())) == len(names)
    assert stems["b/c.d.JPEG"] == "b/c.d" and stems["b/1.2"] == "b/1.2"


def test_a_curve_goes_through_its_points() -> None:
    line = plots.Line("model", [(0, 1.0), (10, 10.0), (20, 100.0), (30, float("nan"))])
    svg = plots.chart("loss", [line], x="steps", log_y=True)
    paths = re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="fill: none', svg)
    places = np.array(re.findall(r"[ML] (\S+) (\S+)", paths[-1]), float)
    # Equal factors are equal heights, and what is larger is higher on the page.
    steps = np.diff(places, axis=0)
    np.testing.assert_allclose(steps[0], steps[1], atol=0.15)
    assert steps[0, 0] > 0 > steps[0, 1]


def test_the_losses_of_a_run_are_read_back(tmp_path: pathlib.Path) -> None:
    from clu import metric_writers

    writer = metric_writers.SummaryWriter(str(tmp_path))
    for step in (1, 2, 3):
        writer.write_scalars(step, {"loss": 1 / step, "loss_at_level/9": 2.0 * step})
    writer.flush()
    writer.close()
    found = history.losses(epath.Path(tmp_path))
    assert found["loss"] == [(s, pytest.approx(1 / s)) for s in (1, 2, 3)]
    assert found["loss_at_level/9"] == [(1, 2.0), (2, 4.0), (3, 6.0)]
    assert history.losses(epath.Path(tmp_path / "nothing")) == {}
