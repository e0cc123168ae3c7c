"""Prints the growth of cost with batch, cores, folder, picture and evaluation.

    python -m benchmarks.growth

Each row runs in its own process, to measure its memory. Needs TensorFlow to read the
folders. The folders have many names of a few random pictures (hard links). The program
also writes charts, `growth.html`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks import report, sizes, train_step
from palette_jax import atomic, parallel
from palette_jax.config import flags
from palette_jax.evaluation import plots
from palette_jax.interop.safetensors_file import export_safetensors

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PICTURES = 64  # Files that all names of a folder are links to.
_SIZE = {"width": 320, "height": 240}
_CLI = "import sys; from palette_jax.cli import main; sys.exit(main())"


class Kind(NamedTuple):
    """A kind of work: its title, its unit, and the sizes."""

    title: str
    unit: str
    counts: tuple[int, ...]


KINDS = {
    "steps": Kind("training steps of `tiny`", "batch", (2, 8, 32)),
    "cores": Kind("data pipeline, pictures a second", "cores", (1, 2)),
    "folder": Kind("first batch of a folder", "names", (1000, 10_000, 100_000)),
    "shrunk": Kind("colorizing, shrunk", "kilopixels", (60, 1000, 6000, 24_000)),
    "tiles": Kind("cleaning a JPEG, by tiles", "kilopixels", (60, 250, 1000)),
    "evaluate": Kind("judging two folders", "pictures", (16, 128, 1024)),
}


def draw_picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Returns smooth colours with details; its JPEG is as large as a photograph's."""
    image = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def make_folder(folder: pathlib.Path, count: int, *, width: int, height: int) -> None:
    """Fills a folder with names; every 64th is a file, the others are links to them."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    files = min(count, _PICTURES)
    for index in range(files):
        path = folder / f"picture_{index:06}.jpg"
        draw_picture(rng, width, height).save(path, quality=90)
    for index in range(files, count):
        source = folder / f"picture_{index % files:06}.jpg"
        os.link(source, folder / f"picture_{index:06}.jpg")


def write_weights(path: pathlib.Path) -> None:
    """Writes untrained weights of a very small network that cleans JPEGs."""
    config = flags.load("jpeg:tiny")
    config.data.image_size = 64
    config.model.base_features = 8
    config.model.attention = "none"
    params = sizes.draw_params(config, parallel.make_mesh())
    export_safetensors(params, path, config=config.to_dict())


def load_batches(folder: str, num_batches: int) -> dict[str, float]:
    """Returns the times of the first batch and of further batches of a folder."""
    from palette_jax.data import pipeline, sources, tasks

    imported = time.perf_counter()
    train, _ = sources.hold_out(sources.folder(folder), 32)
    batches = pipeline.train_batches(
        [(train, 1.0)], tasks.inpaint, image_size=64, batch_size=32, seed=0
    )
    next(batches)
    first, cpu = time.perf_counter(), time.process_time()
    for _ in range(num_batches):
        next(batches)
    pictures = 32 * num_batches
    return {
        "seconds": first - imported,
        "rate": pictures / (time.perf_counter() - first),
        "cpu_ms": 1e3 * (time.process_time() - cpu) / pictures,
    }


def take_steps(batch_size: int) -> dict[str, float]:
    """Returns the time of a training step of `tiny`."""
    sizes.use_all_cores([sizes.get_config("tiny", batch_size=batch_size)])
    parallel.cache_compilations()
    row: Any = train_step.measure("tiny", batch_size=batch_size, dtype=None, count=3)
    return {
        "seconds": row["ms a step"] / 1e3,
        "rate": row["images/s"],
        "cpu_ms": row["CPU-ms a step"] / batch_size,
    }


def run_child(command: list[str], folder: str) -> tuple[float, float, float, str]:
    """Runs a process; returns its seconds, CPU-seconds, peak MiB and output."""
    start = time.perf_counter()
    output = pathlib.Path(folder) / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=file, stderr=file
        )
        _, status, usage = os.wait4(process.pid, 0)
    output_text = output.read_text()
    if status:
        raise SystemExit(f"expected {command} to work, got\n{output_text[-2000:]}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - start, cpu_seconds, usage.ru_maxrss / unit, output_text


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}


def measure(name: str, count: int, folder: str) -> report.Row:
    """Makes the input of a row, and measures it in its own process."""
    here, rng = pathlib.Path(folder), np.random.default_rng(0)
    command = [sys.executable, "-m", "benchmarks.growth"]
    if name == "steps":
        command += [f"--steps={count}"]
    elif name in ("cores", "folder"):
        make_folder(here / "photos", 1000 if name == "cores" else count, **_SIZE)
        command += [f"--folder={here / 'photos'}"]
        command += [f"--cores={count}"] if name == "cores" else []
    elif name == "evaluate":
        for side in ("results", "originals"):
            make_folder(here / side, count, **_SIZE)
        command = [sys.executable, "-c", _CLI, "evaluate", "results"]
        command += ["--reference=originals"]
    else:
        width = round(np.sqrt(count * 1000 * 4 / 3) / 4) * 4
        draw_picture(rng, width, round(width * 0.75)).save(here / "photo.jpg")
        command = [sys.executable, "-c", _CLI, "restore", "photo.jpg", "--out=out.png"]
        command += ["--num-steps=1", "--sampler=ddim"]
        if name == "tiles":
            write_weights(here / "weights.safetensors")
            command += ["--task=jpeg", "--checkpoint=weights.safetensors"]
        else:
            command += ["--task=colorize"]
    seconds, cpu_seconds, memory, output_text = run_child(command, folder)
    found = {
        "seconds": seconds,
        "rate": count / seconds,
        "cpu_ms": 1e3 * cpu_seconds / count,
    }
    if "benchmarks.growth" in command:
        found = json.loads(output_text.strip().splitlines()[-1])
    return {
        "what": KINDS[name].title,
        "of": KINDS[name].unit,
        "work": count,
        "s": found["seconds"],
        "a second": found["rate"],
        "CPU-ms each": found["cpu_ms"],
        "CPU-s of the process": cpu_seconds,
        "peak MiB": memory,
    }


def write_charts(path: pathlib.Path, rows: list[report.Row]) -> None:
    """Writes a page with the seconds and the memory of each kind."""
    charts = []
    for kind in KINDS.values():
        for column in ("s", "peak MiB"):
            points: Any = [
                (row["work"], row[column]) for row in rows if row["what"] == kind.title
            ]
            title = f"{kind.title}: {column}"
            charts.append(plots.chart(title, [plots.Line(column, points)], x=kind.unit))
    head = '<!doctype html><meta charset="utf-8"><title>Growth</title>'
    atomic.write_text(path, head + "".join(charts))


def main() -> None:
    """Prints a row for each size of each kind of work."""
    parser = report.make_parser(__doc__, "growth")
    parser.add_argument("--only", choices=KINDS, nargs="+", default=list(KINDS))
    # Of the processes that it starts.
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    if args.steps or args.folder:
        found = take_steps(args.steps) if args.steps else load_batches(args.folder, 20)
        return print(json.dumps(found), flush=True)
    rows: list[report.Row] = []
    for name in args.only:
        for count in KINDS[name].counts:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(name, count, folder))
            report.show(rows[-1:])
    report.finish(args.json, rows)
    charts = pathlib.Path(args.json).with_suffix(".html")
    write_charts(charts, rows)
    return print(f"and its charts to {charts}")


if __name__ == "__main__":
    main()
