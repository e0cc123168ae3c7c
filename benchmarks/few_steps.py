"""Prints sampler x schedule x steps x quality x seconds for a trained model.

    python -m benchmarks.few_steps --workdir=runs/uncrop
    python -m benchmarks.few_steps --workdir=runs/uncrop --steps=4,8,1000 \
        --students runs/uncrop4 runs/uncrop8 --num_pictures=64 \
        --config.data.eval_folder=PHOTOS

The rows are DDIM with even steps, the best solver with its own spacing, and students of
the run; above 100 steps only the paper's sampling, because the others have converged.
Every row restores the same pictures with the same noise. Each row is stored at once as
JSON in few_steps/ of the run. A model of several tasks has a table for each;
`--config.task=uncrop` selects one.

PSNR is measured over the hole. It prefers a blurred guess to a sharp one; for one
sample it falls as pictures get sharper, so look at the mean and at the deviation of the
samples. The distance is the root mean square difference, of 255, to the solver's own
result with many steps. FID-768, the Fréchet distance to the originals, needs the
weights of Inception in the folder PALETTE_JAX_WEIGHTS.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from etils import epath
from jaxtyping import UInt8

from palette_jax import parallel
from palette_jax.__main__ import use_huge_pages
from palette_jax.config import build, build_data, flags
from palette_jax.config.build_restorer import load_config, load_weights
from palette_jax.config.values import from_dict, task_names
from palette_jax.errors import UserError
from palette_jax.evaluation.metrics import (
    color,
    distortion,
    frechet,
    inception,
    weight_files,
)
from palette_jax.evaluation.metrics.extractor import Extractor
from palette_jax.training import logs
from palette_jax.types import Params

Pictures = UInt8[np.ndarray, "n h w 3"]
Batch = dict[str, np.ndarray]


class Way(NamedTuple):
    """One way to restore: a row of the table."""

    sampler: str
    schedule: str
    num_steps: int
    spacing: float = 0.0


def ways(steps: list[int]) -> Iterator[Way]:
    """Yields the rows, the fast ones first."""
    for count in sorted(steps):
        if count > 100:
            yield Way("ddpm", "paper", count)
        else:
            yield Way("ddim", "trimmed", count, 1.0)
            yield Way("unipc_2", "trimmed", count)


CONVERGED = Way("unipc_2", "trimmed", 64)


def measure(
    config: ml_collections.ConfigDict,
    params: Params,
    batches: list[Batch],
    *,
    fid: Callable[[Pictures], float] | None = None,
    converged: Pictures | None = None,
) -> tuple[dict[str, float], Pictures]:
    """Restores all batches with the config.

    Args:
      config: of the run, with the sampler.
      params: the weights.
      batches: the pictures.
      fid: the Fréchet distance of results.
      converged: the results of many steps with the same noise.

    Returns:
      The numbers of a row, and the results, sample by sample. The time excludes the
      first call, which compiles.
    """
    restore = build.make_restore(config, parallel.make_mesh())
    count, seconds, calls = config.sample.num_samples, 0.0, 0
    means, ones, spreads, drawn = [], [], [], []
    for batch in batches:
        valid = batch["valid"]
        samples = []
        for index in range(count):
            start = time.perf_counter()
            samples.append(restore(params, batch, index)[valid])
            if calls or count * len(batches) == 1:
                seconds += time.perf_counter() - start
            calls += 1
        restored, y = np.stack(samples), batch["y"][valid]
        mask = _painted(batch["hole"][valid])
        means.extend(distortion.psnr(restored.mean(0), y, mask))
        ones.extend(np.mean([distortion.psnr(s, y, mask) for s in restored], 0))
        deviation = restored.astype(np.float32).std(0).mean(-1, keepdims=True)
        spreads.extend((deviation * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)))
        drawn.append(restored)
    pictures = np.concatenate(drawn, axis=1)
    pictures = pictures.reshape(-1, *pictures.shape[2:])
    timed = max(calls - 1, 1) * len(batches[0]["x"])
    row = {
        "psnr_of_mean": float(np.mean(means)),
        "psnr_of_one": float(np.mean(ones)),
        "deviation": float(np.mean(spreads)),
        "colorfulness": float(np.mean(color.colorfulness(pictures))),
        "seconds_per_picture": seconds / timed,
    }
    if converged is not None:
        difference = pictures.astype(np.float32) - converged
        row["distance"] = float(np.sqrt(np.square(difference).mean()))
    if fid:
        row["fid_768"] = fid(pictures)
    return row, pictures


def _painted(hole: np.ndarray) -> np.ndarray:
    return np.where(hole.any((1, 2, 3), keepdims=True), hole, 1)


def load_inception() -> Extractor | None:
    """Returns the network of FID, None where its weights are not there."""
    try:
        return inception.load(inception.find())
    except weight_files.MissingWeightsError as error:
        print(f"no FID-768: {error}")
        return None


def make_fid(network: Extractor, batches: list[Batch]) -> Callable[[Pictures], float]:
    """Returns the Fréchet distance to the originals by Inception's 768 features."""

    def statistics(pictures: Pictures) -> frechet.Statistics:
        features = network(pictures)["768"]
        return frechet.statistics(features, [str(i) for i in range(len(pictures))])

    originals = np.concatenate([batch["y"][batch["valid"]] for batch in batches])
    reference = statistics(originals)
    return lambda drawn: frechet.distance(statistics(drawn), reference)


def run(argv: list[str]) -> int:
    """Prints a table for each task of the checkpoint."""
    argv, overrides = flags.split(argv)
    args = _arguments().parse_args(argv)
    logs.set_up_logging()
    workdir = args.workdir
    config = load_config(workdir)
    flags.override(config, overrides)
    config.eval.num_images = args.num_pictures
    config.sample.num_samples = args.num_samples
    parallel.use_cpu_cores([config.eval.batch_size])
    devices = jax.device_count()
    enough = -(-args.num_pictures // devices) * devices
    config.eval.batch_size = min(config.eval.batch_size, enough)
    build.check(config, num_devices=devices, trains=False)
    parallel.cache_compilations()
    rows = list(ways(_parse(args.steps.split(","))))
    if config.diffusion.objective == "regress":
        rows = [Way("one pass", "", 1)]
    _, params, step = load_weights(workdir)
    students = [load_weights(student)[:2] for student in args.students]
    folder = epath.Path(workdir)
    folder = folder.parent if folder.suffix else folder
    network = load_inception()
    for task in task_names(config):
        batches = list(build_data.eval_batches(config, task))
        fid = make_fid(network, batches) if network else None
        count = sum(int(batch["valid"].sum()) for batch in batches)
        about = {
            "workdir": str(workdir),
            "step": step,
            "task": task,
            "pictures": count,
            "samples": config.sample.num_samples,
            "image_size": config.data.image_size,
            "batch_size": config.eval.batch_size,
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "trivial_psnr": _trivial(batches),
            "config": config.to_dict(),
        }
        _print_head(about, fid is not None)
        path = folder / "few_steps" / f"step_{step or 0:07}_{task}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        measured, converged = [], None
        if config.diffusion.objective != "regress":
            many = _sampled_by(config, CONVERGED)
            _, converged = measure(many, params, batches)
        todo = [(way, _sampled_by(config, way), params) for way in rows]
        for theirs, weights in students:
            way = Way("student", "trimmed", theirs.distill.steps)
            own = from_dict({**config.to_dict(), "sample": theirs.sample.to_dict()})
            own.sample.num_samples = config.sample.num_samples
            todo.append((way, own, weights))
        for way, asked_for, weights in todo:
            row, _ = measure(asked_for, weights, batches, fid=fid, converged=converged)
            row = {**way._asdict(), **row}
            measured.append(row)
            path.write_text(json.dumps({**about, "rows": measured}, indent=1))
            _print_row(row)
        print(f"stored in {path}")
    return 0


def _sampled_by(
    config: ml_collections.ConfigDict, way: Way
) -> ml_collections.ConfigDict:
    asked_for = from_dict(config.to_dict())
    if way.schedule:
        asked_for.sample.update(way._asdict())
    return asked_for


def _parse(steps: list[str]) -> list[int]:
    if not all(text.strip().isdecimal() and int(text) > 0 for text in steps):
        raise UserError(
            f"expected --steps as numbers >= 1 with commas, got {','.join(steps)}"
        )
    return [int(text) for text in steps]


def _trivial(batches: list[Batch]) -> float:
    """Returns the PSNR of the trivial baseline."""
    found = []
    for batch in batches:
        x, y, hole = (batch[name][batch["valid"]] for name in ("x", "y", "hole"))
        guess = distortion.trivial_estimate(x, hole)
        found.extend(distortion.psnr(guess, y, _painted(hole)))
    return float(np.mean(found))


def _print_head(about: dict[str, Any], has_fid: bool) -> None:
    print(
        f"\n{about['task']}, step {about['step']}: {about['pictures']} pictures of"
        f" {about['image_size']} pixels, {about['samples']} samples of each, batches of"
        f" {about['batch_size']} on {about['device']}"
    )
    print(
        "PSNR in dB, of the mean of the samples and of one; deviation of the samples at"
        f" a pixel, of 255. No model at all: {about['trivial_psnr']:.2f} dB"
    )
    print(
        f"{'sampler':<10}{'schedule':<10}{'steps':>6}{'mean':>8}{'one':>8}"
        f"{'deviation':>11}{'colour':>8}{'distance':>10}{'s/picture':>11}"
        + f"{'FID-768':>10}"
        * has_fid,
        flush=True,
    )


def _print_row(row: dict[str, Any]) -> None:
    fid = f"{row['fid_768']:>10.4f}" if "fid_768" in row else ""
    print(
        f"{row['sampler']:<10}{row['schedule']:<10}{row['num_steps']:>6}"
        f"{row['psnr_of_mean']:>8.2f}{row['psnr_of_one']:>8.2f}"
        f"{row['deviation']:>11.2f}{row['colorfulness']:>8.2f}"
        f"{row.get('distance', math.nan):>10.2f}"
        f"{row['seconds_per_picture']:>11.4f}{fid}",
        flush=True,
    )


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Sampler x steps x quality x seconds.")
    parser.add_argument("--workdir", required=True, help="the run, or a file of it")
    parser.add_argument("--steps", default="1,2,4,8,16,25,1000")
    parser.add_argument(
        "--students", nargs="*", default=[], help="runs distilled from it"
    )
    parser.add_argument("--num_pictures", type=int, default=32)
    parser.add_argument("--num_samples", type=int, default=4, help="of each picture")
    return parser


if __name__ == "__main__":
    use_huge_pages()
    try:
        sys.exit(run(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
