"""Holds the installation: setup.py, its lock, and the tools that judge the code."""

import pathlib
import re
import runpy
import subprocess
import sys

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def declared() -> dict:
    """What setup.py hands to setuptools."""
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
        runpy.run_path("setup.py")
    return given


def test_the_lock_holds_a_version_that_fits_for_every_requirement(declared) -> None:
    extras = declared["extras_require"]
    named = [*declared["install_requires"], *extras["dev"], *extras["eval"]]
    lock = _lock()
    for python in ("3.11", "3.12", "3.13"):
        # A full set of what markers ask for, on the machine that most people have.
        machine = {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
        }
        for requirement in map(Requirement, named):
            if requirement.marker and not requirement.marker.evaluate(machine):
                continue
            pins = [
                str(pin.specifier).removeprefix("==")
                for pin in lock
                if canonicalize_name(pin.name) == canonicalize_name(requirement.name)
                and (not pin.marker or pin.marker.evaluate(machine))
            ]
            assert len(pins) == 1, f"{requirement.name} on Python {python}: {pins}"
            assert requirement.specifier.contains(pins[0]), (requirement, pins)


def test_every_requirement_has_a_lower_and_an_upper_bound(declared) -> None:
    listed = [declared["install_requires"], *declared["extras_require"].values()]
    for requirement in (Requirement(line) for lines in listed for line in lines):
        operators = {bound.operator for bound in requirement.specifier}
        assert operators == {">=", "<"}, f"expected a range, got {requirement}"


def test_the_lock_names_no_place_to_download_from() -> None:
    text = (ROOT / "requirements.txt").read_text("utf-8")
    assert not re.search(r"://|^\s*-", text, re.MULTILINE)


def test_every_folder_with_code_is_installed(declared) -> None:
    files = ROOT.glob("palette_jax/**/*.py")
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in files}
    missing = sorted(folders - set(declared["packages"]))
    assert not missing, f"expected an __init__.py in {missing}, got none"


def test_the_type_checker_bites(tmp_path: pathlib.Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import flax.linen as nn\n"
        "import jax.numpy as jnp\n\n\n"
        "def half(n: int) -> str:\n"
        "    return n // 2\n\n\n"
        "nn.Dense(featuers=3)\n"
        "jnp.zeross(3)\n"
        'half("4")\n'
    )
    command = [sys.executable, "-m", "pyrefly", "check", "--output-format=min-text"]
    command += [f"--config={ROOT / 'pyproject.toml'}"]
    command += [f"--python-interpreter-path={sys.executable}", str(wrong)]
    done = subprocess.run(command, capture_output=True, text=True)
    for kind in (
        "bad-return",
        "unexpected-keyword",
        "missing-attribute",
        "bad-argument-type",
    ):
        assert f"[{kind}]" in done.stdout, done.stdout + done.stderr


def _lock() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    lines = [line.partition("#")[0].strip() for line in lines]
    return [Requirement(line) for line in lines if line]
