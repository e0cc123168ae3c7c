"""Checks of the installation: packages, devices, memory and disk."""

import importlib.metadata
import os
import pathlib
import platform
import shutil
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from packaging.requirements import Requirement

_GIB = 2**30
_EXTRAS = {
    "train": "training, and no evaluation of runs",
    "demo": "page in the browser",
}


class Finding(NamedTuple):
    """A line of the report.

    Attributes:
      state: `wrong` makes the command fail; `note` does not.
      fix: what to do about it.
    """

    state: Literal["ok", "note", "wrong"]
    what: str
    fix: str = ""


def versions() -> Iterator[Finding]:
    """Checks the packages that setup.py asks for."""
    yield Finding(
        "ok", f"Python {platform.python_version()} on {platform.platform(terse=True)}"
    )
    ours = _version("palette-jax")
    if ours is None:
        yield Finding("wrong", "palette-jax is not installed", "pip install .")
        return
    required = list(map(Requirement, importlib.metadata.requires("palette-jax") or []))
    found = []
    for requirement in required:
        name, bounds = requirement.name, requirement.specifier
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        fix = f'pip install "{name}{bounds}"'
        version = _version(name)
        if version is None:
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


def _missing(required: list[Requirement], extra: str) -> list[str]:
    return [
        requirement.name
        for requirement in required
        if requirement.marker
        and not requirement.marker.evaluate({"extra": ""})
        and requirement.marker.evaluate({"extra": extra})
        and _version(requirement.name) is None
    ]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def devices() -> Iterator[Finding]:
    """Checks that JAX computes on the devices of this machine."""
    yield from device_nodes(pathlib.Path("/dev"))
    try:
        found = jax.devices()
        kind = found[0].platform
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
    what = f"{len(found)} x {found[0].device_kind} ({kind})"
    if works:
        yield Finding("ok", what)
    else:
        yield Finding("wrong", f"{what} computes wrongly", "reinstall jax and jaxlib")
    stats = found[0].memory_stats() if kind != "cpu" else None
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


def device_nodes(folder: pathlib.Path) -> Iterator[Finding]:
    """Says which nodes of TPUs this user may not open, as in a container."""
    nodes = [*folder.glob("accel[0-9]*"), *folder.glob("vfio/*")]
    closed = [str(node) for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        yield Finding(
            "wrong",
            f"user {os.getuid()} may not open {', '.join(sorted(closed))}",
            "run as root, in a container too, as launch/gke-tpu.yaml does",
        )


def memory_and_disk() -> Iterator[Finding]:
    """Checks the free memory, and the disks of this folder and of the cache."""
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
