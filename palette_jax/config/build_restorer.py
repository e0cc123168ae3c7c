"""Builds a `Restorer` for a user's pictures from weights."""

import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from palette_jax import parallel
from palette_jax.config import build
from palette_jax.config.values import from_dict, task_names
from palette_jax.diffusion.samplers import Sampler
from palette_jax.errors import UserError
from palette_jax.interop.safetensors_file import (
    import_safetensors,
    is_ours,
    read_metadata,
)
from palette_jax.restoration.restorer import Restorer
from palette_jax.tasks import TASKS
from palette_jax.training import checkpoints
from palette_jax.types import Params

SHIPPED = pathlib.Path(__file__).parent.parent / "weights"


def load_weights(
    checkpoint: epath.PathLike,
) -> tuple[ml_collections.ConfigDict, Params, int | None]:
    """Loads the averaged weights of a file, or of a run's newest readable checkpoint.

    Args:
      checkpoint: the folder of a run, or of its checkpoints, or a file of `palette-jax
        export`.

    Returns:
      The config of the training, the weights, complete on each device, and their step,
      None for files.

    Raises:
      UserError: if there are no readable weights.
    """
    path, config = epath.Path(checkpoint), load_config(checkpoint)
    if _is_weights(path):
        return config, _load_file(path, config), None
    folder = checkpoints_of(path)
    return config, *checkpoints.restore_params(folder, _abstract_params(config))


def load_config(checkpoint: epath.PathLike) -> ml_collections.ConfigDict:
    """Returns only the config of `load_weights`; touches no device."""
    path = epath.Path(checkpoint)
    if _is_weights(path):
        return _file_config(path)
    return from_dict(checkpoints.load_config(checkpoints_of(path)))


def _is_weights(path: epath.Path) -> bool:
    return path.suffix == ".safetensors" and not path.is_dir()


def checkpoints_of(folder: epath.Path) -> epath.Path:
    """Returns the folder of the checkpoints of a run, or of its checkpoints.

    Raises:
      UserError: for a file.
    """
    if folder.is_file():
        raise UserError(
            "expected the folder of a run or a .safetensors file, got the file"
            f" {folder}; for weights of other projects, make a run with `palette-jax"
            f" import {folder} --out=RUN`"
        )
    inside = folder / "checkpoints"
    return inside if inside.exists() else folder


def load_restorer(
    checkpoint: epath.PathLike | None, *, task: str | None = None
) -> Restorer:
    """Returns a `Restorer` with the weights that `load_weights` loads.

    Uses the compile cache, as the commands do.

    Args:
      checkpoint: as for `load_weights`; None for the weights of the package.
      task: selects the package's weights with this task and the fewest others; None
        selects those with the most tasks.

    Raises:
      UserError: if there are no such weights.
    """
    parallel.cache_compilations()
    named: dict[str, Any] = {"checkpoint": epath.Path(checkpoint or "").name}
    if checkpoint is None:
        checkpoint = find_shipped(task)
        named = {"weights": checkpoint.name}
    config, params, step = load_weights(checkpoint)

    def make_sampler(steps: Mapping[str, Any]) -> Sampler:
        own = from_dict(config.to_dict())
        if not config.distill.steps:  # A student has learned its steps.
            own.sample.update(steps)
        return build.make_sampler(own)

    return Restorer(
        build.make_predictor(config, mesh=parallel.make_mesh())(params),
        make_sampler,
        image_size=config.data.image_size,
        task_names=task_names(config),
        clip=config.sample.clip,
        knows_hints=config.data.hints,
        gray=config.data.gray,
        student_steps=config.distill.steps,
        about={**named, "step": step, "weights_crc32": crc32(params)},
    )


def shipped() -> Iterator[tuple[pathlib.Path, list[str]]]:
    """Yields the files of weights that come with the package, and their tasks.

    Raises:
      UserError: if one cannot be read.
    """
    for path in sorted(SHIPPED.glob("*.safetensors")):
        try:
            config = _file_config(epath.Path(path))
        except Exception as error:  # Damaged files raise any exception.
            raise UserError(
                f"expected weights in {path}, got a damaged or foreign file ({error});"
                " install palette_jax again"
            ) from error
        yield path, task_names(config)


def find_shipped(task: str | None) -> pathlib.Path:
    """Returns the package's weights that fit a task best.

    Raises:
      UserError: if there are none.
    """
    there = list(shipped())
    if task is None and there:
        return max(there, key=lambda entry: len(entry[1]))[0]
    for wanted in (task, TASKS[task].like if task else None):
        fitting = [entry for entry in there if wanted in entry[1]]
        if fitting:
            return min(fitting, key=lambda entry: len(entry[1]))[0]
    known = ", ".join(sorted({name for _, names in there for name in names}))
    raise UserError(
        "expected --checkpoint, got none, and the weights of the package know"
        f" {f'{known}, not {task}' if there else 'no task: there are none'}; name the"
        " folder of a run (its --workdir) or a .safetensors file, or make a run with"
        " `palette-jax import` or `palette-jax train`"
    )


def _file_config(path: epath.Path) -> ml_collections.ConfigDict:
    if not path.exists():
        raise UserError(
            f"expected weights at {path}, got no such file; name the --workdir of a run"
            " or a file of `palette-jax export`"
        )
    values = json.loads(read_metadata(path)["config"]) if is_ours(path) else {}
    if "data" not in values:
        raise UserError(
            f"expected the configuration of a run in {path}, got only weights; write"
            " the file with `palette-jax export`"
        )
    return from_dict(values)


def _load_file(path: epath.Path, config: ml_collections.ConfigDict) -> Params:
    params, _ = import_safetensors(path)
    abstract = _abstract_params(config)
    wanted, found = (jax.tree.map(np.shape, tree) for tree in (abstract, params))
    if wanted != found:
        raise UserError(
            f"expected the network of its configuration in {path}, got weights of"
            " another network; export the run again"
        )
    return jax.tree.map(
        lambda leaf, to: jax.device_put(np.asarray(leaf, to.dtype), to.sharding),
        params,
        abstract,
    )


def _abstract_params(config: ml_collections.ConfigDict) -> Params:
    """Returns shapes, types and shardings of weights, replicated on all devices."""
    shapes = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
    whole = parallel.replicated(parallel.make_mesh())
    return parallel.with_shardings(shapes, jax.tree.map(lambda _: whole, shapes))


def crc32(params: Params) -> int:
    """Returns a CRC-32 of the weights."""
    crc = 0
    for leaf in jax.tree.leaves(params):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return crc
