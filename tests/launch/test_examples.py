"""Every example of a machine and a run: the run fits the machine, by the plan."""

import dataclasses
import functools
import pathlib
import re
import shlex

import ml_collections
import pytest

from palette_jax.config import build, flags
from palette_jax.planning import roofline, steps, topology

yaml = pytest.importorskip("yaml")

ROOT = pathlib.Path(__file__).resolve().parents[2]

# docs.cloud.google.com/tpu/docs/regions-zones, November 2026, those for everybody.
_ZONES = {
    "v4": {"us-central2-b"},
    "v5e": {"us-central1-a", "us-south1-a", "us-west1-c", "us-west4-a"},
    "v6e": {"us-central1-b", "us-east1-d", "us-east5-a", "us-east5-b"},
}
_KINDS = {"v5litepod": "v5e", "tpu-v5-lite-podslice": "v5e", "tpu-v6e-slice": "v6e"}


@dataclasses.dataclass(frozen=True)
class Example:
    """A run, and the machine that it is shown on: chips in all, bytes of each."""

    place: str
    flags: tuple[str, ...]
    chips: int
    memory: float
    slice: str = ""  # As `--topology` names it, where libtpu can compile for it.


def _tpu(place: str, kind: str, chips: int, args: list[str], size: str = "") -> Example:
    kind = _KINDS.get(kind, kind)
    name = f"{kind}:{size}" if size else ""
    return Example(place, tuple(args), chips, topology.TPUS[kind].memory, name)


def _gpu(place: str, size: int, chips: int, args: list[str]) -> Example:
    return Example(place, tuple(args), chips, topology.GPUS[size].memory)


def _commands(path: pathlib.Path) -> list[list[str]]:
    """Returns the indented commands of a page, as words."""
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = [
        line.partition("  #")[0] for line in text.splitlines() if line[:4] == "    "
    ]
    return [shlex.split(line) for line in lines if line.count('"') % 2 == 0]


def _of_flag(words: list[str], name: str) -> str:
    (value,) = [
        word.split("=", 1)[1] for word in words if word.startswith(f"--{name}=")
    ]
    return value


def _of_launch_readme() -> list[Example]:
    found, variables = [], {}
    for words in _commands(ROOT / "launch/README.md"):
        if words[:1] == ["export"]:
            variables |= dict(word.split("=") for word in words[1:])
        if words[:1] == ["launch/tpu.sh"]:
            kind, chips = variables["TPU_TYPE"].split("-")
            assert variables["TPU_ZONE"] in _ZONES[_KINDS.get(kind, kind)]
            found.append(_tpu("tpu.sh", kind, int(chips), words[2:]))
        if words[:1] == ["xpk"]:
            kind, chips = _of_flag(words, "tpu-type").split("-")
            command = shlex.split(_of_flag(words, "command"))
            found.append(_tpu("xpk", kind, int(chips), command[2:]))
    return found


def _of_manifests() -> list[Example]:
    found = []
    for path in (ROOT / "launch").glob("gke-*.yaml"):
        job = yaml.safe_load(path.read_text())["spec"]["replicatedJobs"][0]
        pod = job["template"]["spec"]["template"]["spec"]
        labels = pod["nodeSelector"]
        (container,) = pod["containers"]
        args, limits = container["args"], container["resources"]["limits"]
        hosts = job["template"]["spec"]["completions"]
        if kind := labels.get("cloud.google.com/gke-tpu-accelerator"):
            size = labels["cloud.google.com/gke-tpu-topology"]
            chips = hosts * limits["google.com/tpu"]
            found.append(_tpu(path.name, kind, chips, args, size))
        else:
            size = re.search(r"(\d+)gb", labels["cloud.google.com/gke-accelerator"])[1]
            chips = hosts * limits["nvidia.com/gpu"]
            found.append(_gpu(path.name, int(size), chips, args))
    return found


def _of_schedulers() -> list[Example]:
    sky = yaml.safe_load((ROOT / "launch/sky.yaml").read_text())
    kind, gpus = sky["resources"]["accelerators"].split(":")
    size = {"H100": 80}[kind]
    slurm = (ROOT / "launch/slurm.sbatch").read_text()
    shown = re.search(r"^#   sbatch launch/slurm.sbatch (.*)$", slurm, re.M)[1]
    count = int(re.search(r"^#SBATCH --gres=gpu:(\d+)", slurm, re.M)[1])
    return [
        _gpu("sky.yaml", size, int(gpus), [f"--config={sky['envs']['CONFIG']}"]),
        _gpu("slurm.sbatch", 24, count, shown.split()),  # Of an unknown size.
    ]


def _of_plans() -> list[Example]:
    found = []
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for words in _commands(path):
            if "--mode=plan" not in words or "cpu" in _of_flag(words, "topology"):
                continue
            name = _of_flag(words, "topology")
            kind, _, size = name.partition(":")
            args = [word for word in words[2:] if not word.startswith("--topology=")]
            if kind == "gpu":
                found.append(_gpu(path.name, int(size.removesuffix("GB")), 1, args))
                continue
            slices, _, kind = kind.rpartition("*")
            chips = int(slices or 1)
            for side in size.split("x"):
                chips *= int(side)
            found.append(_tpu(path.name, kind, chips, args, size))
    return found


EXAMPLES = [
    *_of_launch_readme(),
    *_of_manifests(),
    *_of_schedulers(),
    *_of_plans(),
]


def _config(args: tuple[str, ...]) -> ml_collections.ConfigDict:
    left, overrides = flags.split(args)
    (name,) = [arg.split("=")[1] for arg in left if arg.startswith("--config=")]
    config = flags.load(name.replace("configs/", f"{ROOT}/configs/"))
    flags.override(config, overrides)
    return config


def test_all_places_have_their_example():
    places = {example.place for example in EXAMPLES}
    assert places >= {"tpu.sh", "xpk", "gke-tpu.yaml", "gke-gpu.yaml", "sky.yaml"}
    assert places >= {"slurm.sbatch", "README.md", "scaling.md"}


@pytest.mark.slow  # The paper's network takes half a minute to trace.
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.place)
def test_an_example_fits_its_machine(example):
    config = _config(example.flags)
    build.check(config, num_devices=example.chips)
    parts = example.chips * config.optim.accumulate
    share = _estimate(config.to_json_best_effort(), example.chips, example.flags)
    assert share < example.memory, f"{parts} parts need {share / 2**30:.1f} GiB each"


@functools.cache
def _estimate(_: str, chips: int, args: tuple[str, ...]) -> float:
    """Returns the bytes of one chip, by a walk through what it computes alone."""
    config = _config(args).unlock()
    fsdp = config.parallel.fsdp
    config.train.batch_size //= chips
    config.parallel.fsdp = 1
    step = steps.training_step(config, topology.find("gpu:80GB"))
    state, _batch = step.arguments
    shared = roofline.tree_bytes(state) * (1 - 1 / fsdp)
    return roofline.peak_bytes(step.traced.jaxpr) - shared
