"""Reads and writes `.safetensors` files: named tensors, no code."""

import json
import re
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.typing import DTypeLike

from palette_jax import atomic
from palette_jax.errors import WeightsError
from palette_jax.types import Params

FORMAT = "palette_jax"
_MAX_HEADER = 100_000_000
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
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
    """Returns the tensors by name, and the file's metadata.

    Raises:
      WeightsError: if the file is truncated, or of another kind.
    """
    import safetensors

    metadata = read_metadata(path)
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


def read_metadata(path: epath.PathLike) -> dict[str, str]:
    """Returns the metadata, without reading the tensors.

    Raises:
      WeightsError: if the file is truncated, or of another kind.
    """
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
        f"{path}: expected a complete safetensors file, got one that is truncated,"
        f" damaged or of another kind ({error}); download it again"
    )


def export_safetensors(
    params: Params,
    path: epath.PathLike,
    *,
    config: Mapping[str, Any] | None = None,
    dtype: DTypeLike = jnp.float32,
) -> None:
    """Writes weights under names such as `down_0_0/conv_in/kernel`.

    The metadata holds the config of their training as JSON, for `import_weights`.
    """
    import safetensors.numpy

    flat = flax.traverse_util.flatten_dict(jax.device_get(params), sep="/")
    # The writer copies the memory: a transposed view would be written wrong.
    arrays = {name: np.ascontiguousarray(leaf, dtype) for name, leaf in flat.items()}
    metadata = {"format": FORMAT, "config": json.dumps(config or {})}
    atomic.write_bytes(path, safetensors.numpy.save(arrays, metadata))


def part_name(stem: str, index: int, count: int) -> str:
    """Returns the name of a part, counted from 1."""
    return f"{stem}-{index:05}-of-{count:05}.safetensors"


def is_ours(path: epath.PathLike) -> bool:
    """Returns whether `export_safetensors` wrote the file."""
    return read_metadata(path).get("format") == FORMAT


def import_safetensors(path: epath.PathLike) -> tuple[Params, dict[str, Any]]:
    """Reads the weights and the configuration that `export_safetensors` wrote.

    For weights in parts, name any part.

    Raises:
      WeightsError: if a file is damaged or missing, or from another program.
    """
    tensors: dict[str, np.ndarray] = {}
    metadata: dict[str, str] = {}
    for part in _parts(epath.Path(path)):
        more, metadata = read_safetensors(part)
        if metadata.get("format") != FORMAT:
            raise WeightsError(
                f"{part}: expected a file of `palette-jax export`, got one with the"
                f" format {metadata.get('format')!r}"
            )
        tensors |= more
    params = flax.traverse_util.unflatten_dict(tensors, sep="/")
    return params, json.loads(metadata["config"])


def _parts(path: epath.Path) -> list[epath.Path]:
    """Returns the file, or all parts if it is one part."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    stem, count = match[1], int(match[3])
    names = [part_name(stem, i + 1, count) for i in range(count)]
    missing = [name for name in names if not (path.parent / name).exists()]
    if missing:
        raise WeightsError(
            f"{path}: expected all {count} parts of the weights in its folder, got no"
            f" {', '.join(missing)}; download them too"
        )
    return [path.parent / name for name in names]
