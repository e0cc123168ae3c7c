"""The notebook runs from its first cell to its last, in an empty folder."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _script() -> str:
    """Returns the code of the notebook as a Python program.

    Commands of the shell are run as a notebook runs them; a last expression is shown.
    """
    notebook = json.loads((ROOT / "docs/quickstart.ipynb").read_text())
    lines = ["import subprocess", "def show(thing):"]
    lines += ["    drawn = getattr(thing, '_repr_png_', lambda: None)()"]
    lines += ["    print('picture of', len(drawn), 'bytes') if drawn else print(thing)"]
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code" or "install" in cell["metadata"].get("tags", ()):
            continue
        source = "".join(cell["source"]).splitlines()
        if source[0].startswith("!"):
            command = "\n".join(source).removeprefix("!")
            lines.append(f"subprocess.run({command!r}, shell=True, check=True)")
            continue
        shown = source[-1].isidentifier() or source[-1].startswith("Image.open")
        lines += [*source[:-1], f"show({source[-1]})" if shown else source[-1]]
    return "\n".join(lines)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: pathlib.Path) -> None:
    bin_folder = pathlib.Path(sys.executable).parent
    done = subprocess.run(
        [sys.executable, "-c", _script()],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("picture of") == 2, done.stdout
    assert (tmp_path / "colorized.png").exists()
    assert "step 60/60" in done.stdout + done.stderr
    assert '"rows"' in done.stdout or "PSNR" in done.stdout
