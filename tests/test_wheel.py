"""The installed package alone, in an empty folder, without the checkout."""

import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL = (
    "--config.model.base_features=8",
    "--config.model.feature_multipliers=1,",
    "--config.model.attention=none",
    "--config.model.attn_resolutions=16",
    "--config.model.norm_groups=4",
    "--config.data.image_size=16",
    "--config.data.num_eval=4",
    "--config.eval.batch_size=4",
    "--config.train.batch_size=4",
    "--config.train.num_steps=4",
    "--config.train.num_previews=1",
    "--config.sample.num_steps=2",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The files of the wheel, unpacked as pip does it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    build += ["--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _run(installed: pathlib.Path, folder: pathlib.Path, *args: str) -> str:
    # -P keeps the present folder off the path; the wheel comes before the checkout.
    command = [sys.executable, "-P", "-m", "palette_jax.cli", *args]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_wheel_trains_restores_and_evaluates_in_an_empty_folder(
    installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    args = ("train", "--config=uncrop:tiny", "--workdir=run", *SMALL)
    assert "the last checkpoint is step 4" in _run(installed, tmp_path, *args)
    photo = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    restore = ("restore", "photo.png", "--task=uncrop", "--side=right")
    _run(installed, tmp_path, *restore, "--checkpoint=run", "--quality-preset=fast")
    result = np.asarray(Image.open(tmp_path / "restored" / "photo.png"))
    np.testing.assert_array_equal(result[:, :24], photo)
    assert "PSNR of the mean" in _run(installed, tmp_path, "evaluate", "--workdir=run")
    assert "palette-jax 0." in _run(installed, tmp_path, "--version")
