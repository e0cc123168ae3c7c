"""The benchmarks run, and say what they promise, at the size of a toy."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import machine, operations, peers, report, sizes

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def _run(module: str, *flags: str, folder: pathlib.Path) -> list[dict]:
    """Runs a benchmark as a user does, where TensorFlow is missing."""
    program = (
        "import runpy, sys\n"
        "sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
    )
    file = folder / "out.json"
    command = [sys.executable, "-c", program, f"benchmarks.{module}", *flags]
    done = subprocess.run(
        [*command, f"--json={file}"], cwd=_ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "| --" in done.stdout
    written = json.loads(file.read_text())
    assert written["machine"]["jax"] == jax.__version__
    return written["rows"]


@pytest.mark.slow
def test_train_step(tmp_path: pathlib.Path) -> None:
    (row,) = _run("train_step", "--size=toy", "--count=2", folder=tmp_path)
    assert row["images/s"] == pytest.approx(1e3 * row["batch"] / row["ms a step"])
    assert 0 < row["share"] < 1
    assert row["compile s"] > 0 and row["peak GiB"] > 0


@pytest.mark.slow
def test_sample(tmp_path: pathlib.Path) -> None:
    flags = ("--size=toy", "--count=2", "--samplers", "ddpm:4", "dpmpp_2m:2")
    rows = _run("sample", *flags, folder=tmp_path)
    assert [(row["sampler"], row["steps"]) for row in rows] == [
        ("ddpm", 4),
        ("dpmpp_2m", 2),
    ]
    assert all(0 < row["share"] < 1 for row in rows)


def test_attention_leaves_out_what_does_not_run_here(tmp_path: pathlib.Path) -> None:
    flags = ("--shapes", "4x2", "--batch_size=2", "--count=2")
    rows = _run("attention", *flags, folder=tmp_path)
    ran = [row["implementation"] for row in rows]
    assert ran == ["ours", "explicit", "jax.nn, xla"]
    assert (
        "jax.nn, cudnn, 4x2"
        in json.loads((tmp_path / "out.json").read_text())["left_out"]
    )


@pytest.mark.slow
def test_startup(tmp_path: pathlib.Path) -> None:
    rows = _run("startup", "--size=toy", "--only", "step", folder=tmp_path)
    assert [row["cache"] for row in rows] == ["empty", "warm"]
    assert all(row["s"] > 0 for row in rows)


# Answers as the process with PyTorch does: steps of a known length.
_STAND_IN = """
import json, sys, time
for line in sys.stdin:
    command = json.loads(line)
    if command["do"] == "build":
        slow = "compile" not in command["dtype"] and not command["compiled"]
        answer = {"torch": "0", "parameters": 1}
        if command["dtype"] == "bfloat16":
            answer = {"error": "not here"}
    else:
        cost = 2.0 if slow else 1.0
        answer = {"seconds": [cost] * command["count"]}
        answer["cpu_seconds"] = answer["seconds"]
    print(json.dumps(answer), flush=True)
"""


def test_peers_compares_with_the_fastest_variant_that_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(_STAND_IN)
    monkeypatch.setattr(peers, "_WORKER", worker)
    peer = peers.Peer(sys.executable)
    variants = ["float32", "float32+compile", "bfloat16"]
    spec = peers.describe_network(sizes.get_config("toy"))
    best, found = peers.pick_variant(peer, spec, "train", variants)
    assert best == "float32+compile"
    assert found[-1] == "bfloat16: not here"
    ours, theirs, ratios = peers.take_turns(
        lambda: np.zeros(1), lambda: peer.time("train", 1)[0], 3
    )
    peer.close()
    assert theirs.seconds == 1.0 and len(ratios) == 3
    assert ratios[1] == pytest.approx(1 / ours.seconds, rel=1e-6)


def test_the_peer_is_told_the_network_that_is_ours() -> None:
    config = sizes.get_config("medium")
    assert peers.describe_network(config) == {
        "image_size": 64,
        "widths": [64, 128, 192, 256],
        "attends": [False, True, True, True],
        "num_res_blocks": 2,
        "head_features": 64,
        "norm_groups": 32,
        "batch_size": 8,
    }


def test_the_operations_of_a_step_are_told_apart() -> None:
    seconds = operations.ours(sizes.get_config("toy"), count=1)
    assert set(seconds) <= set(operations.KINDS)
    needed = {*operations.KINDS} - {"other", "joins, resizing, copies"}
    assert all(seconds[kind] > 0 for kind in needed)


def test_the_rate_of_products_is_of_the_order_of_what_numpy_reaches() -> None:
    rate = machine.matrix_rate("float32", size=256, seconds=0.2)
    assert 1e8 < rate < 1e15


def test_tables_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    report.show([{"what": "a", "s": 0.123456}, {"what": "longer", "s": None}])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| a      | 0.1235 |"
    assert len({len(line) for line in lines if line}) == 1
