"""The table of few steps: what its numbers obey, and the program as a user runs it."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import few_steps
from palette_jax.config.build_restorer import load_weights
from palette_jax.config.values import from_dict
from palette_jax.errors import UserError
from tests.programs.untrained import save_run

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> pathlib.Path:
    return save_run(tmp_path_factory.mktemp("run"))


def _batches(count: int) -> list[few_steps.Batch]:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (2, 4, 8, 8, 3), np.uint8)
    hole = np.zeros((4, 8, 8, 1), np.uint8)
    hole[1:, :, 4:] = 1
    batch = {"x": x, "y": y, "hole": hole, "id": np.arange(4, dtype=np.uint32)}
    return [batch | {"valid": np.arange(4) < count}]


def test_numbers_of_a_row_obey_their_laws(checkpoint: pathlib.Path) -> None:
    config, params, _ = load_weights(checkpoint)
    config = from_dict(config.to_dict())
    config.sample.num_steps = 2
    config.sample.num_samples = 3
    seen: list[np.ndarray] = []

    def fid(drawn: np.ndarray) -> float:
        seen.append(drawn)
        return 1.5

    batches = _batches(3)
    row, _ = few_steps.measure(config, params, batches, fid=fid)
    # The mean is nearer to anything than what it is the mean of.
    assert row["psnr_of_mean"] > row["psnr_of_one"] > 0 and row["deviation"] > 0
    assert row["seconds_per_picture"] > 0 and row["fid_768"] == 1.5
    (drawn,) = seen
    assert drawn.shape == (9, 8, 8, 3)
    # What is not to be painted is not looked at.
    known = batches[0]["hole"][1] == 0
    np.testing.assert_array_equal(drawn[1] * known, batches[0]["x"][1] * known)
    original = batches[0]["y"][0].copy()
    batches[0]["y"] = np.where(batches[0]["hole"][1:2] > 0, batches[0]["y"], 0)
    batches[0]["y"][0] = original  # Has no hole: all of it was painted.
    config.sample.num_samples = 1
    alone, pictures = few_steps.measure(config, params, _batches(3))
    changed, same = few_steps.measure(config, params, batches, converged=pictures)
    assert alone["deviation"] == 0 and alone["psnr_of_mean"] == alone["psnr_of_one"]
    assert changed["psnr_of_one"] == alone["psnr_of_one"]
    assert changed["distance"] == 0 and np.array_equal(pictures, same)


def test_the_rows_are_few_steps_and_then_the_papers() -> None:
    rows = list(few_steps.ways([1000, 5, 20]))
    assert rows[-1][:3] == ("ddpm", "paper", 1000)
    assert [row.num_steps for row in rows[:-1]] == [5, 5, 20, 20]
    assert len(set(rows)) == len(rows)
    with pytest.raises(UserError, match=r"--steps.*5,x"):
        few_steps._parse(["5", "x"])


def test_without_its_weights_there_is_no_fid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys
) -> None:
    monkeypatch.setenv("PALETTE_JAX_WEIGHTS", str(tmp_path))
    assert few_steps.load_inception() is None
    said = capsys.readouterr().out
    assert said.startswith("no FID-768: ") and "PALETTE_JAX_WEIGHTS" in said


def test_the_distance_of_the_originals_to_themselves_is_0(
    monkeypatch: pytest.MonkeyPatch, reference_data: pathlib.Path
) -> None:
    monkeypatch.setenv("PALETTE_JAX_WEIGHTS", str(reference_data / "inception_2015"))
    network = few_steps.load_inception()
    assert network is not None
    batches = _batches(3)
    fid = few_steps.make_fid(network, batches)
    originals = batches[0]["y"][:3]
    assert 0 <= fid(originals) < 1e-3 * fid(255 - originals)


@pytest.mark.slow
def test_the_program_prints_and_keeps_a_table(tmp_path: pathlib.Path) -> None:
    run = save_run(tmp_path / "run")
    command = [
        *(sys.executable, "-m", "benchmarks.few_steps", f"--workdir={run}"),
        *("--steps=1", "--num_pictures=2", "--num_samples=2"),
        *("--config.task=uncrop", "--config.data.min_side=8"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept = json.loads((run / "few_steps" / "step_0000000_uncrop.json").read_text())
    assert kept["pictures"] == 2 and kept["samples"] == 2
    assert len(kept["rows"]) == 2
    for row in kept["rows"]:
        assert f"{row['psnr_of_mean']:>8.2f}{row['psnr_of_one']:>8.2f}" in done.stdout
    done = subprocess.run([*command, "--steps=none"], cwd=ROOT, capture_output=True)
    assert done.returncode == 1
    assert b"error: expected --steps" in done.stderr and b"Traceback" not in done.stderr
