"""From a checkpoint to a `Restorer`, for pictures of a user's own."""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from etils import epath

from palette_jax import build, parallel
from palette_jax.config import from_dict, task_names
from palette_jax.diffusion.samplers import Sampler
from palette_jax.restoration.restorer import Restorer
from palette_jax.training import checkpoints
from palette_jax.types import Params


def load_weights(
    checkpoint: epath.PathLike,
) -> tuple[ml_collections.ConfigDict, Params, int]:
    """Loads the averaged weights of a run, its newest that can be read.

    Args:
      checkpoint: the folder of a run, or of its checkpoints.

    Returns:
      The config it was trained with, the weights, whole on each device, and their step.

    Raises:
      CheckpointError: if there is none that can be read.
    """
    folder = epath.Path(checkpoint)
    if (folder / "checkpoints").exists():
        folder = folder / "checkpoints"
    config = from_dict(checkpoints.load_config(folder))
    shapes = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
    whole = parallel.replicated(parallel.make_mesh())
    params, step = checkpoints.restore_params(
        folder,
        parallel.with_shardings(shapes, jax.tree.map(lambda _: whole, shapes)),
    )
    return config, params, step


def load_restorer(checkpoint: epath.PathLike) -> Restorer:
    """Returns a `Restorer` with the weights that `load_weights` loads."""
    config, params, step = load_weights(checkpoint)

    def make_sampler(steps: Mapping[str, Any]) -> Sampler:
        asked_for = from_dict(config.to_dict())
        asked_for.sample.update(steps)
        return build.make_sampler(asked_for)

    return Restorer(
        build.make_predictor(config)(params),
        make_sampler,
        image_size=config.data.image_size,
        task_names=task_names(config),
        clip=config.sample.clip,
        about={"checkpoint": str(checkpoint), "step": step},
    )
