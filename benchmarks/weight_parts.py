"""Writes weights as several safetensors files of limited size."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from etils import epath

from palette_jax import atomic
from palette_jax.errors import WeightsError
from palette_jax.interop.safetensors_file import FORMAT, part_name
from palette_jax.types import Params


def export_parts(
    params: Params,
    path: epath.PathLike,
    *,
    config: Mapping[str, Any],
    max_bytes: int,
) -> list[epath.Path]:
    """Writes weights in bfloat16 as files such as `NAME-00001-of-00004.safetensors`.

    `import_safetensors` of any part reads all parts.

    Args:
      params: the weights.
      path: of the files, before `-00001-of-...`.
      config: the configuration of their training; in each file.
      max_bytes: of a file.

    Raises:
      WeightsError: if a single array is larger than a file.
    """
    flat = flax.traverse_util.flatten_dict(jax.device_get(params), sep="/")
    metadata = {"format": FORMAT, "config": json.dumps(config)}
    # The header has the name and offset of each array, which need far less than this.
    free = max_bytes - 1024 - len(json.dumps(metadata))
    parts: list[dict[str, np.ndarray]] = [{}]
    used = 0
    for name, leaf in flat.items():
        array = np.ascontiguousarray(leaf, jnp.bfloat16)
        size = array.nbytes + len(name) + 200
        if size > free:
            raise WeightsError(
                f"expected arrays that fit into files of {max_bytes:,} bytes, got"
                f" {name} with {array.nbytes:,}; take a narrower network"
            )
        if used + size > free:
            parts.append({})
            used = 0
        parts[-1][name] = array
        used += size
    path, count = epath.Path(path), len(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [part_name(path.name, i + 1, count) for i in range(count)]
    files = [path.parent / name for name in names]
    # All parts are written before the first replaces an older file.
    with contextlib.ExitStack() as stack:
        for file, part in zip(files, parts, strict=True):
            written = stack.enter_context(atomic.writing(file))
            written.write_bytes(safetensors.numpy.save(part, metadata))
    return files
