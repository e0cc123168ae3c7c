"""The U-Net of ADM (Dhariwal & Nichol 2021), with the source image as an input."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from palette_jax.models import blocks
from palette_jax.models.embeddings import LevelEmbedding
from palette_jax.models.layers import Conv

# For `more_blocks`: how many blocks on the way down and on the way up make up for the
# attention of the largest resolution, the next, and all others.
_MORE_BLOCKS = ((3, 3), (1, 1), (1, 0))

_Attend = Callable[[Array, int, str, int, int], Array]


class UNet(nn.Module):
    """Predicts the noise in `y_t` from the source `x` and the noise level.

    The defaults are the paper's 256x256 network: ADM's class-conditional network
    without classes and with the source concatenated to its input, 552,814,083
    parameters.

    `attention` is the study of the paper's Table 5. The table prints 552, 552, 624 and
    603 million parameters (truncated) for the first four values but no structure. The
    following simple structures have these counts (552.8, 552.8, 624.9, 603.1):

      global       every pixel attends to every other.
      local        attention within each quarter of the picture.
      dilated      a block with a single dilated convolution replaces each attention,
                   with dilations 2, 4, 8. The middle keeps its attention.
      more_blocks  residual blocks: six at the largest of `attn_resolutions`, two at the
                   next, one at each other. The middle keeps its attention. (Doubling
                   the blocks on the way down gives 601.0 million.)
      none         no attention, also not in the middle. Not in the paper.

    With a `patch_size` of 2, the first level packs 2 x 2 pixels into one pixel with
    four times the channels: a quarter of the work at the largest size, for small
    networks. Not in the paper.

    The last five fields are for weights of other projects.
    """

    base_features: int = 256
    feature_multipliers: Sequence[int | float] = (1, 1, 2, 2, 4, 4)  # One per level.
    num_res_blocks: int = 2  # Per level; one more on the way up.
    attention: Literal["global", "local", "dilated", "more_blocks", "none"] = "global"
    attn_resolutions: Sequence[int] = (32, 16, 8)  # Sizes in pixels at `image_size`.
    image_size: int = 256  # The reference of `attn_resolutions`.
    patch_size: int = 1  # Side of the squares of pixels that become one.
    head_features: int = 64
    num_heads: int = 0  # At all levels; 0: by `head_features`.
    dropout: float = 0.0
    remat: bool = False  # Computes each block twice instead of storing its activations.
    dtype: DTypeLike = jnp.float32  # Of the computation; parameters stay float32.
    # Between levels: residual blocks or plain convolutions (`blocks.Resize`).
    resize: Literal["block", "conv", "conv_pad_end"] = "block"
    conditioning: Literal["scale_shift", "shift"] = "scale_shift"
    norm_groups: int = 32
    norm_epsilon: float = 1e-5
    level_position: Literal["log_snr", "step", "gamma"] = "log_snr"
    level_freq_shift: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        y_t: Float[Array, "b h w c"],
        gamma: Float[Array, " b"],
        deterministic: bool = True,
    ) -> Float[Array, "b h w c"]:
        """Returns the predicted noise in float32.

        Height and width may differ from `image_size` and from each other, but must be
        multiples of patch_size * 2 ** (levels - 1).
        """
        embed = LevelEmbedding(
            self.base_features,
            self.level_position,
            self.level_freq_shift,
            self.dtype,
            name="level",
        )
        level_emb = embed(gamma)
        res_block, attend = self._res_block(), self._attend(level_emb, deterministic)
        features = [round(self.base_features * m) for m in self.feature_multipliers]
        last = len(features) - 1

        def level_block(h: Array, level: int, way: str, i: int, count: int) -> Array:
            name = f"{way}_{level}_{i}"
            h = res_block(features[level], name=name)(h, level_emb, deterministic)
            return attend(h, level, way, i, count)

        def resize(h: Array, level: int, direction: Literal["up", "down"]) -> Array:
            name = f"{direction}_{level}_resize"
            if self.resize == "block":
                block = res_block(features[level], resize=direction, name=name)
                return block(h, level_emb, deterministic)
            pad_end = self.resize == "conv_pad_end"
            return blocks.Resize(
                features[level], direction, pad_end, self.dtype, name=name
            )(h)

        h = jnp.concatenate([x, y_t], axis=-1).astype(self.dtype)
        h = blocks.pixel_unshuffle(h, self.patch_size)
        conv = functools.partial(Conv, dtype=self.dtype)
        h = conv(features[0], (3, 3), name="conv_in")(h)
        skips = [h]
        for level in range(len(features)):
            for i in range(self.num_res_blocks):
                h = level_block(h, level, "down", i, self.num_res_blocks)
                skips.append(h)
            if level < last:
                h = resize(h, level, "down")
                skips.append(h)

        h = res_block(features[last], name="middle_0")(h, level_emb, deterministic)
        if self.attention != "none":
            h = self._attention()(name="middle_attention")(h)
        h = res_block(features[last], name="middle_1")(h, level_emb, deterministic)

        for level in reversed(range(len(features))):
            for i in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = level_block(h, level, "up", i, self.num_res_blocks + 1)
            if level > 0:
                h = resize(h, level, "up")

        h = self._norm()(name="norm_out")(h, silu=True)
        zeros = nn.initializers.zeros
        channels = y_t.shape[-1] * self.patch_size**2
        h = conv(channels, (3, 3), kernel_init=zeros, name="conv_out")(h)
        return blocks.pixel_shuffle(h, self.patch_size).astype(jnp.float32)

    def _attend(self, level_emb: Array, deterministic: bool) -> _Attend:
        """Returns the function that follows a residual block at attention levels."""
        sizes = sorted(self.attn_resolutions, reverse=True)

        def attend(h: Array, level: int, way: str, i: int, count: int) -> Array:
            size = self.image_size // self.patch_size >> level
            name = f"{way}_{level}_{i}"
            if size not in sizes or self.attention == "none":
                return h
            if self.attention == "dilated":
                block = self._rematted(blocks.DilatedBlock)
                return block(
                    2 ** (1 + i % 3), self._norm(), self.dtype, name=f"{name}_dilated"
                )(h, level_emb)
            if self.attention == "more_blocks":
                more = _MORE_BLOCKS[min(sizes.index(size), 2)][way == "up"]
                for j in range(more if i == count - 1 else 0):
                    block = self._res_block()(h.shape[-1], name=f"{name}_more_{j}")
                    h = block(h, level_emb, deterministic)
                return h
            return self._attention()(name=f"{name}_attention")(h)

        return attend

    def _res_block(self) -> functools.partial:
        return functools.partial(
            self._rematted(blocks.ResBlock, static_argnums=(3,)),
            conditioning=self.conditioning,
            dropout=self.dropout,
            norm=self._norm(),
            dtype=self.dtype,
        )

    def _attention(self) -> functools.partial:
        return functools.partial(
            self._rematted(blocks.AttentionBlock),
            head_features=self.head_features,
            num_heads=self.num_heads,
            blocks_per_side=2 if self.attention == "local" else 1,
            norm=self._norm(),
            dtype=self.dtype,
        )

    def _norm(self) -> functools.partial:
        return functools.partial(
            blocks.GroupNorm, groups=self.norm_groups, epsilon=self.norm_epsilon
        )

    def _rematted(
        self, module: type[nn.Module], static_argnums: tuple[int, ...] = ()
    ) -> type[nn.Module]:
        if not self.remat:
            return module
        return nn.remat(module, static_argnums=static_argnums)
