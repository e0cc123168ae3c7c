"""launch/slurm.sbatch on a real SLURM of one node, preempted on the way.

Skipped, with the reason, where SLURM is not installed; tests/cluster/slurm.sh installs
it, as `.ci/run --all` does.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

from tests import xla_flags
from tests.distributed.group import TINY
from tests.states import assert_same_bits, newest_state

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETUP = ROOT / "tests/cluster/slurm.sh"
STEPS = ("--config.train.num_steps=100", "--config.train.checkpoint_every=1000")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Runs SLURM as long as the tests of this file; returns their environment."""
    if os.geteuid() != 0:
        pytest.skip("expected to be root, as SLURM's daemons need, got another user")
    missing = [name for name in ("munged", "slurmctld", "slurmd") if not _has(name)]
    if missing:
        pytest.skip(
            f"expected SLURM, got no {', '.join(missing)}; run"
            " tests/cluster/slurm.sh install"
        )
    folder = tmp_path_factory.mktemp("slurm")
    # What it prints goes to a file: the daemons keep a pipe open.
    with (folder / "setup.log").open("w") as log:
        up = subprocess.run([SETUP, "start", folder], stdout=log, stderr=log)
    if up.returncode != 0:
        # No skip: what is installed and does not start would never be noticed.
        subprocess.run([SETUP, "stop", folder])
        pytest.fail(f"SLURM did not start: {(folder / 'setup.log').read_text()}")
    yield os.environ | {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PYTHON": sys.executable,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": xla_flags.fast_to_compile(num_devices=1),
    }
    subprocess.run([SETUP, "stop", folder])


def _has(program):
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is not None


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
            *STEPS,
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

    def wait_for(self, pattern: str, timeout: float = 900) -> None:
        """Waits until the job has printed a pattern."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.output):
            late = time.monotonic() > deadline
            over = self.field("JobState") in ("COMPLETED", "FAILED", "CANCELLED")
            assert not late and not over, f"no {pattern!r} in {self.output}"
            time.sleep(0.05)

    def finish(self, timeout: float = 900) -> None:
        """Waits for its end, which must be a good one; only SLURM restarts it."""
        deadline = time.monotonic() + timeout
        while (now := self.field("JobState")) != "COMPLETED":
            assert now not in ("FAILED", "CANCELLED", "TIMEOUT"), self.output
            assert time.monotonic() < deadline, f"{now}: {self.output}"
            time.sleep(0.5)


def test_a_preempted_job_resumes_by_itself_to_the_same_bits(slurm, tmp_path):
    job = Job(tmp_path / "job", slurm)
    job.wait_for(r"step 5/")
    assert "waiting for 2 hosts" in job.output
    job.control("requeue")
    # SLURM binds a task to its cores, which may change the order of a sum; so the other
    # run, which nothing happens to, is a job as well.
    undisturbed = Job(tmp_path / "undisturbed", slurm)
    job.wait_for(r"resuming from step [\s\S]*step \d+/")
    job.signal("USR1")  # As ahead of the time limit.
    job.finish()
    assert job.field("Restarts") == "2"
    assert job.output.count("saving and stopping") == 2 * 2  # Each task says it.
    undisturbed.finish()
    assert undisturbed.field("Restarts") == "0"
    got, expected = (
        newest_state(tmp_path / name / "run") for name in ("job", "undisturbed")
    )
    assert_same_bits(got, expected)
