"""PyTorch's files are read without running anything, or refused clearly."""

import base64
import pathlib
import pickle
import zipfile
import zlib

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

# What PyTorch 2.13 writes of five tensors by torch.save, with
# _use_new_zipfile_serialization=False: its format before 1.6.
OLD = zlib.decompress(
    base64.b85decode(
        "c-n1}OK;Oa6ovgt3Z^aLo$?HC2c#%z(vYl3B~&4qLTfhOAY+^%HnQwodt3xkrEL0u6-yQ@y6loA%l;"
        "I$`~)Nx9LGtOO1Aus$9HDVIhvV~^i}o${aE{3`Ea<gR2xa_e`K`VBxq(y5QJeA^3Vx=Yl}s(7X~C^g"
        "1LYZ-{ah877O~G9gwtdswnbLLuSR^XBLyZO^Rj~P>kI$;#ANjQ^ubca4PDGsiYcVFrYbINfLNEu<@D"
        "0;S#H_qCSgQ|C#4-m4vE6qGlGc;v@40E+@(1VdS_qE8(6Wt5(F`C7$26I1A!1vbL60k~PhoOWiTk9x"
        "zg}CF+_V+Wd7^RH<MtVotZ!Ug_4CJFP~e*{)M@9Ml;m$X0&I>C~n!=#nn$${wB8=XFIF_elNXrn$~="
        "nm1@+9F8YZ!1}c4!rN8cT<x=Nrdit5MQAF!bPk>3E}hTxE^xYN(53PAxVHbEE@x_!^v_W`4u9o@0o0"
        "!~+f;^u1cRk<=pDMMi#v2J6Ti;shCw&SVPnVk?TBvWgl#liE8RxDMHOg?(7Fw+YBkfi!|AR;_r@pdg"
        "b7ab{)vPyaHhuzAIv69H=)_?(8GzUHlteQ^vIyc={<Op-o2bKVxE?iw*_+E#w)BQ3e)FzZ`zk9Uuin"
        "j5su2j>@#|briT}dzyUbwr5dQO3PK4~KpphJ26zjGU<CHTH}D-CfJ5*T{964FLA}*a"
    )
)


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
    with pytest.raises(WeightsError, match="truncated"):
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
        (pickle.dumps({"a": 1}, protocol=2), "another pickle"),
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
    with pytest.raises(WeightsError, match="these are no tensors"):
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

    storage = np.arange(8, dtype=np.float32)
    with pytest.raises(WeightsError, match="inside its 8 values"):
        torch_file._rebuild_tensor(storage, offset, size, stride)


def test_the_format_before_1_6_is_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "w.pth").write_bytes(OLD)
    read = read_torch(tmp_path / "w.pth")
    base = np.arange(24, dtype=np.float32)
    expected = {
        "weight": base.reshape(2, 3, 4),
        "turned": base.reshape(4, 6).T[1:3],
        "half": np.array([0.5, -2.0], np.float16),
        "scalar": np.array(7, np.float32),
        "count": np.array(3, np.int64),
    }
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5, 0.8, 0.99])
def test_a_file_of_it_cut_off_says_so(tmp_path: pathlib.Path, share: float) -> None:
    (tmp_path / "w.pth").write_bytes(OLD[: int(len(OLD) * share)])
    with pytest.raises(WeightsError, match="truncated"):
        read_torch(tmp_path / "w.pth")


def test_a_planted_call_in_it_does_not_run(tmp_path: pathlib.Path) -> None:
    planted = tmp_path / "planted"
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    call = f"cos\nsystem\n(S'touch {planted}'\ntR.".encode()
    for before in (b"", pickle.dumps(1001, protocol=2) + pickle.dumps({}, protocol=2)):
        (tmp_path / "w.pth").write_bytes(magic + before + call)
        with pytest.raises(WeightsError, match=r"os\.system"):
            read_torch(tmp_path / "w.pth")
    assert not planted.exists()
    pickle.loads(call)  # Shows that it is a live one.
    assert planted.exists()
