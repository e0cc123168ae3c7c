"""The rows of a frozen network do not depend on how pictures are put into batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from palette_jax.evaluation.metrics.extractor import Extractor

TRACES = []


def make(**options) -> Extractor:
    def apply(params: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        TRACES.append(x.shape)
        return {"mean": x.mean((1, 2)) * params, "first": x[:, 0, 0, 0]}

    def prepare(pictures: jax.Array) -> jax.Array:
        shape = (len(pictures), 4, 4, 3)
        return jax.image.resize(pictures.astype(jnp.float32), shape, "linear")

    return Extractor(
        prepare,
        apply,
        np.full((1, 3), 2, np.float32),
        sha256="",
        outputs=("mean", "first"),
        **options,
    )


def pictures(count: int, size: int = 6) -> np.ndarray:
    return np.random.default_rng(count).integers(
        0, 256, (count, size, size, 3), np.uint8
    )


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 5, 8, 11])
def test_rows_do_not_depend_on_batches_and_devices(devices: int, count: int) -> None:
    mesh = Mesh(np.array(jax.devices()[:devices]).reshape(-1, 1), ("data", "fsdp"))
    whole = make(batch_size=count)(pictures(count))
    split = make(batch_size=3, mesh=mesh)(pictures(count))
    assert split["mean"].shape == (count, 3) and split["first"].shape == (count,)
    for name in whole:
        np.testing.assert_allclose(split[name], whole[name], rtol=1e-6)


def test_the_network_is_compiled_once_for_all_sizes_and_counts() -> None:
    extract = make(batch_size=4)
    TRACES.clear()
    for count, size in ((4, 6), (3, 6), (9, 6), (2, 8)):
        extract(pictures(count, size))
    assert TRACES == [(4, 4, 4, 3)]
