"""Types that the whole package shares.

Axis names used in shapes: `b` images of a batch, `h` and `w` pixels, `c` channels,
`T` levels of a noise schedule, `n` steps of a sampler.
"""

from collections.abc import Callable
from typing import Any, TypedDict

from jaxtyping import Array, Float, UInt8

Params = Any
"""A tree of network weights, nested dicts of arrays."""

PredictFn = Callable[
    [Float[Array, "b h w c"], Float[Array, "b h w c"], Float[Array, " b"]],
    Float[Array, "b h w c"],
]
"""`predict(x, y_t, gamma) -> y_0`: the clean picture by the network."""

NetworkFn = PredictFn
"""`network(x, y_t, gamma)`: noise, velocity or picture, by the objective."""


class Batch(TypedDict):
    """The pictures of a task, the only input of the rest of the package.

    Attributes:
      x: the degraded picture, the input of the model.
      hole: 1 where `x` has no picture; all 0 for colorization, JPEG and paired data.
    """

    y: UInt8[Array, "b h w 3"]
    x: UInt8[Array, "b h w 3"]
    hole: UInt8[Array, "b h w 1"]
