"""Any image data set of TensorFlow Datasets as a source with random access."""

import concurrent.futures
import hashlib
import io
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath

from palette_jax import atomic
from palette_jax.data.sources import Source
from palette_jax.errors import UserError


def tfds(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    index_dir: epath.PathLike | None = None,
) -> Source:
    """Returns the pictures of a prepared data set, for example imagenet2012.

    The first feature that is an image is the picture. Nothing is downloaded.

    Args:
      name: of the data set, optionally with a config and a version.
      split: optionally with a slice, as in "train[:90%]".
      data_dir: folder of the data sets, local or gs://; by default that of tfds.
      index_dir: folder of the cached index of TFRecords, local or gs://. Making the
        index reads all files.
    """
    import tensorflow_datasets as tfds  # Slow, so imported only if needed.

    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.info.splits:
        option = f" --data_dir={data_dir}" if data_dir else ""
        raise UserError(
            f"expected the data set {name} in {builder.data_path}, got none; prepare it"
            f" with `tfds build {name}{option}` (its page in the TFDS catalog lists the"
            " files to download first)"
        )
    features = builder.info.features
    images = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image) and feature.np_dtype == np.uint8
    ]
    if not images:
        raise UserError(
            f"expected a data set with an image of 8 bits, got {name} with the features"
            f" {', '.join(features)}"
        )
    read_record = _record_reader(builder, split, index_dir)

    def read_feature(key: str, index: tf.Tensor) -> tf.Tensor:
        # Parses no other feature.
        only = tfds.decode.PartialDecoding({key: True}).extract_features(features)
        decoders = {key: tfds.decode.SkipDecoding()} if key in images else None
        return only.deserialize_example(read_record(index), decoders=decoders)[key]

    def file_names() -> np.ndarray:
        rows = tf.data.Dataset.range(num_examples).map(
            lambda index: read_feature("file_name", index), tf.data.AUTOTUNE
        )
        return np.array([row.decode() for row in rows.as_numpy_iterator()])

    num_examples = builder.info.splits[split].num_examples
    return Source(
        names=np.array([f"{split}/{index:08d}" for index in range(num_examples)]),
        read=lambda index: {"y": read_feature(images[0], index)},
        file_names=file_names if "file_name" in features else None,
    )


def _record_reader(
    builder: Any, split: str, index_dir: epath.PathLike | None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from a position in the split to the serialized example."""
    file_format = builder.info.file_format.value
    if file_format == "tfrecord":
        return _tfrecord_reader(builder.info.splits[split].file_instructions, index_dir)
    if file_format == "array_record":
        records = builder.as_data_source(split).data_source

        def read(index: tf.Tensor) -> tf.Tensor:
            record = tf.numpy_function(lambda i: records[i], [index], tf.string)
            return tf.ensure_shape(record, [])

        return read
    raise UserError(
        f"expected a data set in the format tfrecord or array_record, got"
        f" {file_format}; prepare it with `tfds build --file_format=array_record`"
    )


def _tfrecord_reader(
    shards: list[Any], index_dir: epath.PathLike | None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a reader of single TFRecords; the files themselves have no index.

    A data set in the format array_record needs none, and starts faster on gs://.
    """
    offsets = _index(shards, index_dir)
    files = tf.constant([str(shard.filename) for shard in shards])
    file_rows = tf.constant(
        np.repeat(np.arange(len(shards)), [len(o) for o in offsets])
    )
    offset_rows = tf.constant(np.concatenate(offsets))

    def read(index: tf.Tensor) -> tf.Tensor:
        # The public TFRecordDataset cannot start in the middle of a file.
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=[files[file_rows[index]]],
            compression_type="",
            buffer_size=0,
            byte_offsets=[offset_rows[index]],
        )
        dataset = tf.data.experimental.from_variant(
            variant, tf.TensorSpec([], tf.string)
        )
        return dataset.take(1).get_single_element()

    return read


def _index(shards: list[Any], index_dir: epath.PathLike | None) -> list[np.ndarray]:
    """Returns the offset of each record, from the stored index if there is one."""
    parts = [(str(s.filename), s.skip, s.take) for s in shards]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
    cache = epath.Path(index_dir) / f"{name}.npz" if index_dir else None
    if cache and cache.exists():
        with np.load(io.BytesIO(cache.read_bytes())) as arrays:
            return [arrays[str(i)] for i in range(len(shards))]
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        offsets = list(pool.map(_record_offsets, shards))
    if cache:
        file = io.BytesIO()
        arrays: dict[str, Any] = {str(i): o for i, o in enumerate(offsets)}
        np.savez_compressed(file, **arrays)
        atomic.write_bytes(cache, file.getvalue())
    return offsets


def _record_offsets(shard: Any) -> np.ndarray:
    """Returns the file offset of each record of the split in a shard."""
    offsets, position = [], 0
    with epath.Path(shard.filename).open("rb") as file:
        while header := file.read(8):
            offsets.append(position)
            # The length and its checksum, the record and its checksum.
            position += 8 + 4 + struct.unpack("<Q", header)[0] + 4
            file.seek(position)
    stop = None if shard.take == -1 else shard.skip + shard.take
    return np.array(offsets[shard.skip : stop], np.int64)
