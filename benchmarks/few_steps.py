"""Prints sampler x schedule x steps x quality x seconds for a trained model.

    python -m benchmarks.few_steps --workdir=runs/uncrop
    python -m benchmarks.few_steps --workdir=runs/uncrop --steps=5,10,20 \
        --num_pictures=64 --config.data.eval_folder=PHOTOS

Each sampler with the literal schedule, `paper`, and without the steps below the levels
trained on, `trimmed`; above 100 steps ddpm with the literal one alone, which with 1000
is the paper's sampling: the others have settled by then. Every row restores the same
pictures with the same noise. The rows are kept in few_steps/ of the run, as JSON, each
as soon as it is there. Of a model of several tasks each has a table;
`--config.task=uncrop` is for one of them.

PSNR is measured over what was painted. It prefers a blurred guess to a sharp one; of
one sample it falls as pictures get sharper, so look at the mean of the samples, and at
how far they differ. `--inception_weights` adds a Fréchet distance.
"""

import argparse
import itertools
import json
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
from palette_jax.config import build, build_data, flags
from palette_jax.config.build_restorer import load_weights
from palette_jax.config.values import from_dict, task_names
from palette_jax.errors import UserError
from palette_jax.evaluation.metrics import distortion
from palette_jax.training import checkpoints, logs
from palette_jax.types import Params

Pictures = UInt8[np.ndarray, "n h w 3"]
Batch = dict[str, np.ndarray]


class Way(NamedTuple):
    """One way to restore: a row of the table."""

    sampler: str
    schedule: str
    num_steps: int


def ways(steps: list[int]) -> Iterator[Way]:
    """Yields the rows, the fast before the slow."""
    for count, schedule, sampler in itertools.product(
        sorted(steps), ("trimmed", "paper"), ("ddpm", "ddim", "dpmpp_2m")
    ):
        if count <= 100 or (sampler, schedule) == ("ddpm", "paper"):
            yield Way(sampler, schedule, count)


def measure(
    config: ml_collections.ConfigDict,
    params: Params,
    batches: list[Batch],
    *,
    fid: Callable[[Pictures], float] | None = None,
) -> dict[str, float]:
    """Restores all batches as the config says, and returns a row's numbers.

    The first call, which compiles, is not among the seconds.
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
    timed = max(calls - 1, 1) * len(batches[0]["x"])
    row = {
        "psnr_of_mean": float(np.mean(means)),
        "psnr_of_one": float(np.mean(ones)),
        "deviation": float(np.mean(spreads)),
        "seconds_per_picture": seconds / timed,
    }
    if fid:
        pictures = np.concatenate(drawn, axis=1)
        row["fid_768"] = fid(pictures.reshape(-1, *pictures.shape[2:]))
    return row


def _painted(hole: np.ndarray) -> np.ndarray:
    return np.where(hole.any((1, 2, 3), keepdims=True), hole, 1)


def make_fid(path: str, batches: list[Batch]) -> Callable[[Pictures], float]:
    """Returns the Fréchet distance to the originals by Inception's 768 features."""
    from palette_jax.evaluation.metrics import frechet, inception

    network = inception.load(path)

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
    config = from_dict(checkpoints.load_config(epath.Path(workdir) / "checkpoints"))
    flags.override(config, overrides)
    config.eval.num_images = args.num_pictures
    config.sample.num_samples = args.num_samples
    parallel.use_cpu_cores([config.eval.batch_size])
    devices = jax.device_count()
    enough = -(-args.num_pictures // devices) * devices
    config.eval.batch_size = min(config.eval.batch_size, enough)
    build.check(config, num_devices=devices)
    parallel.cache_compilations()
    rows = list(ways(_parse(args.steps.split(","))))
    if config.diffusion.objective == "regress":
        rows = [Way("one pass", "", 1)]
    _, params, step = load_weights(workdir)
    for task in task_names(config):
        batches = list(build_data.eval_batches(config, task))
        fid = (
            make_fid(args.inception_weights, batches)
            if args.inception_weights
            else None
        )
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
        path = epath.Path(workdir) / "few_steps" / f"step_{step:07}_{task}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        measured = []
        for way in rows:
            asked_for = from_dict(config.to_dict())
            if way.schedule:
                asked_for.sample.update(way._asdict())
            row = {
                **way._asdict(),
                **measure(asked_for, params, batches, fid=fid),
            }
            measured.append(row)
            path.write_text(json.dumps({**about, "rows": measured}, indent=1))
            _print_row(row)
        print(f"kept in {path}")
    return 0


def _parse(steps: list[str]) -> list[int]:
    if not all(text.strip().isdecimal() and int(text) > 0 for text in steps):
        raise UserError(
            f"expected --steps as numbers >= 1 with commas, got {','.join(steps)}"
        )
    return [int(text) for text in steps]


def _trivial(batches: list[Batch]) -> float:
    """Returns the PSNR of what needs no model."""
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
        f"{'deviation':>11}{'s/picture':>11}" + f"{'FID-768':>10}" * has_fid,
        flush=True,
    )


def _print_row(row: dict[str, Any]) -> None:
    fid = f"{row['fid_768']:>10.4f}" if "fid_768" in row else ""
    print(
        f"{row['sampler']:<10}{row['schedule']:<10}{row['num_steps']:>6}"
        f"{row['psnr_of_mean']:>8.2f}{row['psnr_of_one']:>8.2f}"
        f"{row['deviation']:>11.2f}{row['seconds_per_picture']:>11.4f}{fid}",
        flush=True,
    )


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Sampler x steps x quality x seconds.")
    parser.add_argument("--workdir", required=True, help="the run")
    parser.add_argument("--steps", default="4,8,16,25,50,100,250,1000")
    parser.add_argument("--num_pictures", type=int, default=32)
    parser.add_argument("--num_samples", type=int, default=4, help="of each picture")
    parser.add_argument("--inception_weights", help="adds a column with FID-768")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
