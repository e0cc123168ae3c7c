"""Compares an imported network with outputs of its original code."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from palette_jax.errors import WeightsError
from palette_jax.interop.mapping import Imported, fields_of
from palette_jax.models.unet import UNet

FORM = (
    "an .npz file with x [n, channels, height, width], the input of the original code,"
    " t [n], the steps (or gamma [n]), and out, its output"
)
_TOLERANCE = 2e-4  # Of the largest value, for float32 rounding in another order.


def compare(
    imported: Imported, path: epath.PathLike, *, noisy_first: bool = False
) -> Iterator[str]:
    """Yields a line for each output that agrees to rounding.

    Args:
      imported: the network.
      path: of the file in the format `FORM`. Further inputs, for example of other
        sizes, are `x_NAME` and `out_NAME`.
      noisy_first: whether the noisy picture's channels precede the source's.

    Raises:
      WeightsError: if an output differs, or the file has another format.
    """
    try:
        with epath.Path(path).open("rb") as file, np.load(file) as arrays:
            saved = dict(arrays)
    except Exception as error:  # A damaged archive can raise almost anything.
        raise WeightsError(f"{path}: expected {FORM}, got {error}") from error
    names = sorted(n for n in saved if n == "out" or n.startswith("out_"))
    if not names:
        raise WeightsError(f"{path}: expected {FORM}, got {sorted(saved)}")
    gamma = _gamma(saved, imported.config["model"]["level_position"], path)
    for name in names:
        x, out = saved.get(f"x{name[3:]}"), saved[name]
        _check_shapes(x, out, gamma, f"{path}: {name}")
        ours = _run(imported, x, gamma, noisy_first=noisy_first)
        theirs = np.asarray(out[:, :3], np.float32)
        error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        if not error <= _TOLERANCE:
            raise WeightsError(
                f"expected the outputs {name} of {path} to {_TOLERANCE} of the largest"
                f" value, got a difference of {error:.2g}; set the heads, the order of"
                " attention and the order of channels of its training (--head-features"
                " or --num-heads, --new-attention-order, --noisy-first), and check the"
                " other assumptions in the notes"
            )
        yield f"verified: {name} of {path} is equal to {error:.1g} of its largest value"


def _gamma(
    saved: Mapping[str, np.ndarray], position: str, path: epath.PathLike
) -> np.ndarray:
    if "gamma" in saved:
        return saved["gamma"].reshape(-1).astype(np.float32)
    if position != "step" or "t" not in saved:
        wanted = "t or gamma" if position == "step" else "gamma"
        raise WeightsError(
            f"{path}: expected {wanted} beside the inputs, got {sorted(saved)}"
        )
    t = saved["t"].reshape(-1)
    if (t != np.round(t)).any() or t.min() < 0 or t.max() > 999:
        raise WeightsError(f"{path}: expected steps t from 0 to 999, got {t}")
    return np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[t.astype(int)]


def _check_shapes(
    x: np.ndarray | None, out: np.ndarray, gamma: np.ndarray, what: str
) -> None:
    if x is None or x.ndim != 4 or x.shape[1] not in (3, 6):
        raise WeightsError(
            f"{what}: expected an input x of 3 or 6 channels [n, channels, height,"
            f" width] beside it, got {None if x is None else x.shape}"
        )
    shape = (x.shape[0], *x.shape[2:])
    if out.ndim != 4 or out.shape[1] < 3 or (len(out), *out.shape[2:]) != shape:
        raise WeightsError(f"{what}: expected the shape of {x.shape}, got {out.shape}")
    if len(gamma) != len(x):
        raise WeightsError(
            f"{what}: expected a noise level for each of {len(x)} inputs, got"
            f" {len(gamma)}"
        )


def _run(
    imported: Imported, given: np.ndarray, gamma: np.ndarray, *, noisy_first: bool
) -> np.ndarray:
    """Returns the outputs of the network, [n, 3, height, width]."""
    network = UNet(**fields_of(imported.config))
    images = jnp.asarray(given, jnp.float32).transpose(0, 2, 3, 1)
    # A network without a source image has no weights for it.
    source, noisy = jnp.zeros_like(images[..., :3]), images
    if given.shape[1] == 6:
        first, second = jnp.split(images, 2, axis=-1)
        source, noisy = (second, first) if noisy_first else (first, second)
    apply = jax.jit(network.apply)
    with jax.default_matmul_precision("highest"):
        out: Any = apply(
            {"params": jax.tree.map(jnp.asarray, imported.params)},
            source,
            noisy,
            jnp.asarray(gamma, jnp.float32),
        )
    return np.asarray(out).transpose(0, 3, 1, 2)
