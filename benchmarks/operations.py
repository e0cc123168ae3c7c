r"""Prints the time of a training step by kind of operation, beside PyTorch's.

    taskset -c 0 python -m benchmarks.operations --size tiny medium --count=3 \
      --python=/tmp/peer/bin/python

On one core of a CPU (`taskset`), the times of operations add up to that of the step.
The peer is that of `benchmarks.peers`, without `torch.compile`.
"""

import glob
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping

import jax
import ml_collections

from benchmarks import report, sizes
from benchmarks.peers import Peer, describe_network
from palette_jax.__main__ import use_huge_pages

KINDS = (
    "convolutions",
    "their gradients",
    "attention and linear layers",
    "norms, SiLU, sums",
    "joins, resizing, copies",
    "optimizer and average",
    "other",
)
# The first pattern that matches the name of one of PyTorch's operations.
_THEIRS = {
    r"convolution_backward": "their gradients",
    r"convolution": "convolutions",
    r"attention|addmm|matmul|aten::mm|bmm|softmax": "attention and linear layers",
    r"norm|silu|aten::(add|mul|sum|div|sub|rsqrt|sqrt|pow|square)": "norms, SiLU, sums",
    r"cat|copy|clone|upsample|avg_pool|contiguous|slice": "joins, resizing, copies",
    r"adam|lerp|foreach|Optimizer": "optimizer and average",
}


def ours(config: ml_collections.ConfigDict, count: int) -> dict[str, float]:
    """Returns the seconds of each kind in our training step."""
    step = sizes.training_step(config)
    jax.block_until_ready(step.run())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(count):
                jax.block_until_ready(step.run())
        (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        seconds: dict[str, float] = defaultdict(float)
        for name, nanoseconds in _events(file):
            seconds[name] += nanoseconds / 1e9 / count
    return _by_kind(seconds, _kinds(step.compiled.as_text() or ""))


def _events(file: str) -> Iterator[tuple[str, float]]:
    """Yields the name and the nanoseconds of each event of the computing threads."""
    for plane in jax.profiler.ProfileData.from_file(file).planes:
        for line in plane.lines:
            if "XLAEigen" in line.name or "XLAPjRtCpuClient" in line.name:
                for event in line.events:
                    yield event.name, event.duration_ns


def _kinds(text: str) -> dict[str, str]:
    """Returns the kind of each instruction of a compiled program."""
    kinds = {}
    for line in text.splitlines():
        found = re.match(r"\s*(?:ROOT )?%([\w.\-]+) = ", line)
        if found:
            source = re.search(r'op_name="([^"]*)"', line)
            kinds[found[1]] = our_kind(found[1], source[1] if source else "")
    return kinds


def our_kind(name: str, source: str) -> str:
    """Returns the kind of an instruction, from its name and its source in the model."""
    if re.match(r"while|call|conditional|all-reduce", name):
        return ""  # Contains other instructions, or waits for them.
    if "UNet" not in source:
        # XLA drops the source of most gradients of kernels.
        if not source and re.match(r"convolution|transpose_copy|ynn_fusion|dot", name):
            return "their gradients"
        is_update = re.search(r"select_n|sqrt|_where|mul|add|sub", source)
        return "optimizer and average" if is_update else "other"
    if "/norm" in source:
        return "norms, SiLU, sums"
    if re.search(r"/(conv|skip)", source):
        return "their gradients" if "transpose(" in source else "convolutions"
    if re.search(r"_attention/|level|[Dd]ense|shift", source):
        return "attention and linear layers"
    if re.search(r"concatenate|split|reshape|slice|pad|copy|reduce", source + name):
        return "joins, resizing, copies"
    return "norms, SiLU, sums"


def _by_kind(
    seconds: Mapping[str, float], kinds: Mapping[str, str]
) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for name, value in seconds.items():
        if kinds.get(name):
            found[kinds[name]] += value
    return found


def theirs(
    peer: Peer, config: ml_collections.ConfigDict, count: int
) -> dict[str, float]:
    """Returns the seconds of each kind in the training step of the peer."""
    spec = describe_network(config)
    peer.ask(do="build", spec=spec, dtype="float32", compiled=False)
    answer = peer.ask(do="profile", count=count)
    if "error" in answer:
        raise SystemExit(f"the peer stopped: {answer['error']}")
    found: dict[str, float] = defaultdict(float)
    for name, value in answer.items():
        kind = next((k for p, k in _THEIRS.items() if re.search(p, name)), "other")
        found[kind] += value
    return found


def main() -> None:
    """Prints a row for each kind of each size."""
    parser = report.make_parser(__doc__, "operations")
    report.add_network_flags(parser)
    parser.add_argument("--python", required=True, help="of PyTorch's environment")
    args = parser.parse_args()
    peer, rows = Peer(args.python), []
    for size in args.size:
        config = sizes.get_config(size, batch_size=args.batch_size, dtype="float32")
        our = ours(config, args.count)
        their = theirs(peer, config, args.count)
        for kind in (*KINDS, "all"):
            a, b = (
                sum(side.values()) if kind == "all" else side[kind]
                for side in (our, their)
            )
            rows.append(
                {
                    "size": size,
                    "operations": kind,
                    "ours, ms": 1e3 * a,
                    "PyTorch, ms": 1e3 * b,
                    "ratio": b / a if a else None,
                }
            )
    peer.close()
    report.finish(args.json, rows)


if __name__ == "__main__":
    use_huge_pages()
    main()
