"""Reads tensors from PyTorch's `.pt` and `.pth` files, without PyTorch.

Such a file is a zip archive with a pickle, or, before PyTorch 1.6, a sequence of
pickles followed by the numbers. A pickle may call any function when it is read. This
reader only builds tensors and dicts: every other name raises an error before anything
is called.
"""

import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from palette_jax.errors import WeightsError

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_SUPPORTED = "a state dict (tensors by name) as torch.save writes it"
_OLD_MAGIC = 0x1950A86A20F9469CFC6C  # The first pickle of a file before PyTorch 1.6.


def read_torch(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dict by name; never runs code from the file.

    Raises:
      WeightsError: if the file is truncated, holds other objects than tensors, or is no
        PyTorch file.
    """
    path = epath.Path(path)
    with path.open("rb") as file:
        start = file.read(4)
        if start[:2] not in (b"PK", b"\x80\x02"):
            kind = "an HDF5 file" if start == b"\x89HDF" else "a file of another kind"
            raise WeightsError(f"{path}: expected {_SUPPORTED}, got {kind}")
        try:
            if start[:2] == b"PK":
                with zipfile.ZipFile(file) as archive:
                    found = _load(archive, str(path))
            else:
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                found = _load_old(file, size, str(path))
        except WeightsError:
            raise
        except Exception as error:  # A damaged pickle can raise almost anything.
            raise WeightsError(
                f"{path}: expected a complete PyTorch file, got one that is truncated"
                f" or damaged ({type(error).__name__}: {error}); download it again"
            ) from error
    return _state_dict(found, str(path))


class _Dict(dict):
    """Replaces OrderedDict, without the attributes that a pickle adds."""

    def __setstate__(self, state: Any) -> None:
        """Drops the module versions that PyTorch stores beside a state dict."""


class _Unpickler(pickle.Unpickler):
    """Builds tensors and dicts only."""

    def __init__(self, file: Any, path: str, load_storage: Callable[[Any], np.ndarray]):
        super().__init__(file, encoding="utf-8")
        self._path, self._load_storage = path, load_storage

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Returns an allowed class or function; raises for any other name."""
        known = {
            ("collections", "OrderedDict"): _Dict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        known |= {("torch", name): name for name in _DTYPES}
        try:
            return known[module_name, global_name]
        except KeyError:
            raise WeightsError(
                f"{self._path}: expected {_SUPPORTED}, got an object of"
                f" {module_name}.{global_name}, which could run code; in PyTorch, save"
                " only model.state_dict()"
            ) from None

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Returns a storage: the values that tensors are views of."""
        return self._load_storage(pid)


def _load(archive: zipfile.ZipFile, path: str) -> Any:
    names = [name for name in archive.namelist() if name.count("/") == 1]
    pickles = [name for name in names if name.endswith("/data.pkl")]
    root = pickles[0].removesuffix("data.pkl") if pickles else ""
    if not pickles or f"{root}constants.pkl" in names:
        what = "a TorchScript program" if pickles else "another kind of zip archive"
        raise WeightsError(f"{path}: expected {_SUPPORTED}, got {what}")
    order = "little"
    if f"{root}byteorder" in names:
        order = archive.read(f"{root}byteorder").decode().strip()
    storages: dict[str, np.ndarray] = {}

    def load_storage(pid: Any) -> np.ndarray:
        kind, dtype_name, name, _, count = pid
        if kind != "storage" or not isinstance(dtype_name, str):
            raise WeightsError(f"{path}: expected a storage of numbers, got {pid}")
        if name not in storages:
            dtype = np.dtype(_DTYPES[dtype_name])
            member = f"{root}data/{name}"
            if archive.getinfo(member).file_size != count * dtype.itemsize:
                raise WeightsError(f"{path}: {member} has not the size it should have")
            values = np.frombuffer(archive.read(member), dtype)
            storages[name] = values.byteswap() if order == "big" else values
        return storages[name]

    with archive.open(pickles[0]) as file:
        return _Unpickler(file, path, load_storage).load()


def _load_old(file: Any, size: int, path: str) -> Any:
    """Returns the content of a file in the format before PyTorch 1.6.

    The numbers follow the tensors that are views of them, so they are filled in last.
    """
    storages: dict[str, np.ndarray] = {}

    def load_storage(pid: Any) -> np.ndarray:
        kind, dtype_name, name, _, count, view = pid
        if kind != "storage" or not isinstance(dtype_name, str):
            raise WeightsError(f"{path}: expected a storage of numbers, got {pid}")
        if name not in storages:
            dtype = np.dtype(_DTYPES[dtype_name])
            if not 0 <= count * dtype.itemsize <= size:
                raise WeightsError(f"{path}: storage {name} is larger than the file")
            storages[name] = np.zeros(count, dtype)
        values = storages[name]
        return values[view[1] : view[1] + view[2]] if view else values

    def load() -> Any:
        return _Unpickler(file, path, load_storage).load()

    if load() != _OLD_MAGIC:
        raise WeightsError(f"{path}: expected {_SUPPORTED}, got another pickle")
    load(), load()  # The version of the format, and the machine that wrote it.
    found = load()
    for name in load():
        values = storages[name]
        data = file.read(8 + values.nbytes)
        if int.from_bytes(data[:8], "little") != len(values):
            raise WeightsError(
                f"{path}: storage {name} has not the size it should have"
            )
        values[:] = np.frombuffer(data, values.dtype, offset=8)
    return found


def _rebuild_tensor(
    values: np.ndarray, offset: int, size: Any, stride: Any, *_: Any
) -> np.ndarray:
    """Returns a view of a storage, after checking its bounds."""
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    count = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    inside = min((offset, *size, *stride)) >= 0 and (not count or last < len(values))
    if not inside or count > len(values):
        raise WeightsError(
            f"expected a tensor inside its {len(values)} values, got size {size},"
            f" strides {stride} at {offset}; the file is damaged"
        )
    strides = [s * values.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(
        values[offset:], size, strides, writeable=False
    )


def _rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


def _state_dict(found: Any, path: str) -> dict[str, np.ndarray]:
    """Returns the tensors, or raises an error that describes the content.

    Trainers save them below a key, and wrap networks, which adds a prefix to each name.
    """
    if isinstance(found, Mapping):
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(found.get(key), Mapping):
                found = found[key]
                break
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path}: expected {_SUPPORTED}, got a {type(found)}")
    others = [k for k, v in found.items() if not isinstance(v, np.ndarray)]
    if others or not found:
        inside = [k for k in others if isinstance(found[k], Mapping)]
        raise WeightsError(
            f"{path}: expected {_SUPPORTED}, got {len(found)} entries, of which these"
            f" are no tensors: {', '.join(map(repr, others[:5]))}"
            + (f"; in PyTorch, save only {inside[0]!r}" if inside else "")
        )
    return unwrapped({str(name): value for name, value in found.items()})


def unwrapped(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns tensors by their names without PyTorch's wrappers.

    `DataParallel` and `torch.compile` add a part to the names of the wrapped network or
    module.
    """
    found = {re.sub(r"(^|(?<=\.))((module|_orig_mod)\.)+", "", n): n for n in state}
    if len(found) < len(state):
        return dict(state)  # Both names exist, so it is no wrapper.
    return {name: state[theirs] for name, theirs in found.items()}
