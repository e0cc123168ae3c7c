"""The measuring process of `benchmarks.accelerator`.

It prints `again`, reads a part from standard input, one line of JSON, and prints
`again` or, if a new process should continue, `done`. It appends each row to a file at
once, so that a crash loses no other row. The row of a failed case has the reason.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from benchmarks import attention, convolutions, machine, peers, report, sample, sizes
from benchmarks import train_step as steps
from palette_jax import parallel

LEFT_OUT = "left out"
# Batches to try, the safe one first; the paper's network, and that of the tests.
_BATCHES = {"paper": (32, 48), "small": (64, 128, 256), "toy": (4,)}
_SOLVERS = ("unipc_2:16", "ddpm:1000")
# After these, a process has less memory than a new one, or none of the device.
_ENDS = ("RESOURCE_EXHAUSTED", "out of memory", "CUDA_ERROR")

Rows = Iterator[report.Row]


def products(args: argparse.Namespace) -> Rows:
    """Yields the rates of large products, the base of all shares, and of copies."""
    on_cpu = jax.default_backend() == "cpu"
    for size in (256, 512) if on_cpu else (4096, 8192, 16384):
        rate = machine.matrix_rate(args.dtype, size=size, seconds=1.0)
        what = f"product, {size} x {size}, {args.dtype}"
        yield {"what": what, "rate": rate / 1e12, "unit": "TFLOP/s"}
    array = jax.random.normal(jax.random.key(0), (2**20 if on_cpu else 2**30,))
    copy = jax.jit(lambda array: array + 1)
    jax.block_until_ready(copy(array))
    seconds = machine.measure(lambda: copy(array), 5).seconds
    yield {"what": "copy", "rate": 2 * array.nbytes / seconds / 1e9, "unit": "GB/s"}


def training(args: argparse.Namespace) -> Rows:
    """Yields the training step at growing batches, until one does not fit."""
    for batch in _batches(args):
        row = _attempt(
            f"training, batch {batch}",
            lambda batch=batch: steps.measure(
                args.size,
                batch_size=batch,
                dtype=args.dtype,
                count=5,
                # Minutes, which are known even if no time is left for a step.
                on_compiled=lambda times: append(args.rows, part=args.part, row=times),
            ),
        )
        yield row
        if LEFT_OUT in row:
            return


def sampling(args: argparse.Namespace) -> Rows:
    """Yields eight steps of sampling at growing batches, until one does not fit."""
    for batch in _batches(args):
        row = _sample(args, "ddim:8", batch, count=3)
        yield row
        if LEFT_OUT in row:
            return


def _batches(args: argparse.Namespace) -> Iterator[int]:
    """Yields batches while there is time for one that takes as long as the last."""
    started = time.monotonic()
    for batch in _BATCHES[args.size]:
        began = time.monotonic()
        yield batch
        now = time.monotonic()
        if now - started + (now - began) > args.seconds:
            return  # Later parts get the remaining time.


def beside_diffusers(args: argparse.Namespace) -> Rows:
    """Yields diffusers' steps and both sides' in turns, at the best batch or half."""
    found = subprocess.run(
        [args.python, "-c", "import torch, diffusers"], capture_output=True, text=True
    )
    if found.returncode:
        why = (found.stderr.strip().splitlines() or ["it does not start"])[-1]
        yield _left_out("diffusers", f"no peer in {args.python}: {why}")
        return
    for batch in (_best_batch(args), max(_best_batch(args) // 2, 1)):
        is_compared = False
        peer = peers.Peer(args.python)
        try:
            for row in _in_turns(args, peer, batch):
                is_compared = is_compared or "ratio" in row
                yield row
            return
        except (Exception, SystemExit) as error:
            yield _left_out(f"diffusers, batch {batch}", _reason(error))
            if is_compared:
                return
        finally:
            peer.close()


def _in_turns(args: argparse.Namespace, peer: peers.Peer, batch: int) -> Rows:
    """Yields, for each variant of the peer, its steps alone and those of both."""
    config = sizes.get_config(args.size, batch_size=batch, dtype=args.dtype)
    spec, ours = peers.describe_network(config), None
    exact = args.dtype == "float32"
    for variant in ["float32"] if exact else ["bfloat16", "bfloat16+compile"]:
        for step in ("train", "sample"):
            seconds = peers.time_variant(peer, spec, step, variant)
            if isinstance(seconds, str):
                raise RuntimeError(f"{variant}: {seconds}")
            yield {
                "diffusers alone": step,
                "its variant": variant,
                "batch": batch,
                "ms": 1e3 * seconds,
            }
        # Yields theirs first, in case ours is not compiled in time.
        ours = ours or peers.make_ours(args.size, batch_size=batch, dtype=args.dtype)
        for row, _ in peers.compare(peer, ours, count=5, variants=[variant]):
            yield row


def attentions(args: argparse.Namespace) -> Rows:
    """Yields attention by implementation, cuDNN's among them."""
    shapes = ((4, 2),) if args.size == "toy" else ((32, 8), (16, 16), (8, 16))
    for side, heads in shapes:
        for name in attention.IMPLEMENTATIONS:
            if "TPU" in name and jax.default_backend() != "tpu":
                continue
            yield _attempt(
                f"{name}, {side} x {side}",
                lambda name=name, side=side, heads=heads: attention.measure(
                    name, side, heads, batch_size=16, dtype=args.dtype, count=5
                ),
            )


def convolution(args: argparse.Namespace) -> Rows:
    """Yields the network's convolutions by shape, forward and gradients."""
    config = sizes.get_config(args.size)
    for shape in convolutions.shapes(config):
        yield _attempt(
            f"convolution, {shape}",
            lambda shape=shape: convolutions.measure(
                shape, batch_size=16, dtype=args.dtype, count=5
            ),
        )


def solvers(args: argparse.Namespace) -> Rows:
    """Yields the best few-step solver and the paper's 1000 steps, four pictures."""
    for sampler in _SOLVERS:
        row = _sample(args, sampler, 4, count=1)
        row.pop("peak GiB", None)  # It is that of the parts before, too.
        yield row


def option(args: argparse.Namespace) -> Rows:
    """Yields the training step with the options of the command and XLA_FLAGS."""
    batch = _BATCHES[args.size][0] * (2 if args.twice else 1)
    row = _attempt(
        args.option,
        lambda: steps.measure(
            args.size, batch_size=batch, dtype=args.dtype, count=5, remat=args.remat
        ),
    )
    yield row if LEFT_OUT in row else {"option": args.option, **row}


PARTS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    function.__name__: function
    for function in (
        *(products, training, sampling, beside_diffusers),
        *(attentions, convolution, solvers, option),
    )
}


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns what the parts have written so far, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # Cut off where a process was ended.
    return found


def append(path: pathlib.Path, **entry: Any) -> None:
    """Adds an entry to the file, at once."""
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def _sample(
    args: argparse.Namespace, sampler: str, batch: int, *, count: int
) -> report.Row:
    return _attempt(
        f"{sampler}, batch {batch}",
        lambda: sample.measure(
            args.size, sampler, batch_size=batch, dtype=args.dtype, count=count
        ),
    )


def _best_batch(args: argparse.Namespace) -> int:
    rows = [e["row"] for e in read(args.rows) if e.get("part") == "training"]
    good = [row for row in rows if "images/s" in row]
    if not good:
        return _BATCHES[args.size][0]
    return max(good, key=lambda row: row["images/s"])["batch"]


def _attempt(case: str, function: Callable[[], report.Row]) -> report.Row:
    try:
        return function()
    except Exception as error:
        # A case that does not run here is a result too.
        return _left_out(case, _reason(error))


def _left_out(case: str, why: str) -> report.Row:
    return {"case": case, LEFT_OUT: why}


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def run(args: argparse.Namespace) -> bool:
    """Runs a part until its end or time limit; returns whether to continue."""
    started, goes_on = time.monotonic(), True
    for row in PARTS[args.part](args):
        append(args.rows, part=args.part, row=row)
        why = str(row.get(LEFT_OUT, ""))
        goes_on = goes_on and not any(text in why for text in _ENDS)
        if time.monotonic() - started > args.seconds:
            break
    return goes_on


def main() -> None:
    """Runs the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=pathlib.Path, required=True)
    parser.add_argument("--python", required=True)
    args = parser.parse_args()
    parallel.cache_compilations()
    sizes.use_all_cores([sizes.get_config("toy", batch_size=4)])
    args.dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    append(args.rows, machine=machine.describe())
    print("again", flush=True)
    for line in sys.stdin:
        part = argparse.Namespace(**vars(args), **json.loads(line))
        print("again" if run(part) else "done", flush=True)


if __name__ == "__main__":
    main()
