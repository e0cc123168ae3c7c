"""Prints the seconds from the start of a process to its first step, by part.

python -m benchmarks.startup

Each command runs twice with its own compile cache: empty, then warm. `main.py` is ready
when its log has the line of step 1, which is written while step 2 runs; it needs
TensorFlow to read pictures. Without TensorFlow only the step alone is measured.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import report, sizes

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_IMPORTS = ("jax", "flax.linen", "optax", "orbax.checkpoint", "tensorflow")


def seconds_until(command: list[str], line: str, cache: str) -> tuple[float, float]:
    """Returns wall and CPU seconds until a command prints a line with a text."""
    before, start = os.times(), time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    seen = []
    for printed in process.stdout:
        seen.append(printed)
        if line in printed:
            break
    else:
        raise SystemExit(f"expected {line!r} from {command}, got\n{''.join(seen)}")
    seconds = time.perf_counter() - start
    process.kill()
    process.wait()
    after = os.times()
    cpu_seconds = sum(after[2:4]) - sum(before[2:4])
    return seconds, cpu_seconds


def take_first_step(size: str) -> None:
    """Runs one training step with random pictures, to measure the step alone."""
    from palette_jax import parallel

    parallel.cache_compilations()
    config = sizes.get_config(size)
    sizes.use_all_cores([config])
    import jax

    jax.block_until_ready(sizes.training_step(config).run())
    print("first step done", flush=True)


def measure(name: str, command: list[str], line: str) -> list[report.Row]:
    """Returns a row without compiled programs, and one with them."""
    rows: list[report.Row] = []
    with tempfile.TemporaryDirectory() as cache:
        for cached in ("empty", "warm"):
            with tempfile.TemporaryDirectory() as workdir:
                there = [word.replace("WORKDIR", workdir) for word in command]
                seconds, cpu_seconds = seconds_until(there, line, cache)
            rows.append(
                {"what": name, "cache": cached, "s": seconds, "CPU-s": cpu_seconds}
            )
            report.show(rows[-1:])
    return rows


def main() -> None:
    """Prints rows for the imports, the step alone and `main.py`."""
    parser = report.make_parser(__doc__, "startup")
    parser.add_argument("--size", choices=sizes.SIZES, default="tiny")
    parser.add_argument("--first_step", action="store_true", help="take it, and end")
    parser.add_argument("--only", choices=("imports", "step", "main"), nargs="+")
    args = parser.parse_args()
    if args.first_step:
        return take_first_step(args.size)
    only = args.only or ["imports", "step", "main"]
    has_tensorflow = importlib.util.find_spec("tensorflow") is not None
    rows: list[report.Row] = []
    for name in _IMPORTS if "imports" in only else ():
        if name != "tensorflow" or has_tensorflow:
            command = [
                sys.executable,
                "-c",
                f"import {name}; print('done', flush=True)",
            ]
            seconds, cpu_seconds = seconds_until(command, "done", "")
            rows.append(
                {
                    "what": f"import {name}",
                    "cache": "-",
                    "s": seconds,
                    "CPU-s": cpu_seconds,
                }
            )
    if "step" in only:
        command = [sys.executable, "-m", "benchmarks.startup", f"--size={args.size}"]
        rows += measure("the step alone", [*command, "--first_step"], "first step done")
    if "main" in only and has_tensorflow:
        command = [
            *(sys.executable, "main.py", "--config=configs/uncrop.py:tiny"),
            *("--workdir=WORKDIR", "--config.train.log_every=1"),
        ]
        rows += measure("main.py, configs/uncrop.py:tiny", command, "step 1/")
    report.finish(args.json, rows)


if __name__ == "__main__":
    main()
