"""The held-out loss is a mean over the pictures, and over nothing else."""

import jax
import numpy as np
import pytest

from palette_jax import processes
from palette_jax.config import build
from palette_jax.configs import uncrop
from palette_jax.programs import train


@pytest.fixture(scope="module")
def params() -> dict:
    shapes = jax.eval_shape(
        lambda: build.init_params(jax.random.key(0), _config(batch_size=4))
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes
    )


def _config(*, batch_size: int, num_eval: int = 5):
    config = uncrop.get_config("tiny")
    with config.unlocked():
        config.data.update({"image_size": 8, "num_eval": num_eval})
        config.model.update(
            {
                "base_features": 8,
                "feature_multipliers": (1,),
                "attention": "none",
                "norm_groups": 4,
            }
        )
        config.eval.batch_size = batch_size
    return config


def _loss(params: dict, **options: int) -> float:
    config = _config(**options)
    held_out = train._HeldOut(config, build.make_mesh(config), ())
    loss = held_out.loss(params, processes.StopFlag())
    assert loss is not None
    return loss


def test_padding_does_not_count(params: dict) -> None:
    # In batches of 4 and 8, three rows are black pictures that fill up the last one.
    losses = [_loss(params, batch_size=size) for size in (4, 8, 20)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_what_padded_rows_hold_does_not_matter(params: dict) -> None:
    config = _config(batch_size=8)
    held_out = train._HeldOut(config, build.make_mesh(config), ())
    stop = processes.StopFlag()
    before = held_out.loss(params, stop)
    (batch,) = held_out._batches
    assert batch["valid"].tolist() == [True] * 5 + [False] * 3
    for name in ("x", "y"):
        batch[name] = np.where(batch["valid"][:, None, None, None], batch[name], 255)
    assert held_out.loss(params, stop) == before


def test_it_is_the_mean_of_single_pictures(params: dict) -> None:
    config = _config(batch_size=8)
    held_out = train._HeldOut(config, build.make_mesh(config), ())
    stop = processes.StopFlag()
    whole = held_out.loss(params, stop)
    (batch,) = held_out._batches
    valid, single = batch["valid"].copy(), []
    for index in np.flatnonzero(valid):
        batch["valid"] = np.arange(len(valid)) == index
        single.append(held_out.loss(params, stop))
    assert whole == pytest.approx(np.mean(single), rel=1e-5)
    assert np.std(single) > 0.01 * whole  # They differ, so the weights of each show.


def test_padding_is_not_in_previews(params: dict) -> None:
    sheets = []
    for count in (5, 8):  # Of 5 pictures, in a batch of 8.
        config = _config(batch_size=8)
        config.train.num_previews = count
        held_out = train._HeldOut(config, build.make_mesh(config), ())
        held_out._restore = lambda params, batch: batch["y"]
        sheets.append(held_out.preview(params))
    np.testing.assert_array_equal(*sheets)
