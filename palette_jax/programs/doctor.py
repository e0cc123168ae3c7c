"""`palette-jax doctor`: checks the installation and prints how to fix it."""

import argparse
import importlib.util
import os
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from etils import epath

from palette_jax import installation, parallel
from palette_jax.config.build_restorer import (
    SHIPPED,
    checkpoints_of,
    load_weights,
    shipped,
)
from palette_jax.config.values import from_dict, task_names
from palette_jax.errors import UserError
from palette_jax.installation import Finding
from palette_jax.pictures import files
from palette_jax.training import checkpoints


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
        ("versions", installation.versions),
        ("devices", installation.devices),
        ("memory and disk", installation.memory_and_disk),
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
                print(f"         fix: {finding.fix}")
    print("all is well" if not wrong else f"{wrong} problems, see above")
    return 1 if wrong else 0


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
        yield Finding("ok", "none given; --checkpoint=DIR checks one")
    elif named.endswith(".safetensors"):
        yield from _weights_file(epath.Path(named))
    else:
        yield from _run(epath.Path(named))


def _run(folder: epath.Path) -> Iterator[Finding]:
    """Checks the files of every checkpoint of a run; restores none."""
    folder = checkpoints_of(folder)
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
            fix += f"; commands use the newest sound one, step {sound[0]}"
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
            f"{path} has numbers that are not finite",
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
