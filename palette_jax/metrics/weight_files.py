"""The public weight files that the metrics are defined by, and where they are found.

None is fetched by a program: each is put in a folder once, by hand.
"""

import dataclasses

from etils import epath

from palette_jax.metrics.errors import MetricError

FOLDER_VARIABLE = "PALETTE_JAX_WEIGHTS"
DEFAULT_FOLDER = "~/.cache/palette_jax/weights"


class MissingWeightsError(MetricError):
    """A weight file that is not there; the message says where to get it."""


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """A file that others publish.

    Attributes:
      file_name: as it is published; it is looked for under this name.
      what: the network, for people.
      url: where it is published.
      sha256: of the file as published.
      licence: of the weights, as their publisher states it.
    """

    file_name: str
    what: str
    url: str
    sha256: str
    licence: str


WEIGHT_FILES: dict[str, WeightFile] = {}
"""By short name: inception, resnet50, inception_v1, alexnet, lpips."""


def find(name: str, *, folder: epath.PathLike | None = None) -> epath.Path:
    """Returns the path of a weight file.

    Args:
      name: a key of `WEIGHT_FILES`.
      folder: where to look, and nowhere else; unless given, the folder named by the
        environment variable PALETTE_JAX_WEIGHTS, else ~/.cache/palette_jax/weights.

    Raises:
      MissingWeightsError: naming the file, where it goes, where it is published and its
        sha256.
    """
    raise NotImplementedError


def sha256(path: epath.PathLike) -> str:
    """Returns the hash of a file, in 64 hexadecimal digits."""
    raise NotImplementedError


def differs(name: str, digest: str) -> str:
    """Returns a warning where a file is not the published one, else an empty text.

    Such a file is not refused: a fine-tuned classifier is a legitimate one. But its
    numbers compare with no published ones.
    """
    raise NotImplementedError
