"""Installs the project for other Pythons and versions, and tries each installation.

    python tests/installs.py          # minutes: as .ci/run does
    python tests/installs.py --all    # every Python, all quick tests of four folders

For the newest Python that is supported and found, or each with --all, beside the one
that runs this program: the versions of requirements.txt. For the oldest: the lowest
versions that setup.py allows. In each installation tests of diffusion, models, training
and restoration run, and twenty steps of training. A Python that is not found is named.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
FOLDERS = ("tests/diffusion", "tests/models", "tests/training", "tests/restoration")
# Of each folder what meets the most of JAX, Flax, orbax and Pillow in the least time.
FILES = (
    "tests/diffusion/test_schedules.py",
    "tests/diffusion/test_objective.py",
    "tests/models/test_layers.py",
    "tests/models/test_blocks.py",
    "tests/training/test_state.py",
    "tests/training/test_optimizer.py",
    "tests/training/test_checkpoints.py",
    "tests/pictures/test_masks.py",
    "tests/restoration/test_tasks.py",
)
LOCK = ("-r", str(ROOT / "requirements.txt"))
LOWEST = ("--resolution=lowest-direct", f"{ROOT}[train,dev]")
TRAIN = (
    "--config=configs/uncrop.py:tiny",
    "--config.model.feature_multipliers=1,2",  # Compiles in half of the time.
    "--config.model.num_res_blocks=1",
    "--config.data.image_size=16",
    "--config.data.num_eval=8",
    "--config.eval.batch_size=8",
    "--config.train.num_steps=20",
    "--config.train.log_every=10",
    "--config.train.num_previews=1",
    "--config.sample.num_steps=2",
)


def main() -> int:
    """Returns 0 if every installation works."""
    tries_all = "--all" in sys.argv[1:]
    tests = FOLDERS if tries_all else FILES
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = {version: _find(version) for version in PYTHONS}
    for version, python in found.items():
        if python is None:
            print(f"Python {version} was not found; nothing is known of it")
    there = [(version, python) for version, python in found.items() if python]
    others = [(*each, LOCK) for each in there if each[0] != mine]
    lowest = [(*each, LOWEST) for each in there[:1]]
    failed = 0
    for version, python, what in (others if tries_all else others[-1:]) + lowest:
        name = f"Python {version}, {'the lock' if what is LOCK else 'lowest versions'}"
        began = time.monotonic()
        problem = _try(python, what, tests)
        print(f"{name}: {problem or 'works'}, {time.monotonic() - began:.0f} s")
        sys.stdout.flush()
        failed += problem is not None
    return int(failed > 0)


def _find(version: str) -> str | None:
    """Returns a Python of a version, from the PATH or from pyenv."""
    candidates = [shutil.which(f"python{version}")]
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    candidates += map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python3")))
    for candidate in filter(None, candidates):
        probe = "import sys, venv, ensurepip; print(*sys.version_info[:2], sep='.')"
        done = subprocess.run([candidate, "-c", probe], capture_output=True, text=True)
        # pyenv's own python3.12 is a script that fails where no 3.12 is chosen.
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def _try(python: str, what: tuple[str, ...], tests: tuple[str, ...]) -> str | None:
    """Returns what fails in an installation, None if nothing does."""
    with tempfile.TemporaryDirectory() as folder:
        inside = f"{folder}/venv/bin/python"
        uv = [sys.executable, "-m", "uv", "pip", "install", f"--python={inside}"]
        commands = {
            "venv": [python, "-m", "venv", "--without-pip", f"{folder}/venv"],
            "installation": [*uv, *what],
            "the package": [*uv, "--no-deps", str(ROOT)],
            "tests": [inside, "-m", "pytest", "-q", "-m", "not slow", *tests],
            "training": [inside, "main.py", f"--workdir={folder}/run", *TRAIN],
        }
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        for name, command in commands.items():
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True
            )
            if done.returncode != 0:
                print(done.stdout[-3000:], done.stderr[-3000:], sep="\n")
                return f"{name} failed"
    return None


if __name__ == "__main__":
    sys.exit(main())
