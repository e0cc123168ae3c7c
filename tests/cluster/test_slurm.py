"""launch/slurm.sbatch on a real SLURM of one node, preempted on the way.

Skipped, with the reason, where SLURM cannot be installed; PALETTE_JAX_NEED_SLURM=1
makes that an error.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.distributed.group import TINY, state

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETUP = ROOT / "tests/cluster/slurm.sh"
NUM_STEPS = 150

pytestmark = pytest.mark.slow


def _skip(reason: str) -> None:
    if os.environ.get("PALETTE_JAX_NEED_SLURM") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Runs SLURM as long as the tests of this file; returns their environment."""
    if os.geteuid() != 0:
        _skip("SLURM's daemons need root")
    if shutil.which("slurmctld") is None or shutil.which("munged") is None:
        if shutil.which("apt-get") is None:
            _skip("no SLURM, and no apt-get to install it with")
        try:
            subprocess.run([SETUP, "install"], check=True, timeout=300)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            _skip(f"SLURM could not be installed: {error}")
    folder = tmp_path_factory.mktemp("slurm")
    # What it prints goes to a file: the daemons keep a pipe open.
    with (folder / "setup.log").open("w") as log:
        up = subprocess.run([SETUP, "start", folder], stdout=log, stderr=log)
    if up.returncode != 0:
        subprocess.run([SETUP, "stop", folder])
        _skip(f"SLURM did not start: {(folder / 'setup.log').read_text()}")
    yield os.environ | {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PYTHON": sys.executable,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1"
        " --xla_backend_optimization_level=0",
    }
    subprocess.run([SETUP, "stop", folder])


class Job:
    """A run as a job of two tasks; `folder` gets the log, and the run in `run`."""

    def __init__(self, folder: pathlib.Path, env: dict[str, str], *options: str):
        """Submits it."""
        self._env = env
        self._log = folder / "job.log"
        folder.mkdir()
        command = [
            *("sbatch", "--parsable", "--ntasks-per-node=2", "--gres=none"),
            *("--cpus-per-task=1", "--oversubscribe", f"--output={self._log}"),
            *(f"--chdir={ROOT}", *options, str(ROOT / "launch/slurm.sbatch")),
            *(*TINY, f"--workdir={folder / 'run'}"),
            f"--config.train.num_steps={NUM_STEPS}",
            "--config.train.checkpoint_every=1000",
        ]
        self.number = self._run(*command).strip()

    def _run(self, *command: str) -> str:
        return subprocess.run(
            command, env=self._env, check=True, capture_output=True, text=True
        ).stdout

    def control(self, verb: str) -> None:
        """Tells SLURM to do something to the job."""
        self._run("scontrol", verb, self.number)

    def signal(self, name: str) -> None:
        """Sends its tasks a signal, as SLURM does ahead of the time limit."""
        self._run("scancel", f"--signal={name}", self.number)

    @property
    def output(self) -> str:
        """What all starts of the job have printed."""
        return self._log.read_text() if self._log.exists() else ""

    def field(self, name: str) -> str:
        """Returns what SLURM knows of the job."""
        shown = self._run("scontrol", "show", "job", self.number)
        return re.search(rf"\b{name}=(\S+)", shown)[1]

    def wait_for(self, pattern: str, timeout: float = 240) -> None:
        """Waits until the job has printed a pattern."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.output):
            late = time.monotonic() > deadline
            over = self.field("JobState") in ("COMPLETED", "FAILED", "CANCELLED")
            assert not late and not over, f"no {pattern!r} in {self.output}"
            time.sleep(0.05)

    def finish(self, timeout: float = 400) -> None:
        """Waits for its end, which must be a good one; only SLURM restarts it."""
        deadline = time.monotonic() + timeout
        while (now := self.field("JobState")) != "COMPLETED":
            assert now not in ("FAILED", "CANCELLED", "TIMEOUT"), self.output
            assert time.monotonic() < deadline, f"{now}: {self.output}"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def undisturbed(slurm, tmp_path_factory):
    """Returns the last state of a job that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "job"
    job = Job(folder, slurm)
    job.finish()
    assert "all 2 hosts are here" in job.output
    assert job.field("Restarts") == "0"
    return state(folder)


@pytest.mark.parametrize("how", ["requeue", "time limit"])
def test_a_preempted_job_resumes_to_the_same_bits(slurm, undisturbed, tmp_path, how):
    job = Job(tmp_path / "job", slurm)
    job.wait_for(r"step 5/")
    if how == "requeue":
        job.control("requeue")
    else:
        job.signal("USR1")
    job.finish()
    assert job.field("Restarts") == "1"
    assert "saving and stopping" in job.output
    jax.tree.map(np.testing.assert_array_equal, state(tmp_path / "job"), undisturbed)
