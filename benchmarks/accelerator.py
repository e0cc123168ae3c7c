"""Measures an accelerator, in some minutes and one command.

    python -m benchmarks.accelerator --minutes=8 --out=DIR

The parts run in the order of importance: the rate of large products, and the paper's
network in bfloat16, training and sampling, by batch; the same beside diffusers'
`UNet2DModel` at its best; attention and convolutions by shape; 1000 steps of `ddpm`
beside the best few-step solver; and the effect of rematerialization, batch and flags of
XLA on the network `small`. A separate process measures, and writes row by row. Each
part has a time limit; after it, that process is ended and a new one continues. So a
part that fails or hangs affects no other part, and unused time goes to later parts.

The folder has `report.md`, updated after each part, `rows.jsonl` and `log.txt`. The
peer needs PyTorch and diffusers in the Python of --python; without them the report says
so. `--size=toy` tries everything on a CPU, in two minutes.
"""

import argparse
import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import accelerator_parts, report
from palette_jax import atomic

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_SHORTEST = 3.0  # Seconds; too short for any part.


class Part(NamedTuple):
    """A part of the report.

    Attributes:
      title: in the report.
      name: of the function in `accelerator_parts`.
      share: weight of its time limit.
      size: of the network.
      option: for the part `option`, the tried option.
      remat: for `option`, whether the network is rematerialized.
      twice: for `option`, whether the batch is twice as large.
      is_fresh: whether it needs a new process.
    """

    title: str
    name: str
    share: float
    size: str
    option: str = ""
    remat: bool = False
    twice: bool = False
    is_fresh: bool = False


_FLAGS = (
    "--xla_gpu_enable_triton_gemm=false",
    "--xla_gpu_enable_latency_hiding_scheduler=true",
    "--xla_gpu_enable_command_buffer=",
    "--xla_gpu_cudnn_gemm_fusion_level=2",
    "--xla_gpu_exhaustive_tiling_search=true",
)


def make_parts(size: str) -> list[Part]:
    """Returns the parts for a network of this size, the most important first."""
    other = "small" if size == "paper" else size
    options: dict[str, dict[str, bool]] = {
        "as it is": {},
        "remat": {"remat": True},
        "twice the batch": {"twice": True},
        **{flag: {} for flag in _FLAGS},
    }
    if size == "toy":
        options = {name: options[name] for name in ("remat", _FLAGS[0])}
    return [
        Part("Rates of the machine", "products", 4, size),
        # On an H100, compiling the paper's network took longer than two minutes.
        Part("Training", "training", 60, size),
        # A process reports its peak memory so far, and keeps memory from the peer's.
        Part("Sampling", "sampling", 8, size, is_fresh=True),
        # Finds ours in the cache of compiled programs.
        Part("Beside diffusers", "beside_diffusers", 20, size, is_fresh=True),
        Part("Attention", "attentions", 3, size),
        Part("Convolutions", "convolution", 3, size),
        Part("Solvers", "solvers", 3, size),
        *(
            Part("Options", "option", 0.5, other, name, is_fresh=True, **changes)
            for name, changes in options.items()
        ),
    ]


class Worker:
    """The measuring process, which is restarted if needed."""

    def __init__(self, out: pathlib.Path, python: str):
        """Starts nothing yet."""
        self._command = [
            *(sys.executable, "-m", "benchmarks.accelerator_parts"),
            *(f"--rows={out / 'rows.jsonl'}", f"--python={python}"),
        ]
        self._log = out / "log.txt"
        self._process: subprocess.Popen[str] | None = None

    def prepare(self, part: Part, seconds: float) -> str | None:
        """Prepares a process for a part; returns its problem, or None."""
        if part.is_fresh:
            self.end()
        if self._process is not None:
            return None
        self._process = self._start(part)
        problem = self._answer(seconds)
        return f"its process did not start: {problem}" if problem else None

    def run(self, part: Part, seconds: float) -> str | None:
        """Runs a part in the prepared process; returns why it ended early, or None."""
        assert self._process and self._process.stdin
        command = {**part._asdict(), "part": part.name, "seconds": seconds}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        problem = self._answer(seconds)
        if part.option.startswith("--"):
            self.end()  # Its flags are only for this part.
        return problem

    def _answer(self, seconds: float) -> str | None:
        """Waits for an answer; ends the process unless it can continue."""
        assert self._process and self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        answer = self._process.stdout.readline().strip() if ready else ""
        if answer == "again":
            return None
        process = self._process
        self.end()
        if answer:
            return None
        if not ready:
            return f"ended after its {seconds:.0f} s"
        lines = self._log.read_bytes().decode("utf8", "replace").strip().splitlines()
        return f"exit status {process.returncode}: {' / '.join(lines[-2:])[:400]}"

    def end(self) -> None:
        """Ends the process, if there is one, and its children, such as the peer."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _start(self, part: Part) -> "subprocess.Popen[str]":
        flags = part.option if part.option.startswith("--") else ""
        env = {
            **os.environ,
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
        }
        if part.name == "beside_diffusers":  # Both sides hold their memory at once.
            env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                cwd=_ROOT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
            )


def write_report(out: pathlib.Path, parts: list[Part], wrong: dict[int, str]) -> None:
    """Writes `report.md` from the rows so far.

    Args:
      out: the folder, with `rows.jsonl`.
      parts: the parts that have run.
      wrong: the failure of a whole part, by its index.
    """
    entries = accelerator_parts.read(out / "rows.jsonl")
    machines = [entry["machine"] for entry in entries if "machine" in entry]
    lines = ["# Measurements of the accelerator", ""]
    if machines:
        facts = (f"{key}: {value}" for key, value in machines[0].items() if value != "")
        lines += ["; ".join(facts), ""]
    for title in dict.fromkeys(part.title for part in parts):
        lines += [f"## {title}", ""]
        places = [i for i, part in enumerate(parts) if part.title == title]
        name = parts[places[0]].name
        rows = [e["row"] for e in entries if e.get("part") == name and "row" in e]
        groups: dict[tuple[str, ...], list[report.Row]] = {}
        for row in rows:
            groups.setdefault(tuple(row), []).append(row)
        for columns, group in groups.items():
            if accelerator_parts.LEFT_OUT not in columns:
                lines.append(report.table(group))
        failed = [row for row in rows if accelerator_parts.LEFT_OUT in row]
        lines += [f"- left out: {r['case']}: {r['left out']}" for r in failed]
        for place in places:
            if place in wrong:
                case = parts[place].option or title
                lines.append(f"- {case}: {wrong[place]}")
        lines.append("")
    atomic.write_text(out / "report.md", "\n".join(lines))


def main() -> None:
    """Runs the parts one after the other and prints the report."""
    deadline = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, required=True, help="in all")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--size", choices=("paper", "small", "toy"), default="paper")
    parser.add_argument(
        "--only", nargs="+", choices=accelerator_parts.PARTS, help="parts to run"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="with PyTorch and diffusers"
    )
    args = parser.parse_args()
    deadline += 60 * args.minutes
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "rows.jsonl").unlink(missing_ok=True)  # Of an earlier run.
    (out / "log.txt").write_bytes(b"")
    parts = make_parts(args.size)
    if args.only:
        parts = [part for part in parts if part.name in args.only]
    worker, wrong = Worker(out, args.python), {}

    def share(place: int) -> float:
        left = deadline - time.monotonic()
        return left * parts[place].share / sum(part.share for part in parts[place:])

    try:
        for place, part in enumerate(parts):
            if share(place) < _SHORTEST:
                wrong[place] = "no time was left"
            else:
                problem = worker.prepare(part, (deadline - time.monotonic()) / 4)
                if not problem:
                    seconds = share(place)
                    print(f"{part.title} {part.option}: {seconds:.0f} s", flush=True)
                    problem = worker.run(part, seconds)
                if problem:
                    wrong[place] = problem
            write_report(out, parts[: place + 1], wrong)
    finally:
        worker.end()
    print((out / "report.md").read_text())
    print(f"written to {out}")


if __name__ == "__main__":
    main()
