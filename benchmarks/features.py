"""Prints the cost of a picture's Inception features, here and in PyTorch, in one run.

python -m benchmarks.features --cores=2 --torch=OTHER/bin/python

OTHER is an environment with torch, torchvision and pytorch-fid, which this project does
not need; without --torch, only our own figures are printed. Both compute all features
up to 2048 of the same pictures with random weights, batch by batch in turns, so that
other processes slow both alike. Each line has the medians of the rounds: wall time and
CPU time.
"""

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Costs = tuple[float, float]
"""Seconds of wall time and of CPU time."""


def measure(function: Callable[[], object]) -> Costs:
    """Returns the cost of one call."""
    start, worked = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - worked


def draw_pictures(count: int) -> np.ndarray:
    """Returns pictures of 256 x 256."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 256, 256, 3), np.uint8)


def make_ours(batch_size: int) -> Callable[[], object]:
    """Returns a call of our network."""
    import jax

    from palette_jax import parallel
    from palette_jax.evaluation.metrics import inception
    from palette_jax.evaluation.metrics.extractor import Extractor

    parallel.use_cpu_cores([batch_size])
    network = inception.Inception()
    shapes = jax.eval_shape(
        network.init, jax.random.key(0), np.zeros((1, 299, 299, 3), np.float32)
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (
            rng.standard_normal(leaf.shape, np.float32)
            * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
            * (len(leaf.shape) > 1)
        ),
        shapes,
    )
    extract = Extractor(
        inception.prepare,
        network.apply,
        params,
        sha256="",
        outputs=(*inception.FEATURES, inception.LOGITS),
        batch_size=batch_size,
        mesh=parallel.make_mesh(),
    )
    pictures = draw_pictures(batch_size)
    print(f"here: {len(jax.devices())} x {jax.devices()[0].device_kind}")
    return lambda: extract(pictures)


def answer_with_theirs(batch_size: int) -> None:
    """Runs PyTorch's network for each line of the input, and prints its cost."""
    torch: Any = importlib.import_module("torch")
    torchvision: Any = importlib.import_module("torchvision")
    inception: Any = importlib.import_module("pytorch_fid.inception")
    inception.load_state_dict_from_url = lambda *_, **__: None
    torchvision.models.Inception3.load_state_dict = lambda *_: None
    network = inception.InceptionV3([0, 1, 2, 3]).eval()
    pictures = torch.from_numpy(draw_pictures(batch_size)).permute(0, 3, 1, 2)

    def run() -> None:
        network(pictures.contiguous() / 255)

    print(f"PyTorch {torch.__version__}: {torch.get_num_threads()} threads", flush=True)
    with torch.inference_mode():
        for _ in sys.stdin:
            print(*measure(run), flush=True)


class Theirs:
    """The process of PyTorch, which is idle between requests."""

    def __init__(self, python: str, batch_size: int):
        """Starts it."""
        command = [python, __file__, "--answer", f"--batch_size={batch_size}"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        print(self._line())

    def run(self) -> Costs:
        """Returns the cost of one batch in PyTorch."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        passed, worked = map(float, self._line().split())
        return passed, worked

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("expected an answer of the environment with PyTorch, got none")
        return line.strip()


def main() -> None:
    """Prints a line for each, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", help="Python of an environment with PyTorch")
    parser.add_argument("--cores", type=int, help="use so many; all, unless given")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.answer:
        return answer_with_theirs(args.batch_size)
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    run_ours = make_ours(args.batch_size)
    runs: dict[str, Callable[[], Costs]] = {"here": lambda: measure(run_ours)}
    if args.torch:
        runs["PyTorch"] = Theirs(args.torch, args.batch_size).run
    for run in runs.values():  # Compiles, and warms up.
        run()
    rounds = [{name: run() for name, run in runs.items()} for _ in range(args.rounds)]
    print(f"{'ms/picture':12}{'wall':>10}{'CPU':>10}")
    for name in runs:
        passed, worked = (
            1000
            * statistics.median(costs[name][i] for costs in rounds)
            / args.batch_size
            for i in (0, 1)
        )
        print(f"{name:12}{passed:10.1f}{worked:10.1f}")
    if args.torch:
        passed, worked = (
            statistics.median(c["here"][i] / c["PyTorch"][i] for c in rounds)
            for i in (0, 1)
        )
        print(f"{'ratio':12}{passed:10.2f}{worked:10.2f}")
    return None


if __name__ == "__main__":
    main()
