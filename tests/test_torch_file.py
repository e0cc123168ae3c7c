"""PyTorch's files are read without running anything, or refused clearly."""

import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from palette_jax.errors import WeightsError
from palette_jax.torch_file import read_torch
from tests.interop.files import Global, write_torch

STATE = {
    "weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "half": np.array([0.5, -2.0], np.float16),
    "scalar": np.array(7, np.float32),
}


def test_tensors_come_back_as_they_were_written(tmp_path: pathlib.Path) -> None:
    write_torch(tmp_path / "w.pt", STATE)
    read = read_torch(tmp_path / "w.pt")
    assert read.keys() == STATE.keys()
    for name, array in STATE.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("torch.serialization", "load"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
    ],
)
def test_a_planted_call_does_not_run(
    tmp_path: pathlib.Path, module: str, name: str
) -> None:
    planted = tmp_path / "planted"
    command = f"touch {planted}"
    if name == "eval":
        command = f"open({str(planted)!r}, 'w')"
    write_torch(tmp_path / "w.pt", {**STATE, "x": Global(module, name, command)})
    with pytest.raises(WeightsError, match=f"{module}.{name}"):
        read_torch(tmp_path / "w.pt")
    assert not planted.exists()


def test_a_planted_call_would_run_in_an_open_reader(tmp_path: pathlib.Path) -> None:
    # Shows that the payload above is a live one.
    planted = tmp_path / "planted"
    write_torch(tmp_path / "w.pt", {"x": Global("os", "system", f"touch {planted}")})
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert planted.exists()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_file_cut_off_says_so(tmp_path: pathlib.Path, share: float) -> None:
    write_torch(tmp_path / "w.pt", {"w": np.ones((100, 100), np.float32)})
    data = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match="cut off"):
        read_torch(tmp_path / "w.pt")


def test_a_flipped_bit_is_noticed(tmp_path: pathlib.Path) -> None:
    write_torch(tmp_path / "w.pt", {"w": np.ones((100, 100), np.float32)})
    data = bytearray((tmp_path / "w.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        read_torch(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (pickle.dumps({"a": 1}, protocol=2), "before 1.6"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"", "another kind"),
        (b"<html>", "another kind"),
    ],
)
def test_other_files_are_named(tmp_path: pathlib.Path, data: bytes, named: str) -> None:
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(WeightsError, match=named):
        read_torch(tmp_path / "w.pt")


def test_what_is_no_state_dict_is_named(tmp_path: pathlib.Path) -> None:
    write_torch(tmp_path / "w.pt", {"epoch": 3, "state_dict": {"a": 1}})
    with pytest.raises(WeightsError, match="save 'state_dict' alone"):
        read_torch(tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "z.pt", "w") as archive:
        archive.writestr("a/readme.txt", "hello")
    with pytest.raises(WeightsError, match="another kind of zip"):
        read_torch(tmp_path / "z.pt")


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((100,), (1,), 0),
        ((4,), (1,), 6),
        ((2, 2), (8, 1), 0),
        ((9,), (0,), 0),
        ((2,), (-1,), 3),
        ((2,), (1,), -1),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    size: tuple, stride: tuple, offset: int
) -> None:
    from palette_jax import torch_file

    storage = torch_file._Storage(np.arange(8, dtype=np.float32))
    with pytest.raises(WeightsError, match="inside its 8 values"):
        torch_file._rebuild_tensor(storage, offset, size, stride)
