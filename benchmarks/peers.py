"""Prints our speed beside that of the peer, `UNet2DModel` of diffusers.

The peer runs in PyTorch with the same widths, depths, attention and batch, on the same
devices: with channels-last tensors, and with `torch.compile` and bfloat16 if these are
faster. Both sides take turns, so that other processes slow both alike. PyTorch has its
own environment:

    python -m venv /tmp/peer && /tmp/peer/bin/pip install torch diffusers
    python -m benchmarks.peers --python=/tmp/peer/bin/python --size=tiny
"""

import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_collections

from benchmarks import machine, report, sizes
from palette_jax import parallel
from palette_jax.__main__ import use_huge_pages
from palette_jax.config import build

_WORKER = pathlib.Path(__file__).with_name("peer_worker.py")
_SAMPLING_STEPS = 8


class Peer:
    """The process of PyTorch, which is idle between requests."""

    def __init__(self, python: str) -> None:
        """Starts the process."""
        self._process = subprocess.Popen(
            [python, str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        """Returns the answer to a command; it has `error` after a failure."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                "expected answers of the peer's process, got its end; is PyTorch with"
                " diffusers installed for the python of --python?"
            )
        return json.loads(line)

    def time(self, step: str, count: int) -> list[machine.Timing]:
        """Returns timings of a step."""
        answer = self.ask(do="time", step=step, count=count)
        if "error" in answer:
            raise SystemExit(f"the peer stopped: {answer['error']}")
        pairs = zip(answer["seconds"], answer["cpu_seconds"], strict=True)
        return [machine.Timing(*pair) for pair in pairs]

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def describe_network(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the settings for the peer to build the same network."""
    model, size = config.model, config.data.image_size
    levels = range(len(model.feature_multipliers))
    return {
        "image_size": size,
        "widths": [round(model.base_features * m) for m in model.feature_multipliers],
        "attends": [size >> level in model.attn_resolutions for level in levels],
        "num_res_blocks": model.num_res_blocks,
        "head_features": model.head_features,
        "norm_groups": model.norm_groups,
        "batch_size": config.train.batch_size,
    }


def pick_variant(
    peer: Peer, spec: dict[str, Any], step: str, variants: list[str]
) -> tuple[str, list[str]]:
    """Selects the peer's fastest variant; returns it and a result for each variant.

    A variant is a type, and whether the network is compiled: `float32`,
    `float32+compile`. If a variant does not run, its result is the reason.
    """
    found, best = [], ("", float("inf"))
    for variant in variants:
        cost = time_variant(peer, spec, step, variant)
        if isinstance(cost, str):
            found.append(f"{variant}: {cost}")
            continue
        found.append(f"{variant}: {1e3 * cost:.4g} ms")
        if cost < best[1]:
            best = (variant, cost)
    if not best[0]:
        raise SystemExit("none of the peer's variants ran: " + "; ".join(found))
    if best[0] != variants[-1]:
        _build(peer, spec, best[0])
        peer.ask(do="time", step=step, count=1)
    return best[0], found


def time_variant(
    peer: Peer, spec: dict[str, Any], step: str, variant: str
) -> float | str:
    """Returns the seconds of a step of a variant, or the reason of its failure."""
    answer = _build(peer, spec, variant)
    if "error" not in answer:
        answer = peer.ask(do="time", step=step, count=3)
    if "error" in answer:
        return answer["error"]
    return min(answer["seconds"][1:])  # The first one warms up or compiles.


def _build(peer: Peer, spec: dict[str, Any], variant: str) -> dict[str, Any]:
    dtype, _, compiled = variant.partition("+")
    return peer.ask(do="build", spec=spec, dtype=dtype, compiled=bool(compiled))


def take_turns(
    ours: Callable[[], Any], theirs: Callable[[], machine.Timing], rounds: int
) -> tuple[machine.Timing, machine.Timing, list[float]]:
    """Returns the medians of both, and the sorted ratios of the rounds.

    Each turn begins with a run that does not count: the other side has taken the caches
    and the freed memory.
    """
    pairs = []
    for _ in range(rounds):
        machine.run_once(ours)
        timing = machine.run_once(ours)
        theirs()
        pairs.append((timing, theirs()))
    our_timings, their_timings = (list(side) for side in zip(*pairs, strict=True))
    ratios = [b.seconds / a.seconds for a, b in pairs]
    return machine.median(our_timings), machine.median(their_timings), sorted(ratios)


class Ours(NamedTuple):
    """Our side of a comparison.

    Attributes:
      config: of the network.
      steps: by name, a function, its number of steps, and the operations of one step.
    """

    config: ml_collections.ConfigDict
    steps: dict[str, tuple[Callable[[], Any], int, float]]


def make_ours(size: str, *, batch_size: int, dtype: str | None) -> Ours:
    """Compiles our training step; the sampler is compiled when it first runs."""
    config = sizes.get_config(size, batch_size=batch_size, dtype=dtype)
    config.sample.sampler, config.sample.num_steps = "ddim", _SAMPLING_STEPS
    mesh = parallel.make_mesh()
    training = sizes.training_step(config)
    params, batch = sizes.draw_params(config, mesh), sizes.draw_batch(config)
    restore = build.make_restore(config, mesh)
    steps = {
        "train": (training.run, 1, training.flops),
        "sample": (
            lambda: restore(params, batch),
            _SAMPLING_STEPS,
            sizes.forward_flops(config),
        ),
    }
    return Ours(config, steps)


def compare(
    peer: Peer, ours: Ours, *, count: int, variants: list[str]
) -> Iterator[tuple[report.Row, list[str]]]:
    """Yields a row for training and one for sampling, each with what variants took."""
    config = ours.config
    spec = describe_network(config)
    # Where ours is exact, theirs has to be; else theirs takes what is faster.
    types = {"float32": ["float32"]}.get(config.model.dtype, ["float32", "bfloat16"])
    both = [variant for name in types for variant in (name, f"{name}+compile")]
    for step, (run, steps, flops) in ours.steps.items():
        variant, found = pick_variant(peer, spec, step, variants or both)
        machine.run_once(run)
        rate = machine.matrix_rate(config.model.dtype)

        def theirs(step: str = step, steps: int = steps) -> machine.Timing:
            timings = peer.time(step, steps)
            return machine.Timing(
                *(sum(column) for column in zip(*timings, strict=True))
            )

        our, their, ratios = take_turns(run, theirs, count)
        rate = max(rate, machine.matrix_rate(config.model.dtype))
        row: report.Row = {
            "step": step,
            "pixels": config.data.image_size,
            "type": config.model.dtype,
            "batch": config.train.batch_size,
            "ours, ms": 1e3 * our.seconds / steps,
            "theirs, ms": 1e3 * their.seconds / steps,
            "their variant": variant,
            "ratio": ratios[len(ratios) // 2],
            "from": ratios[0],
            "to": ratios[-1],
            "ours, CPU-ms": 1e3 * our.cpu_seconds / steps,
            "theirs, CPU-ms": 1e3 * their.cpu_seconds / steps,
            "CPU ratio": their.cpu_seconds / our.cpu_seconds,
            "our share": flops * steps / our.seconds / rate,
        }
        yield row, found


def main() -> None:
    """Prints two rows for each size; ours is faster if the ratio is above 1."""
    parser = report.make_parser(__doc__, "peers")
    report.add_network_flags(parser)
    parser.add_argument(
        "--python",
        default=os.environ.get("PALETTE_JAX_PEER_PYTHON", ""),
        help="of the environment with PyTorch; or set PALETTE_JAX_PEER_PYTHON",
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        default=[],
        help="of the peer, such as bfloat16+compile (default: the fastest)",
    )
    args = parser.parse_args()
    if not args.python:
        parser.error("expected --python, the python of an environment with PyTorch")
    sizes.use_all_cores(
        [sizes.get_config(size, batch_size=args.batch_size) for size in args.size]
    )
    peer = Peer(args.python)
    rows, notes = [], {}
    for size in args.size:
        ours = make_ours(size, batch_size=args.batch_size, dtype=args.dtype)
        for row, found in compare(peer, ours, count=args.count, variants=args.variants):
            rows.append({"size": size, **row})
            notes[f"{size}, {row['step']}"] = found
            report.show(rows[-1:])
    about = _build(peer, describe_network(sizes.get_config("toy")), "float32")
    peer.close()
    report.finish(args.json, rows, peer=about, variants=notes)
    for name, found in notes.items():
        print(f"their variants, {name}: {'; '.join(found)}")
    print(f"theirs: {about}")


if __name__ == "__main__":
    use_huge_pages()
    main()
