"""Layers of the frozen networks, with batch norms folded in.

A frozen batch norm is a factor and a shift of each channel. They are multiplied into
the kernel before it, so that a network has only convolutions.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float

from palette_jax.errors import WeightsError
from palette_jax.types import Params

State = Mapping[str, np.ndarray]
"""Tensors by PyTorch's key names."""

NamesOf = Callable[[str], tuple[str, str | None]]
"""From a layer's path, such as "Mixed_5b.branch1x1", to the key prefixes of its weights
and of the following batch norm, if there is one."""


def conv(
    h: Float[Array, "b h w c_in"],
    name: str,
    features: int,
    size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: str | int = "SAME",
) -> Float[Array, "b h2 w2 c_out"]:
    """Returns a convolution with its bias, before the activation."""
    kernel = (size, size) if isinstance(size, int) else size
    pad = padding if isinstance(padding, str) else [(padding, padding)] * 2
    return nn.Conv(features, kernel, (stride, stride), pad, name=name)(h)


def conv_relu(
    h: Float[Array, "b h w c_in"],
    name: str,
    features: int,
    size: int | tuple[int, int],
    **options: Any,
) -> Float[Array, "b h2 w2 c_out"]:
    """Returns `conv` after the activation."""
    return nn.relu(conv(h, name, features, size, **options))


def max_pool(
    h: Float[Array, "b h w c"], *, padding: tuple[int, int] = (0, 0)
) -> Float[Array, "b h2 w2 c"]:
    """Returns the maxima of windows of 3 x 3, with a stride of 2."""
    return nn.max_pool(h, (3, 3), (2, 2), (padding, padding))


def folded_params(
    state: State,
    path: epath.PathLike,
    network: nn.Module,
    eps: float,
    names: NamesOf,
    *,
    num_inputs: int = 1,
) -> Params:
    """Returns the parameters of a network with the layer names of the file.

    Every batch norm is folded in. `names` gives the tensors of a layer, and
    `num_inputs` is the number of picture arguments of the network.

    Raises:
      WeightsError: if the file lacks a key, or a tensor has another shape.
    """
    x = [jnp.zeros((1, 224, 224, 3))] * num_inputs
    shapes: Any = jax.eval_shape(network.init, jax.random.key(0), *x)["params"]
    flat: Any = flax.traverse_util.flatten_dict(shapes)
    params = {}
    for place, leaf in flat.items():
        *module, kind = place
        conv_key, norm_key = names(".".join(module))
        try:
            array = _folded(state, conv_key, norm_key, eps, kind)
        except KeyError as error:
            raise WeightsError(
                f"{path}: expected the weights of {type(network).__name__}, got a file"
                f" without {error.args[0]}; it holds {len(state)} tensors, such as"
                f" {next(iter(state), 'none')}"
            ) from None
        if array.shape != leaf.shape:
            raise WeightsError(
                f"{path}: expected {conv_key} to make a {kind} of shape {leaf.shape} in"
                f" {type(network).__name__}, got {array.shape}"
            )
        params[place] = array
    return {"params": flax.traverse_util.unflatten_dict(params)}


def _folded(
    state: State, conv_key: str, norm_key: str | None, eps: float, kind: str
) -> np.ndarray:
    """Returns the kernel or the bias, computed in float64."""

    def read(key: str) -> np.ndarray:
        return state[key].astype(np.float64)

    factor = np.ones(1)
    if norm_key is not None:
        factor = read(f"{norm_key}.weight")
        factor = factor / np.sqrt(read(f"{norm_key}.running_var") + eps)
    if kind == "kernel":  # OIHW there, HWIO here.
        array = np.moveaxis(read(f"{conv_key}.weight"), (0, 1), (-1, -2)) * factor
    elif norm_key is not None:
        array = read(f"{norm_key}.bias") - read(f"{norm_key}.running_mean") * factor
    else:
        array = read(f"{conv_key}.bias")
    return array.astype(np.float32)
