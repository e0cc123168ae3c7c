"""Runs and data on gs://, by TensorFlow's, etils' and orbax' own clients."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests import fake_gcs
from tests.programs.conftest import TINY

ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("openssl") is None,
        reason="expected openssl, which makes a certificate for the store, got none",
    ),
]


def _run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_run_on_gs_goes_on_from_its_checkpoint(tmp_path: pathlib.Path) -> None:
    command = ("main.py", "--config=configs/uncrop.py:tiny", *TINY)
    command += ("--workdir=gs://bucket/run", "--config.train.num_steps")
    with fake_gcs.serve(tmp_path) as (store, environment):
        _run(environment, *command, "2")
        assert "bucket/run/checkpoints/2/commit_success.txt" in store.objects
        said = _run(environment, *command, "4")
        assert "resuming from step 2 in gs://bucket/run/checkpoints" in said
        assert "bucket/run/checkpoints/4/commit_success.txt" in store.objects
        assert "bucket/run/previews/step_0000004.png" in store.objects


# As a run reads: `palette_jax.programs.run` sets the size of a block.
_READ = """
import os
import sys
os.environ.setdefault("GCS_READ_CACHE_BLOCK_SIZE_MB", "1")
import numpy as np
from palette_jax.data import pipeline, tasks, tfds_source
source = tfds_source.tfds(
    "photos", "train", data_dir="gs://bucket/data", index_dir="gs://bucket/run/index"
)
batches = pipeline.train_batches(
    [(source, 1.0)], tasks.colorize, image_size=8, batch_size=4, seed=0, min_side=4
)
total = sum(int(next(batches)["y"].astype(int).sum()) for _ in range(4))
print("read", total, batches.broken)
"""


def test_records_on_gs_are_read_in_small_blocks_and_indexed_once(
    tmp_path: pathlib.Path,
) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")

    class Photos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "photos"

        def _info(self):
            image = tfds.features.Image(encoding_format="png")
            features = tfds.features.FeaturesDict({"image": image})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            draw = np.random.default_rng(0)
            for i in range(12):  # Of half a megabyte each, which no PNG makes smaller.
                yield i, {"image": draw.integers(0, 256, (400, 420, 3), np.uint8)}

    builder = Photos(data_dir=str(tmp_path / "data"), file_format="tfrecord")
    config = tfds.download.DownloadConfig(num_shards=1, try_download_gcs=False)
    builder.download_and_prepare(download_config=config)
    with fake_gcs.serve(tmp_path) as (store, environment):
        for path in (tmp_path / "data").rglob("*"):
            if path.is_file():
                store.put(f"bucket/{path.relative_to(tmp_path)}", path.read_bytes())
        first = _run(environment, "-c", _READ)
        assert [name for name in store.objects if "/run/index/" in name]
        store.reads.clear()
        store.failing = 3  # 503: the store is busy.
        again = _run(environment, "-c", _READ)
        assert store.failing == 0
        records = [size for name, size in store.reads if ".tfrecord" in name]
        assert 0 < max(records) <= 2**20
    (first,), (again,) = (re.findall(r"^read .*$", out, re.M) for out in (first, again))
    assert again == first and first.endswith("{}")  # No picture is broken.
