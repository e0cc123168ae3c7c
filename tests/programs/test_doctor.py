"""`palette-jax doctor`, as a user runs it."""

import os
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from palette_jax.config import build_restorer
from palette_jax.installation import device_nodes
from palette_jax.interop.safetensors_file import export_safetensors
from tests.programs.test_restore import WITHOUT_TENSORFLOW
from tests.programs.untrained import command, save_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """A run with the checkpoints of steps 0 and 5."""
    folder = save_run(tmp_path_factory.mktemp("run"))
    shutil.copytree(folder / "checkpoints" / "0", folder / "checkpoints" / "5")
    return folder


@pytest.fixture
def doctor(monkeypatch, capsys):
    """`doctor(*flags)` runs the command; returns its exit status and what it said."""

    def doctor(*flags: object) -> tuple[int, str]:
        code = command(monkeypatch, "doctor", *flags)
        return code, capsys.readouterr().out

    return doctor


def test_a_sound_machine_is_said_to_be_where_tensorflow_is_missing(run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, "doctor", f"--checkpoint={run}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for title in ("versions", "devices", "memory and disk", "data", "checkpoint"):
        assert title in lines
    assert "colorize, inpaint, uncrop, jpeg at 8 x 8" in done.stdout
    assert done.stdout.count("all files are as they were written") == 2
    assert lines[-1] == "all is well"


def test_a_flipped_bit_is_found_and_named(run, tmp_path, doctor) -> None:
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged)
    step = damaged / "checkpoints" / "5"
    largest = max(step.rglob("d/*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    code, said = doctor(f"--checkpoint={damaged}")
    assert code == 1
    assert str(largest.relative_to(step)) in said
    assert f"fix: move {step} away; commands use the newest sound one, step 0" in said
    assert "step 0: all files are as they were written" in said


def test_what_is_no_run_is_said_with_what_to_do(doctor, tmp_path) -> None:
    code, said = doctor(f"--checkpoint={tmp_path}")
    assert code == 1 and "expected checkpoints in" in said
    assert "fix: give the folder of a run" in said
    code, said = doctor(f"--checkpoint={tmp_path / 'none.safetensors'}")
    assert code == 1 and "got no such file" in said


def test_weights_of_a_file_are_looked_through(run, doctor, tmp_path) -> None:
    config, params, _ = build_restorer.load_weights(run)
    for name, broken in (("good", False), ("nan", True)):
        if broken:
            params["conv_in"]["bias"] = params["conv_in"]["bias"].at[0].set(jnp.nan)
        path = tmp_path / f"{name}.safetensors"
        export_safetensors(params, path, config=config.to_dict())
        code, said = doctor(f"--checkpoint={path}")
        assert code == broken
        assert ("not finite" if broken else "all numbers finite") in said


def test_a_folder_of_pictures_is_looked_into(doctor, tmp_path) -> None:
    code, said = doctor(f"--data={tmp_path}")
    assert code == 1 and "no pictures in" in said
    for i in range(3):
        pixels = np.full((20 + i, 50, 3), i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 not all of it")
    code, said = doctor(f"--data={tmp_path}")
    assert code == 0
    assert "of 4, 3 are pictures, shorter sides from 20 to 22" in said
    assert "cut.jpg: expected" in said and "training skips and counts them" in said


def test_device_nodes_that_the_user_may_not_open_are_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vfio").mkdir()
    for name in ("accel0", "vfio/0", "vfio/vfio", "null"):
        (tmp_path / name).touch()
    assert not list(device_nodes(tmp_path))
    # Root may open what nobody may; the answer of the system stands in.
    may = {tmp_path / "vfio/vfio"}
    monkeypatch.setattr("os.access", lambda path, mode: pathlib.Path(path) in may)
    (found,) = device_nodes(tmp_path)
    assert "accel0" in found.what and "vfio/0" in found.what
    assert "null" not in found.what and "vfio/vfio" not in found.what
