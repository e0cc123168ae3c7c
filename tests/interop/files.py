"""Writes PyTorch's file format for the tests, which have no PyTorch."""

import io
import pathlib
import pickle
import zipfile
from collections import OrderedDict

import numpy as np


class Global:
    """Stands for a name that a pickle imports, called with some arguments."""

    def __init__(self, module: str, name: str, *args: object):
        self.module, self.name, self.args = module, name, args


class _Storage:
    def __init__(self, key: str, array: np.ndarray):
        self.key, self.array = key, array


class _Pickler(pickle._Pickler):  # The Python one, whose save can be extended.
    def persistent_id(self, obj: object) -> object:
        if isinstance(obj, _Storage):
            names = {"float32": "FloatStorage", "float16": "HalfStorage"}
            kind = _Name("torch", names[obj.array.dtype.name])
            return ("storage", kind, obj.key, "cpu", obj.array.size)
        return None

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Name):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Global):
            self.save(_Name(obj.module, obj.name))
            self.save(tuple(obj.args))
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


class _Name:
    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


def write_torch(path: pathlib.Path, entries: dict[str, object]) -> None:
    """Writes entries, arrays as tensors, the way that torch.save does."""
    storages: list[np.ndarray] = []

    def tensor(array: np.ndarray) -> Global:
        storages.append(array.ravel())
        storage = _Storage(str(len(storages) - 1), storages[-1])
        array = np.array(array, order="C")
        strides = tuple(s // array.itemsize for s in array.strides)
        return Global(
            "torch._utils",
            "_rebuild_tensor_v2",
            *(storage, 0, array.shape, strides, False, OrderedDict()),
        )

    saved = {
        name: tensor(value) if isinstance(value, np.ndarray) else value
        for name, value in entries.items()
    }
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump(saved)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/byteorder", "little")
        for key, array in enumerate(storages):
            archive.writestr(f"archive/data/{key}", array.tobytes())
