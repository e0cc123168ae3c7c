"""Reads and writes `.safetensors` files: named tensors, and nothing that could run."""

import json
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from palette_jax import atomic
from palette_jax.errors import WeightsError
from palette_jax.types import Params

_FORMAT = "palette_jax"
_MAX_HEADER = 100_000_000
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_safetensors(
    path: epath.PathLike,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the tensors by name, and what the file says of itself.

    Raises:
      WeightsError: if the file is cut off, or of another kind.
    """
    import safetensors

    metadata = _metadata(path)
    try:
        # The package's own reader for numpy knows no bfloat16.
        arrays = {
            name: np.frombuffer(view["data"], _DTYPES[view["dtype"]]).reshape(
                view["shape"]
            )
            for name, view in safetensors.deserialize(epath.Path(path).read_bytes())
        }
    except Exception as error:
        raise _damaged(path, error) from error
    return arrays, metadata


def _metadata(path: epath.PathLike) -> dict[str, str]:
    """Returns what the header says of the file, without reading the tensors."""
    try:
        with epath.Path(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _MAX_HEADER:  # The format's own limit.
                raise ValueError(f"a header of {length} bytes")
            return json.loads(file.read(length)).get("__metadata__", {})
    except (ValueError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: epath.PathLike, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path}: expected a whole safetensors file, got one that is cut off, damaged"
        f" or of another kind ({error}); fetch it again"
    )


def export_safetensors(
    params: Params, path: epath.PathLike, *, config: Mapping[str, Any] | None = None
) -> None:
    """Writes weights under names such as `down_0_0/conv_in/kernel`.

    Args:
      params: the weights.
      path: of the new file.
      config: the configuration they were trained with; written beside them as JSON, so
        that `import_weights` of the file needs no other.
    """
    import safetensors.numpy

    flat = flax.traverse_util.flatten_dict(jax.device_get(params), sep="/")
    # The writer takes the memory as it lies: a transposed view would come out wrong.
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in flat.items()}
    metadata = {"format": _FORMAT, "config": json.dumps(config or {})}
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, safetensors.numpy.save(arrays, metadata))


def is_ours(path: epath.PathLike) -> bool:
    """Tells whether `export_safetensors` wrote the file."""
    return _metadata(path).get("format") == _FORMAT


def import_safetensors(path: epath.PathLike) -> tuple[Params, dict[str, Any]]:
    """Reads what `export_safetensors` wrote: the weights and the configuration.

    Raises:
      WeightsError: if the file is damaged, or another program wrote it.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != _FORMAT:
        raise WeightsError(
            f"{path}: expected a file that `palette-jax export` wrote, got one with"
            f" the format {metadata.get('format')!r}"
        )
    params = flax.traverse_util.unflatten_dict(tensors, sep="/")
    return params, json.loads(metadata["config"])
