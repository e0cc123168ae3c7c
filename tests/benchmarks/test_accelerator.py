"""A part that fails or hangs loses no other; the whole runs at the size of a toy."""

import argparse
import json
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import accelerator, accelerator_parts, convolutions, peers, sizes
from palette_jax.config import build

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Does in the place of measuring what the name of a part says.
_STAND_IN = """
import json, os, pathlib, sys, time
rows = pathlib.Path(sys.argv[1].removeprefix("--rows="))
print("again", flush=True)
for line in sys.stdin:
    name = json.loads(line)["part"]
    with rows.open("a") as file:
        file.write(json.dumps({"part": name, "row": {"pid": os.getpid()}}) + "\\n")
        if name == "torn":
            file.write('{"part": "torn", "ro')
    if name == "hangs":
        time.sleep(600)
    if name == "crashes":
        sys.exit("out of luck")
    print("done" if name == "fails" else "again", flush=True)
"""


def _part(name: str) -> accelerator.Part:
    return accelerator.Part(name.title(), name, 1.0, "toy")


def test_what_hangs_or_crashes_is_said_and_the_next_part_runs(
    tmp_path: pathlib.Path,
) -> None:
    program = tmp_path / "stand_in.py"
    program.write_text(_STAND_IN)
    worker = accelerator.Worker(tmp_path, "python")
    worker._command[1:3] = [str(program)]
    parts = [_part(n) for n in ("hangs", "good", "crashes", "fails", "torn", "last")]
    wrong = {}
    for place, part in enumerate(parts):
        assert worker.prepare(part, 60) is None
        problem = worker.run(part, 3 if part.name == "hangs" else 60)
        if problem:
            wrong[place] = problem
    worker.end()
    assert wrong[0] == "ended after its 3 s"
    assert wrong[2] == "exit status 1: out of luck"
    assert wrong.keys() == {0, 2}
    rows = {
        entry["part"]: entry["row"]["pid"]
        for entry in accelerator_parts.read(tmp_path / "rows.jsonl")
    }
    # Each had written its row. A process goes on unless its part went wrong.
    assert rows.keys() == {"hangs", "good", "crashes", "fails", "torn"}
    assert rows["good"] == rows["crashes"] != rows["hangs"]
    assert rows["torn"] != rows["fails"]
    accelerator.write_report(tmp_path, parts, wrong)
    report = (tmp_path / "report.md").read_text()
    assert "## Hangs" in report and "- Hangs: ended after its 3 s" in report
    assert report.count("| pid") == 5


def test_a_flag_of_xla_ends_with_its_part(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "stand_in.py"
    program.write_text(_STAND_IN.replace("os.getpid()", "os.environ['XLA_FLAGS']"))
    worker = accelerator.Worker(tmp_path, "python")
    worker._command[1:3] = [str(program)]
    flag = accelerator._FLAGS[0]
    for option in ("as it is", flag, "remat"):
        part = _part("option")._replace(option=option, is_fresh=option == flag)
        assert worker.prepare(part, 60) is worker.run(part, 60) is None
    worker.end()
    entries = accelerator_parts.read(tmp_path / "rows.jsonl")
    found = [flag in entry["row"]["pid"] for entry in entries]
    assert found == [False, True, False]


def test_the_kernels_gradient_by_products_is_that_of_the_convolution() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    picture = jax.random.normal(keys[0], (2, 6, 5, 3))
    kernel = jax.random.normal(keys[1], (3, 3, 3, 4))
    gradient = jax.random.normal(keys[2], (2, 6, 5, 4))
    _, pull = jax.vjp(lambda k: convolutions.by_xla(picture, k), kernel)
    found = convolutions.kernel_gradient_by_products(picture, gradient)
    np.testing.assert_allclose(found, pull(gradient)[0], rtol=1e-4, atol=1e-4)


def test_the_shapes_are_those_of_the_networks_kernels() -> None:
    config = sizes.get_config("medium")
    params = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
    kernels = {
        leaf.shape[2:] for leaf in jax.tree.leaves(params) if leaf.shape[:2] == (3, 3)
    }
    for shape in convolutions.shapes(config):
        assert (shape.features_in, shape.features_out) in kernels


# Answers as the process with PyTorch does, unless the batch is too large for it.
_PEER = """
import json, sys
for line in sys.stdin:
    command = json.loads(line)
    if command["do"] == "build":
        fits = command["spec"]["batch_size"] < 8
        answer = {"torch": "0"} if fits else {"error": "out of memory"}
    else:
        answer = {"seconds": [2.0] * command["count"]}
        answer["cpu_seconds"] = answer["seconds"]
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def arguments(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> argparse.Namespace:
    """Of a part, with a stand-in for the peer's process and its packages."""
    # Named, since with pytest's own path the packages may be there.
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name in ("torch", "diffusers"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "worker.py").write_text(_PEER)
    monkeypatch.setattr(peers, "_WORKER", tmp_path / "worker.py")
    return argparse.Namespace(
        size="toy", dtype="float32", python=sys.executable, rows=tmp_path / "rows"
    )


def test_a_peer_that_is_not_there_is_said(
    arguments: argparse.Namespace, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    (row,) = accelerator_parts.beside_diffusers(arguments)
    assert "not here" in row[accelerator_parts.LEFT_OUT]


@pytest.mark.slow
def test_the_peer_is_compared_at_the_largest_batch_that_fits_both(
    arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator_parts, "_best_batch", lambda args: 8)
    first, *rest = accelerator_parts.beside_diffusers(arguments)
    assert "out of memory" in first[accelerator_parts.LEFT_OUT]
    alone, both = rest[:2], rest[2:]
    assert [row["diffusers alone"] for row in alone] == ["train", "sample"]
    assert [row["step"] for row in both] == ["train", "sample"]
    assert all(row["batch"] == 4 and row["ratio"] > 0 for row in both)


def test_the_peer_is_measured_where_ours_does_not_compile(
    arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("too slow")

    monkeypatch.setattr(peers, "make_ours", fail)
    rows = list(accelerator_parts.beside_diffusers(arguments))
    assert [row["ms"] for row in rows if "diffusers alone" in row] == [2000.0] * 4
    assert "too slow" in rows[2][accelerator_parts.LEFT_OUT]


# Compiles the step, tells what the cache did not have, and is ended as by a limit.
_COMPILES = """
import os, signal
import jax
from benchmarks import train_step
from palette_jax import parallel

def count(event, **_):
    if event == "/jax/compilation_cache/cache_misses":
        print("miss", flush=True)

def end(row):
    print("compiled", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

jax.monitoring.register_event_listener(count)
parallel.cache_compilations()
train_step.measure("toy", batch_size=0, dtype=None, count=1, on_compiled=end)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_it_compiled(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    command = [sys.executable, "-c", _COMPILES]

    def compile_step() -> list[str]:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        return done.stdout.split()

    first, second = compile_step(), compile_step()
    assert first[0] == "miss" and first[-1] == "compiled"
    assert second == ["compiled"]


@pytest.mark.slow
def test_all_parts_run_at_the_size_of_a_toy(tmp_path: pathlib.Path) -> None:
    program = (
        "import runpy, sys\n"
        "sys.modules['tensorflow'] = None\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
    )
    command = [
        *(sys.executable, "-c", program, "benchmarks.accelerator"),
        *("--minutes=1.8", "--size=toy", f"--out={tmp_path}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "report.md").read_text()
    assert report in done.stdout and "exit status" not in report
    for part in accelerator.make_parts("toy"):
        assert f"## {part.title}" in report
    entries = accelerator_parts.read(tmp_path / "rows.jsonl")
    assert entries[0]["machine"]["jax"] == jax.__version__
    rows = [json.dumps(entry["row"]) for entry in entries if "row" in entry]
    assert any("TFLOP/s" in row for row in rows)
    assert any("compile s" in row and "share" not in row for row in rows)
