"""Converts weights key by key, and reports every key."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np

from palette_jax.errors import WeightsError
from palette_jax.models.unet import UNet
from palette_jax.types import Params


class Rule(NamedTuple):
    """A rule that makes one of our arrays from theirs."""

    ours: str  # Such as "down_0_0/conv_in/kernel".
    theirs: tuple[str, ...]
    make: Callable[..., np.ndarray]


@dataclasses.dataclass(frozen=True)
class Report:
    """A report on every key of both networks."""

    layout: str
    mapped: dict[str, tuple[str, ...]]  # Our path to the source keys.
    ignored: dict[str, str]  # Their key to the reason.
    notes: tuple[str, ...] = ()  # On widened, cut and reordered arrays.

    def lines(self) -> Iterator[str]:
        """Yields the report, a line for each key."""
        yield f"layout: {self.layout}"
        yield from (f"note: {note}" for note in self.notes)
        for ours, theirs in self.mapped.items():
            yield f"{' + '.join(theirs)} -> {ours}"
        yield from (f"{key} ignored: {why}" for key, why in self.ignored.items())
        yield (
            f"{len(self.mapped)} arrays mapped, {len(self.ignored)} keys ignored,"
            " no unused key on either side"
        )


class Imported(NamedTuple):
    """Weights of another project, ready to be saved as a checkpoint."""

    params: Params
    config: dict[str, dict[str, Any]]  # Differences from config/base.py, by group.
    report: Report


def fields_of(config: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the fields of our `UNet`, in float32, from the groups of a config."""
    model, known = config["model"], UNet.__dataclass_fields__.keys() - {"dtype"}
    fields = {key: value for key, value in model.items() if key in known}
    return fields | {"image_size": config["data"]["image_size"]}


def conv(ours: str, theirs: str) -> Iterator[Rule]:
    """Yields the rules of a convolution: OIHW there, HWIO here."""
    yield Rule(f"{ours}/kernel", (f"{theirs}.weight",), _conv_kernel)
    yield Rule(f"{ours}/bias", (f"{theirs}.bias",), _same)


def dense(ours: str, theirs: str) -> Iterator[Rule]:
    """Yields the rules of a dense layer, which may be a 1x1 convolution there."""
    yield Rule(f"{ours}/kernel", (f"{theirs}.weight",), _dense_kernel)
    yield Rule(f"{ours}/bias", (f"{theirs}.bias",), _same)


def norm(ours: str, theirs: str) -> Iterator[Rule]:
    """Yields the rules of a group normalisation."""
    yield Rule(f"{ours}/norm/scale", (f"{theirs}.weight",), _same)
    yield Rule(f"{ours}/norm/bias", (f"{theirs}.bias",), _same)


def res_block(
    state: Mapping[str, np.ndarray], ours: str, theirs: str, *, names: Sequence[str]
) -> Iterator[Rule]:
    """Yields the rules of a residual block.

    Args:
      state: their arrays by name; not every block has a convolution in its skip.
      ours: the path of the block.
      theirs: their name of the block.
      names: of the first norm and convolution, the level's dense layer, the last norm
        and convolution, and the skip.
    """
    norm_in, first, film, norm_out, last, skip = (f"{theirs}.{name}" for name in names)
    yield from norm(f"{ours}/norm_in", norm_in)
    yield from conv(f"{ours}/conv_in", first)
    yield from dense(f"{ours}/film", film)
    yield from norm(f"{ours}/norm_out", norm_out)
    yield from conv(f"{ours}/conv_out", last)
    if f"{skip}.weight" in state:
        yield from conv(f"{ours}/skip", skip)


def conv_in(theirs: str, *, noisy_first: bool) -> Iterator[Rule]:
    """Yields the rules of the first convolution, widened if it has no source image."""

    def make(weight: np.ndarray) -> np.ndarray:
        kernel = _conv_kernel(weight)
        if kernel.shape[2] == 3:
            return np.concatenate([np.zeros_like(kernel), kernel], axis=2)
        return np.roll(kernel, 3, axis=2) if noisy_first else kernel

    yield Rule("conv_in/kernel", (f"{theirs}.weight",), make)
    yield Rule("conv_in/bias", (f"{theirs}.bias",), _same)


def conv_out(theirs: str) -> Iterator[Rule]:
    """Yields the rules of the last convolution, without channels of a variance."""
    yield Rule(
        "conv_out/kernel", (f"{theirs}.weight",), lambda w: _conv_kernel(w)[..., :3]
    )
    yield Rule("conv_out/bias", (f"{theirs}.bias",), lambda b: b[:3])


def same(fields: Mapping[str, Any]) -> Iterator[Rule]:
    """Yields the rules of our own layout."""
    for name in _shapes(fields):
        yield Rule(name, (name,), _same)


def channel_notes(in_channels: int, out_channels: int) -> list[str]:
    """Returns notes on `conv_in` and `conv_out`; raises for unsupported channels."""
    if in_channels not in (3, 6) or out_channels not in (3, 6):
        raise WeightsError(
            "expected a network with 3 channels (a noisy picture) or 6 (and its source)"
            " and an output of 3 (noise) or 6 (and its variance), got"
            f" {in_channels} and {out_channels}"
        )
    notes = []
    if in_channels == 3:
        notes.append("first convolution widened by zeros for the source picture")
    if out_channels == 6:
        notes.append("half of the last convolution dropped: the learned variance")
    return notes


def check_heads(fields: Mapping[str, Any], features: Iterable[int]) -> None:
    """Raises if attention over so many features has no whole number of heads."""
    heads, head_features = fields["num_heads"], fields["head_features"]
    for c in features:
        if c % (heads or head_features):
            raise WeightsError(
                f"expected attention heads that divide {c} features, got"
                + (f" {heads} heads" if heads else f" heads of {head_features}")
                + "; set those of its training with --head-features or --num-heads"
            )


def convert(
    state: Mapping[str, np.ndarray],
    rules: Iterable[Rule],
    fields: Mapping[str, Any],
    *,
    layout: str,
    named: Callable[[str], str] = str,
    ignored: Mapping[str, str] | None = None,
    notes: Iterable[str] = (),
) -> tuple[Params, Report]:
    """Applies the rules.

    Raises:
      WeightsError: if a key is missing or unused, or has a wrong shape.
    """
    ignored = dict(ignored or {})
    wanted = _shapes(fields)
    found, mapped, wrong = {}, {}, []
    for rule in rules:
        missing = [key for key in rule.theirs if key not in state]
        if missing:
            wrong.append(f"{rule.ours}: no {' and no '.join(map(named, missing))}")
            continue
        array = rule.make(*(np.asarray(state[key], np.float32) for key in rule.theirs))
        if wanted.get(rule.ours) != array.shape:
            wrong.append(f"{rule.ours}: {wanted.get(rule.ours)}, got {array.shape}")
        found[rule.ours] = np.ascontiguousarray(array)
        mapped[rule.ours] = rule.theirs
    used = {key for keys in mapped.values() for key in keys}
    left = [key for key in state if key not in used | ignored.keys()]
    wrong += [f"{named(key)}: left over" for key in left]
    text = " ".join(wrong)
    wrong += [f"{ours}: nothing" for ours in wanted.keys() - found if ours not in text]
    if wrong:
        raise WeightsError(
            f"expected the keys of {layout}, one for one, got {len(wrong)} that do not"
            f" fit: {'; '.join(wrong[:6])}"
            + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
            + "; the file is damaged, or of an unsupported variant"
        )
    params = flax.traverse_util.unflatten_dict(found, sep="/")
    called = {ours: tuple(map(named, keys)) for ours, keys in mapped.items()}
    return params, Report(layout, called, ignored, tuple(notes))


def _shapes(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    network = UNet(**fields)
    size = 2 ** len(fields["feature_multipliers"])
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    gamma = jax.ShapeDtypeStruct((1,), jnp.float32)
    key = jax.random.key(0)
    shapes = jax.eval_shape(network.init, key, image, image, gamma)["params"]
    flat = flax.traverse_util.flatten_dict(shapes, sep="/")
    return {name: tuple(leaf.shape) for name, leaf in flat.items()}


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _conv_kernel(weight: np.ndarray) -> np.ndarray:
    return weight.transpose(2, 3, 1, 0)


def _dense_kernel(weight: np.ndarray) -> np.ndarray:
    return weight.reshape(weight.shape[:2]).T
