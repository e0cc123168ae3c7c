"""What the frozen networks have in common: folded convolutions, and how they load.

A batch norm that is never trained again is a factor and a shift of each channel. They
are multiplied into the kernel before it, so that a network is convolutions alone.
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

KeysOf = Callable[[str], tuple[str, str | None]]
"""From a layer's path, such as "Mixed_5b.branch1x1", to the keys of its weights and of
the batch norm behind it, if there is one; both without their last part."""


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
    *,
    stride: int = 1,
    padding: str | int = "SAME",
) -> Float[Array, "b h2 w2 c_out"]:
    """Returns a convolution with its bias, after the activation."""
    return nn.relu(conv(h, name, features, size, stride=stride, padding=padding))


def max_pool(
    h: Float[Array, "b h w c"], *, padding: tuple[int, int] = (0, 0)
) -> Float[Array, "b h2 w2 c"]:
    """Returns the maxima of windows of 3 x 3, every second one."""
    return nn.max_pool(h, (3, 3), (2, 2), (padding, padding))


def take_over(
    state: State,
    path: epath.PathLike,
    network: nn.Module,
    eps: float,
    keys: KeysOf,
    *,
    num_inputs: int = 1,
) -> Params:
    """Returns the parameters of a network, with every batch norm folded away.

    Args:
      state: the tensors of the file.
      path: of the file, for the message.
      network: whose layers are named as in the file.
      eps: of the batch norms.
      keys: of a layer.
      num_inputs: how many pictures the network takes at once.

    Raises:
      WeightsError: if the file lacks a key, or a tensor has another shape.
    """
    x = [jnp.zeros((1, 224, 224, 3))] * num_inputs
    shapes: Any = jax.eval_shape(network.init, jax.random.key(0), *x)["params"]
    flat: Any = flax.traverse_util.flatten_dict(shapes)
    params = {}
    for place, leaf in flat.items():
        *module, kind = place
        conv_key, norm_key = keys(".".join(module))
        try:
            layer = _folded(state, conv_key, norm_key, eps)
        except KeyError as error:
            raise WeightsError(
                f"{path}: expected the weights of {type(network).__name__}, got a file"
                f" without {error.args[0]}; it holds {len(state)} tensors, such as"
                f" {next(iter(state), 'none')}"
            ) from None
        if layer[kind].shape != leaf.shape:
            raise WeightsError(
                f"{path}: expected {conv_key} to make a {kind} of shape {leaf.shape} in"
                f" {type(network).__name__}, got {layer[kind].shape}"
            )
        params[place] = layer[kind]
    return {"params": flax.traverse_util.unflatten_dict(params)}


def _folded(
    state: State, conv_key: str, norm_key: str | None, eps: float
) -> dict[str, np.ndarray]:
    """Returns kernel and bias, computed in float64."""
    weight = state[f"{conv_key}.weight"].astype(np.float64)
    kernel = np.moveaxis(weight, (0, 1), (-1, -2))  # OIHW there, HWIO here.
    bias = np.zeros(kernel.shape[-1])
    if norm_key is None:
        bias = state.get(f"{conv_key}.bias", bias)
    else:
        norm = {
            name: state[f"{norm_key}.{name}"].astype(np.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        }
        factor = norm["weight"] / np.sqrt(norm["running_var"] + eps)
        kernel = kernel * factor
        bias = norm["bias"] - norm["running_mean"] * factor
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
