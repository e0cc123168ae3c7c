"""Weight files are found where they should be, and described where they are not."""

import hashlib
import pathlib

import pytest

from palette_jax.errors import UserError
from palette_jax.evaluation.metrics import inception, weight_files
from palette_jax.evaluation.metrics.weight_files import (
    WEIGHT_FILES,
    MissingWeightsError,
)


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty home and nothing set."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(weight_files.FOLDER_VARIABLE, raising=False)
    return tmp_path


def put(folder: pathlib.Path, name: str, data: bytes = b"") -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHT_FILES[name].file_name
    path.write_bytes(data)
    return path


def test_a_folder_by_name_wins_over_the_variable_and_that_over_the_cache(
    home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = put(home / ".cache/palette_jax/weights", "lpips")
    assert str(weight_files.find("lpips")) == str(kept)
    named = put(home / "variable", "lpips")
    monkeypatch.setenv(weight_files.FOLDER_VARIABLE, str(named.parent))
    assert str(weight_files.find("lpips")) == str(named)
    given = put(home / "given", "lpips")
    assert str(weight_files.find("lpips", folder=given.parent)) == str(given)
    (home / "empty").mkdir()
    with pytest.raises(MissingWeightsError):  # Never taken from elsewhere instead.
        weight_files.find("lpips", folder=home / "empty")


@pytest.mark.parametrize("name", WEIGHT_FILES)
def test_a_missing_file_is_described(name: str, home: pathlib.Path) -> None:
    wanted = WEIGHT_FILES[name]
    with pytest.raises(UserError) as caught:
        weight_files.find(name)
    message = str(caught.value)
    path = home / ".cache/palette_jax/weights" / wanted.file_name
    for told in (str(path), wanted.source, wanted.sha256, "PALETTE_JAX_WEIGHTS"):
        assert told in message
    assert len(wanted.sha256) == 64 and wanted.licence


def test_names_of_files_begin_with_their_hash_where_publishers_say_so() -> None:
    for name in ("inception", "resnet50", "inception_v1", "alexnet", "vgg16"):
        wanted = WEIGHT_FILES[name]
        assert wanted.file_name.endswith(f"-{wanted.sha256[:8]}.pth")


def test_the_shortened_inception_is_taken_where_the_whole_one_is_missing(
    home: pathlib.Path,
) -> None:
    with pytest.raises(MissingWeightsError, match="pt_inception-2015-12-05"):
        inception.find(folder=home)
    short = put(home, "inception_768")
    assert str(inception.find(folder=home)) == str(short)
    whole = put(home, "inception")
    assert str(inception.find(folder=home)) == str(whole)


def test_a_file_that_is_not_the_published_one_is_told(home: pathlib.Path) -> None:
    path = put(home, "resnet50", b"tuned")
    digest = weight_files.sha256(path)
    assert digest == hashlib.sha256(b"tuned").hexdigest()
    assert digest in weight_files.differs("resnet50", digest)
    assert not weight_files.differs("resnet50", WEIGHT_FILES["resnet50"].sha256)
