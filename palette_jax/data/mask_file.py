"""The paper's free-form masks: `imagenet_freeform_masks.npz` and that of Places2.

Published by the authors beside the paper (bit.ly/eval-pix2pix), and used in later
comparisons. Nothing is downloaded here.
"""

import io

import numpy as np
from etils import epath
from jaxtyping import UInt8

from palette_jax.errors import UserError

SIZE = 256
"""Width and height of the masks in pixels."""


def read(path: epath.PathLike, share: str) -> UInt8[np.ndarray, "n bytes"]:
    """Returns the masks of a share, one row each with eight pixels per byte; 1 is hole.

    Args:
      path: of the file.
      share: of the hole, in percent, such as "20_30".

    Raises:
      UserError: if the file does not hold these masks.
    """
    key = f"{share.replace('_', '-')}% freeform"
    try:
        data = io.BytesIO(epath.Path(path).read_bytes())
        with np.load(data, allow_pickle=False) as arrays:
            packed, keys = arrays[key] if key in arrays else None, list(arrays)
    except Exception as error:  # A damaged archive can raise almost anything.
        raise UserError(
            f"expected the official masks in {path}, got"
            f" {type(error).__name__}: {error}; get the file"
            " imagenet_freeform_masks.npz, which I2SB's code names, and set its path"
        ) from error
    each = SIZE * SIZE // 8
    if (
        packed is None
        or packed.dtype != np.uint8
        or not packed.size
        or packed.size % each
    ):
        found = f"{packed.dtype} {packed.shape}" if packed is not None else str(keys)
        raise UserError(
            f"expected masks of {SIZE} x {SIZE} bits as {key!r} in {path}, got {found};"
            " name the official file of masks"
        )
    return packed.reshape(-1, each)
