"""`palette-jax doctor`: checks the installation, and says what to do."""

import argparse
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import shutil
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from packaging.requirements import Requirement

from palette_jax import parallel
from palette_jax.config.build_restorer import SHIPPED, load_weights, shipped
from palette_jax.config.values import from_dict, task_names
from palette_jax.errors import UserError
from palette_jax.pictures import files
from palette_jax.training import checkpoints

_GIB = 2**30
_EXTRAS = {
    "train": "training, and no evaluation of runs",
    "demo": "page in the browser",
}


class Finding(NamedTuple):
    """A line of the report.

    Attributes:
      state: `wrong` makes the command fail; `note` does not.
      what: was found.
      fix: what to do about it.
    """

    state: Literal["ok", "note", "wrong"]
    what: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--checkpoint",
        metavar="DIR|FILE",
        help="folder of a run, or of its checkpoints, or a .safetensors file",
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="pictures that are meant for training"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the report; returns 1 if something is wrong."""
    parallel.cache_compilations()
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("versions", _versions),
        ("devices", _devices),
        ("memory and disk", _room),
        ("data", lambda: _data(args.data)),
        ("weights that come with the package", _shipped),
        ("checkpoint", lambda: _checkpoint(args.checkpoint)),
    ]
    wrong = 0
    for title, check in checks:
        print(title)
        for finding in check():
            wrong += finding.state == "wrong"
            print(f"  {finding.state:5}  {finding.what}")
            if finding.fix:
                print(f"         to do: {finding.fix}")
    print("all is well" if not wrong else f"{wrong} to put right, see above")
    return 1 if wrong else 0


def _versions() -> Iterator[Finding]:
    yield Finding(
        "ok", f"Python {platform.python_version()} on {platform.platform(terse=True)}"
    )
    try:
        required = importlib.metadata.requires("palette-jax") or []
        ours = importlib.metadata.version("palette-jax")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("wrong", "palette-jax is not installed", "pip install .")
        return
    found = []
    for requirement in map(Requirement, required):
        name, bounds = requirement.name, requirement.specifier
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        fix = f'pip install "{name}{bounds}"'
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("wrong", f"{name} is missing", fix)
            continue
        found.append(f"{name} {version}")
        if version not in bounds:
            yield Finding("wrong", f"expected {name} {bounds}, got {version}", fix)
    yield Finding("ok", f"palette-jax {ours} with {', '.join(sorted(found))}")
    for extra, what in _EXTRAS.items():
        missing = _missing(required, extra)
        if missing:
            yield Finding(
                "note",
                f"no {what}: {', '.join(missing)} missing",
                f"pip install 'palette-jax[{extra}]'",
            )


def _missing(required: list[str], extra: str) -> list[str]:
    """Returns the packages of an extra that are not installed."""
    missing = []
    for requirement in map(Requirement, required):
        marker = requirement.marker
        if not marker or marker.evaluate({"extra": ""}):
            continue
        if marker.evaluate({"extra": extra}) and not _is_installed(requirement.name):
            missing.append(requirement.name)
    return missing


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _devices() -> Iterator[Finding]:
    yield from _device_nodes(pathlib.Path("/dev"))
    try:
        devices = jax.devices()
        kind = devices[0].platform
        product = jnp.arange(9.0).reshape(3, 3) @ jnp.eye(3)
        works = bool((np.asarray(product) == np.arange(9.0).reshape(3, 3)).all())
    except RuntimeError as error:
        yield Finding(
            "wrong",
            f"JAX cannot start its devices: {str(error).splitlines()[0]}",
            "unset JAX_PLATFORMS, or install JAX for your device: palette-jax[gpu] or"
            " palette-jax[tpu]",
        )
        return
    what = f"{len(devices)} x {devices[0].device_kind} ({kind})"
    if works:
        yield Finding("ok", what)
    else:
        yield Finding("wrong", f"{what} computes wrongly", "reinstall jax and jaxlib")
    stats = devices[0].memory_stats() if kind != "cpu" else None
    if stats and "bytes_limit" in stats:
        limit, used = stats["bytes_limit"] / _GIB, stats["bytes_in_use"] / _GIB
        yield Finding("ok", f"{limit:.1f} GiB on each for JAX, {used:.1f} in use")
    if kind == "cpu":
        by_hand = os.environ.get("JAX_PLATFORMS") == "cpu"
        for path, name, extra in (
            ("/dev/nvidia0", "an NVIDIA GPU", "gpu"),
            ("/dev/accel0", "a TPU", "tpu"),
            ("/dev/vfio/0", "a TPU", "tpu"),
        ):
            if os.path.exists(path) and not by_hand:
                yield Finding(
                    "wrong",
                    f"this machine has {name}, which JAX does not use",
                    f'pip install "palette-jax[{extra}]", and see that the driver and'
                    " no other program has it",
                )
                break


def _device_nodes(folder: pathlib.Path) -> Iterator[Finding]:
    """Says which nodes of TPUs this user may not open, as in a container."""
    nodes = [*folder.glob("accel[0-9]*"), *folder.glob("vfio/*")]
    closed = [str(node) for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        yield Finding(
            "wrong",
            f"user {os.getuid()} may not open {', '.join(sorted(closed))}",
            "run as root, in a container too, as launch/gke-tpu.yaml does",
        )


def _room() -> Iterator[Finding]:
    memory = _memory()
    if memory is not None:
        total, free = memory
        what = f"{free:.1f} of {total:.1f} GiB of memory are free"
        if free > 2:
            yield Finding("ok", what)
        else:
            yield Finding("note", what, "close other programs")
    cache = jax.config.values["jax_compilation_cache_dir"] or "."
    for what, place in (("here", "."), ("compiled programs", cache)):
        path = pathlib.Path(place).expanduser().absolute()
        while not path.exists():
            path = path.parent
        room = shutil.disk_usage(path).free / _GIB
        if not os.access(path, os.W_OK):
            yield Finding(
                "wrong",
                f"{what}: {path} cannot be written",
                "give yourself the right to, or work somewhere else",
            )
        elif room < 5:
            yield Finding(
                "note",
                f"{what}: {path} has {room:.1f} GiB left",
                "make room: a checkpoint of the paper's network takes 9 GB",
            )
        else:
            yield Finding("ok", f"{what}: {path} has {room:.0f} GiB left")


def _memory() -> tuple[float, float] | None:
    """Returns the memory of the machine and how much of it is free; Linux only."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kib["MemTotal"] / 2**20, kib["MemAvailable"] / 2**20


def _data(folder: str | None) -> Iterator[Finding]:
    if folder is not None:
        yield from _pictures(pathlib.Path(folder))
    for package in ("skimage", "sklearn"):
        if importlib.util.find_spec(package) is None:
            yield Finding(
                "note",
                f"{package}, whose photographs `tiny` configs train on, is missing",
                "pip install scikit-image scikit-learn",
            )
    place = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
    prepared = place.expanduser()
    names = sorted(p.name for p in prepared.iterdir()) if prepared.is_dir() else []
    names = [name for name in names if name != "downloads"]
    if names:
        yield Finding("ok", f"{prepared} has {', '.join(names)}")
    else:
        yield Finding(
            "note",
            f"no data sets in {prepared}",
            "only for the paper's variants: docs of tensorflow-datasets, imagenet2012",
        )


def _pictures(folder: pathlib.Path) -> Iterator[Finding]:
    if not folder.is_dir():
        yield Finding("wrong", f"there is no folder {folder}", "give another --data")
        return
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    sample = paths[:: max(len(paths) // 100, 1)][:100]
    broken, sides = [], []
    for path in sample:
        try:
            sides.append(min(files.read(path).pixels.shape[:2]))
        except UserError as error:
            broken.append(str(error))
    if not sides:
        yield Finding("wrong", f"no pictures in {folder}", "give another --data")
        return
    yield Finding(
        "ok",
        f"{len(paths)} files in {folder}; of {len(sample)}, {len(sides)} are pictures,"
        f" shorter sides from {min(sides)} to {max(sides)}",
    )
    if broken:
        yield Finding("note", f"e.g. {broken[0]}", "training skips and counts them")


def _checkpoint(named: str | None) -> Iterator[Finding]:
    if named is None:
        yield Finding("ok", "not asked for; --checkpoint=DIR checks one")
    elif named.endswith(".safetensors"):
        yield from _weights_file(epath.Path(named))
    else:
        yield from _run(epath.Path(named))


def _run(folder: epath.Path) -> Iterator[Finding]:
    """Checks the files of every checkpoint of a run; restores none."""
    if (folder / "checkpoints").exists():
        folder = folder / "checkpoints"
    try:
        checked = checkpoints.verify(folder)
        config = from_dict(checkpoints.load_config(folder))
    except (UserError, OSError, ValueError) as error:
        yield Finding(
            "wrong",
            f"{folder} cannot be used: {str(error).splitlines()[0]}",
            "give the folder of a run, its --workdir",
        )
        return
    size, last = config.data.image_size, config.train.num_steps
    tasks = ", ".join(task_names(config))
    yield Finding("ok", f"{folder}: {tasks} at {size} x {size}, {last} steps in all")
    sound = [step for step, problem in checked if problem is None]
    for step, problem in checked:
        if problem is None:
            yield Finding("ok", f"step {step}: all files are as they were written")
            continue
        fix = f"move {folder / str(step)} away"
        if sound:
            fix += f"; the newest that is sound, step {sound[0]}, is taken"
        yield Finding("wrong", f"step {step}: {problem}", fix)


def _weights_file(path: epath.Path) -> Iterator[Finding]:
    try:
        config, params, _ = load_weights(path)
    except (UserError, OSError) as error:
        yield Finding("wrong", str(error), "write it again with `palette-jax export`")
        return
    size, tasks = config.data.image_size, ", ".join(task_names(config))
    if all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        yield Finding("ok", f"{path}: {tasks} at {size} x {size}, all numbers finite")
    else:
        yield Finding(
            "wrong",
            f"{path} holds numbers that are not finite",
            "its training has failed: export an earlier checkpoint",
        )


def _shipped() -> Iterator[Finding]:
    try:
        there = list(shipped())
    except UserError as error:
        yield Finding("wrong", str(error), "pip install --force-reinstall palette-jax")
        return
    for path, tasks in there:
        about = path.with_name("README.md")
        yield Finding("ok", f"{path.name}: {', '.join(tasks)}; {about} says how well")
    if not there:
        yield Finding(
            "note",
            f"no weights come with this installation (in {SHIPPED})",
            "give --checkpoint to the commands that restore",
        )
