"""LPIPS (Zhang et al. 2018, version 0.1): a learned distance of pairs.

Most papers report it with AlexNet, some papers on restoration with VGG-16.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Float64, UInt8

from palette_jax.evaluation.metrics import weight_files
from palette_jax.evaluation.metrics.extractor import Extractor
from palette_jax.evaluation.metrics.layers import conv_relu, folded_params, max_pool
from palette_jax.torch_file import read_torch

MIN_SIDE = 31  # The second pooling of shorter sides is empty.
_SHIFT = np.array([[[[-0.030, -0.088, -0.188]]]], np.float32)
_SCALE = np.array([[[[0.458, 0.448, 0.450]]]], np.float32)


def load(
    backbone: epath.PathLike,
    linear: epath.PathLike,
    *,
    vgg: bool = False,
    **options: Any,
) -> Extractor:
    """Returns the distance: call it with two sets of pictures and read "lpips".

    Pictures keep their size; a side shorter than 31 pixels raises `MetricError`.

    Args:
      backbone: torchvision's weights, `weight_files.find("alexnet")` or "vgg16".
      linear: the weights of the channels, `weight_files.find("lpips")` or "lpips_vgg".
      vgg: whether the backbone is VGG-16.
      options: `batch_size` and `mesh` of `Extractor`.

    Raises:
      WeightsError: if a file holds other weights, or is damaged.
    """
    state = {**read_torch(linear), **read_torch(backbone)}
    network = Lpips(vgg)

    def keys(layer: str) -> tuple[str, str | None]:
        return (f"{layer}.model.1" if layer.startswith("lin") else layer), None

    return Extractor(
        prepare,
        network.apply,
        folded_params(state, backbone, network, 0.0, keys, num_inputs=2),
        sha256=f"{weight_files.sha256(backbone)}+{weight_files.sha256(linear)}",
        outputs=("lpips",),
        **options,
    )


def of_consecutive(
    samples: UInt8[np.ndarray, "samples n h w 3"], lpips: Extractor
) -> Float64[np.ndarray, " n"]:
    """Returns the mean LPIPS between each sample and the next; high is diverse."""
    shape = (-1, *samples.shape[2:])
    distances = lpips(samples[:-1].reshape(shape), samples[1:].reshape(shape))["lpips"]
    return distances.astype(np.float64).reshape(len(samples) - 1, -1).mean(0)


def prepare(pictures: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Returns the pictures as LPIPS scales them."""
    x = 2 * (pictures.astype(jnp.float32) / 255) - 1
    return (x - _SHIFT) / _SCALE


class Lpips(nn.Module):
    """The distance, with the layer names of both files.

    Attributes:
      vgg: whether the backbone is VGG-16, else AlexNet.
    """

    vgg: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], y: Float[Array, "b h w 3"]
    ) -> dict[str, Float[Array, " b"]]:
        """Returns the distance of each pair, 0 where they are equal."""
        backbone = (_Vgg16 if self.vgg else _AlexNet)(name="features")
        pairs = zip(backbone(x), backbone(y), strict=True)
        total = jnp.zeros(len(x))
        for i, (first, second) in enumerate(pairs):
            squares = jnp.square(_unit(first) - _unit(second))
            linear = nn.Conv(1, (1, 1), use_bias=False, name=f"lin{i}")
            total += linear(squares).mean((1, 2, 3))
        return {"lpips": total}


class _AlexNet(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> list[Array]:
        h = [conv_relu(x, "0", 64, 11, stride=4, padding=2)]
        h.append(conv_relu(max_pool(h[-1]), "3", 192, 5, padding=2))
        h.append(conv_relu(max_pool(h[-1]), "6", 384, 3))
        h.append(conv_relu(h[-1], "8", 256, 3))
        h.append(conv_relu(h[-1], "10", 256, 3))
        return h


class _Vgg16(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> list[Array]:
        h, index, outputs = x, 0, []
        for block, convs in enumerate((2, 2, 3, 3, 3)):
            if block:
                h = nn.max_pool(h, (2, 2), (2, 2))
                index += 1
            for _ in range(convs):
                h = conv_relu(h, str(index), min(64 * 2**block, 512), 3)
                index += 2  # The file's names count the activations.
            outputs.append(h)
        return outputs


def _unit(h: Array) -> Array:
    """Returns the channels of each position, normalized to length 1."""
    return h / (jnp.linalg.norm(h, axis=-1, keepdims=True) + 1e-10)
