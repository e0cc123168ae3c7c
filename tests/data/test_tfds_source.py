"""Tests that data sets of TFDS are read at random in both of its file formats."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from palette_jax.data import images, sources, tfds_source
from palette_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")

NUM_TRAIN, NUM_TEST = 40, 7


def build(data_dir, make_photo, name: str, file_format: str, features: dict) -> None:
    """Prepares a data set in which the image of an index is `make_photo(index)`."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            feature = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=feature)

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(range(NUM_TRAIN)),
                "test": self._generate_examples(range(NUM_TRAIN, NUM_TRAIN + NUM_TEST)),
            }

        def _generate_examples(self, numbers):
            for i in numbers:
                photo = np.asarray(make_photo(i, 40, 50 + i % 3))
                example = {"label": i, "image": photo, "file_name": f"pic {i}.png"}
                yield i, {k: v for k, v in example.items() if k in features}

    Builder.name = name
    config = tfds.download.DownloadConfig(num_shards=3, try_download_gcs=False)
    builder = Builder(data_dir=data_dir, file_format=file_format)
    builder.download_and_prepare(download_config=config)


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def data_dir(request, tmp_path_factory, make_photo) -> str:
    path = str(tmp_path_factory.mktemp("tfds"))
    with_names = {
        "label": tfds.features.Scalar(np.int64),
        "file_name": tfds.features.Text(),
        "image": tfds.features.Image(encoding_format="png"),
    }
    build(path, make_photo, "with_names", request.param, with_names)
    return path


def numbers(source: sources.Source, make_photo) -> list[int]:
    """Returns which picture each one is."""
    number_of = {
        np.asarray(make_photo(i, 40, 50 + i % 3)).tobytes(): i for i in range(47)
    }
    # In a graph, in parallel and not in order, as in training.
    indices = tf.data.Dataset.range(len(source)).map(lambda i: len(source) - 1 - i)
    decoded = indices.map(lambda i: images.decode(source.read(i)["y"]), 4)
    return [number_of[image.tobytes()] for image in decoded.as_numpy_iterator()][::-1]


def test_every_picture_of_a_split_is_read_once(data_dir, make_photo):
    train = tfds_source.tfds("with_names", "train", data_dir=data_dir)
    test = tfds_source.tfds("with_names", "test", data_dir=data_dir)
    assert sorted(numbers(train, make_photo)) == list(range(40))
    assert sorted(numbers(test, make_photo)) == list(range(40, 47))
    assert train.names[[0, 39]].tolist() == ["train/00000000", "train/00000039"]


def test_slices_are_parts_of_the_split(data_dir, make_photo):
    whole = numbers(
        tfds_source.tfds("with_names", "train", data_dir=data_dir), make_photo
    )
    part = tfds_source.tfds("with_names", "train[10:-5]", data_dir=data_dir)
    assert numbers(part, make_photo) == whole[10:-5]
    assert len(set(part.names)) == 25


def test_lists_name_the_pictures_by_their_own_file_names(
    data_dir, make_photo, tmp_path
):
    path = tmp_path / "list.txt"
    path.write_text("/class/pic 33.png 5\npic 2.png\n")
    train = tfds_source.tfds("with_names", "train", data_dir=data_dir)
    # Also behind a selection.
    for source in (train, train.select(np.arange(40)[::-1])):
        restricted = sources.restrict(source, str(path))
        assert numbers(restricted, make_photo) == [33, 2]
        assert restricted.names.tolist() == ["pic 33.png", "pic 2.png"]


def test_jpeg_records_are_decoded_by_us_and_not_by_tfds(tmp_path, make_photo):
    features = {"image": tfds.features.Image(encoding_format="jpeg")}
    build(str(tmp_path), make_photo, "as_jpeg", "tfrecord", features)
    source = tfds_source.tfds("as_jpeg", "test", data_dir=str(tmp_path))
    assert source.file_names is None
    assert source.read(tf.constant(0, tf.int64))["y"].numpy()[:2] == b"\xff\xd8"


def test_what_is_missing_is_named_with_the_way_out(data_dir, tmp_path):
    with pytest.raises(UserError, match="tfds build imagenet2012 --data_dir"):
        tfds_source.tfds("imagenet2012", "train", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="valid"):
        tfds_source.tfds("with_names", "valid", data_dir=data_dir)


def test_a_data_set_without_images_is_refused(tmp_path, make_photo):
    features = {"label": tfds.features.Scalar(np.int64)}
    build(str(tmp_path), make_photo, "numbers_only", "tfrecord", features)
    with pytest.raises(ValueError, match="numbers_only with the features label"):
        tfds_source.tfds("numbers_only", "train", data_dir=str(tmp_path))


def test_the_index_of_records_is_made_once_and_kept(
    tmp_path, make_photo, monkeypatch, data_dir
):
    def read(split: str = "train") -> list[int]:
        source = tfds_source.tfds(
            "with_names", split, data_dir=data_dir, index_dir=tmp_path / "index"
        )
        return numbers(source, make_photo)

    first = read()
    kept = list((tmp_path / "index").glob("*"))
    has_own = bool(list(pathlib.Path(data_dir).glob("**/*.array_record*")))
    assert len(kept) == (0 if has_own else 1)
    # Whoever comes next, on this host or another, reads no record to find them.
    monkeypatch.setattr(tfds_source, "_record_offsets", None)
    assert read() == first
    monkeypatch.undo()
    assert read("train[10:-5]") == first[10:-5]  # It has an index of its own.
