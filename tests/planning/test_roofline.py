# ruff: noqa: E501
"""Counting operations, bytes and communication: closed forms, and XLA's own count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from palette_jax.config import build
from palette_jax.planning import roofline

FLOAT = jnp.float32


def _shape(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, FLOAT)


SQUARE = _shape(6, 6)


def _work(function: object, *args: object) -> roofline.Work:
    return roofline.count_work(jax.make_jaxpr(function)(*args))


def test_a_product_of_matrices_is_two_operations_a_term() -> None:
    work = _work(jnp.matmul, _shape(3, 5), _shape(5, 7))
    assert work.flops == 2 * 3 * 5 * 7
    assert work.traffic == 4 * (3 * 5 + 5 * 7 + 3 * 7)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_two_operations_a_weight_and_pixel(groups: int) -> None:
    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            image,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    args = _shape(2, 8, 8, 4), _shape(3, 3, 4 // groups, 6)
    forward = _work(convolve, *args).flops
    assert forward == 2 * (2 * 8 * 8 * 6) * (3 * 3 * 4 // groups)
    if groups == 1:  # Of the two gradients, each costs as much.
        both = jax.grad(lambda *a: convolve(*a).sum(), (0, 1))
        assert _work(both, *args).flops == pytest.approx(3 * forward - forward, rel=0.6)


def test_a_loop_counts_as_often_as_it_runs() -> None:
    def loop(matrix: jax.Array) -> jax.Array:
        body = jax.jit(lambda carry, _: (carry @ matrix, None))
        return jax.lax.scan(body, matrix, None, length=9)[0]

    once = _work(jnp.matmul, _shape(6, 6), _shape(6, 6))
    assert _work(loop, _shape(6, 6)) == (9 * once.flops, 9 * once.traffic)


def test_computing_activations_twice_costs_one_more_pass_forward() -> None:
    def layers(matrix: jax.Array, wrap: object) -> jax.Array:
        def all_of_them(h: jax.Array) -> jax.Array:
            for _ in range(5):
                h = jnp.tanh(h @ matrix)
            return h

        return wrap(all_of_them)(jnp.ones((6, 6))).sum()

    plain = _work(jax.grad(lambda m: layers(m, lambda f: f)), _shape(6, 6))
    remat = _work(jax.grad(lambda m: layers(m, jax.checkpoint)), _shape(6, 6))
    forward = _work(lambda m: layers(m, lambda f: f), _shape(6, 6))
    # The last product is not needed to go backward; XLA drops what JAX does not.
    assert remat.flops - plain.flops == pytest.approx(forward.flops, rel=0.21)


def test_the_count_of_the_network_agrees_with_the_compiler() -> None:
    from palette_jax.configs import uncrop

    config = uncrop.get_config("tiny").unlock()
    config.model.base_features, config.data.image_size = 16, 16
    params = jax.eval_shape(lambda: build.init_params(jax.random.key(0), config))
    network = build.make_network(config)
    images = _shape(2, 16, 16, 3)

    def apply(params: dict, x: jax.Array, gamma: jax.Array) -> jax.Array:
        return network.apply({"params": params}, x, x, gamma)

    args = params, images, _shape(2)
    compiled = jax.jit(apply).lower(*args).compile()
    theirs = compiled.cost_analysis()["flops"]
    # They leave out the zeros at the borders, and count what is no product too.
    assert _work(apply, *args).flops == pytest.approx(theirs, rel=0.3)


def test_values_are_held_from_where_they_are_made_to_their_last_use() -> None:
    def chain(h: jax.Array) -> jax.Array:
        for _ in range(8):
            h = jnp.sin(h)
        return h

    size = 4 * 1000
    straight = jax.make_jaxpr(chain)(_shape(1000))
    assert roofline.peak_bytes(straight) == 2 * size
    # Backward, each of the eight cosines waits for its turn.
    held = roofline.peak_bytes(
        jax.make_jaxpr(jax.grad(lambda h: chain(h).sum()))(_shape(1000))
    )
    assert 8 * size <= held <= 11 * size


def test_of_ways_for_several_platforms_the_plain_one_counts() -> None:
    def square(matrix: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(
            matrix, tpu=lambda m: m @ m @ m, default=lambda m: m @ m
        )

    assert _work(square, _shape(6, 6)) == _work(jnp.matmul, _shape(6, 6), _shape(6, 6))


def test_the_larger_of_two_branches_counts_whichever_it_is() -> None:
    def one(m: jax.Array) -> jax.Array:
        return m @ m

    def two(m: jax.Array) -> jax.Array:
        return m @ m @ m

    for branches in ((one, two), (two, one)):
        work = _work(lambda m, b=branches: jax.lax.cond(m[0, 0] > 0, *b, m), SQUARE)
        assert work == _work(two, SQUARE)


def test_work_that_devices_share_counts_for_all() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), "d")
    rows = PartitionSpec("d")
    shared = jax.shard_map(
        lambda a, b: a @ b, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows
    )
    whole = _work(jnp.matmul, _shape(8, 6), SQUARE)
    assert _work(shared, _shape(8, 6), SQUARE).flops == whole.flops


def test_what_a_loop_holds_inside_and_drops_is_held_then_alone() -> None:
    size = 4 * 100

    def through_a_square(h: jax.Array) -> jax.Array:
        body = lambda h, _: (jnp.outer(h, h).sum(0), None)  # noqa: E731
        return jax.lax.scan(body, h, None, length=3)[0]

    held = roofline.peak_bytes(jax.make_jaxpr(through_a_square)(_shape(100)))
    assert 100 * size <= held <= 110 * size

    def dropping(h: jax.Array, times: int) -> jax.Array:
        both = jax.jit(lambda h: (jnp.sin(h), jnp.cos(h)))
        for _ in range(times):
            h, _ = both(h)
        return h

    few, many = (
        roofline.peak_bytes(jax.make_jaxpr(lambda h, n=n: dropping(h, n))(_shape(100)))
        for n in (2, 9)
    )
    assert few == many


def test_a_tree_has_the_bytes_of_a_devices_share() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), "d")
    split = NamedSharding(mesh, PartitionSpec(None, "d"))
    tree = {
        "split": jax.ShapeDtypeStruct((3, 8), jnp.bfloat16, sharding=split),
        "whole": _shape(5),
    }
    assert roofline.tree_bytes(tree) == 3 * 2 * 2 + 5 * 4


def test_starts_small_types_and_loops_of_unknown_length_are_read() -> None:
    text = """HloModule step
%more (p: (s32[], f32[8])) -> pred[] {
  %n = s32[] constant(50)
  ROOT %gt = pred[] compare(%i, %n), direction=GT
}
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %r = f32[8]{0} reduce-scatter(%q), to_apply=%add
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%more, body=%body
  %a = (f32[8]{0}, bf16[4]{0}) all-reduce-start(%p, %q), to_apply=%add
  %b = (f32[2,8]{1,0}, f32[8,8]{1,0}) all-gather-start(%p), dimensions={0}
  %c = pred[16]{0} all-to-all(%p), dimensions={0}
  ROOT %d = s4[16]{0} collective-permute(%p), source_target_pairs={{0,1}}
}
"""
    assert roofline.count_collectives(text) == {
        "reduce-scatter": (1, 4 * 8),
        "all-reduce": (1, 4 * 8 + 2 * 4),  # A start of all is all results.
        "all-gather": (1, 4 * 8 * 8),  # Of others, the operand and the result.
        "all-to-all": (1, 16),
        "collective-permute": (1, 8),
    }


@pytest.mark.parametrize("length", [0, 5])
def test_communication_is_counted_by_kind_bytes_and_runs(length: int) -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), "d")
    whole = NamedSharding(mesh, PartitionSpec())
    rows = NamedSharding(mesh, PartitionSpec("d"))

    def gradient(weights: jax.Array, batch: jax.Array) -> jax.Array:
        return batch.T @ (batch @ weights)

    def step(weights: jax.Array, batch: jax.Array) -> jax.Array:
        if not length:
            return gradient(weights, batch)
        body = lambda w, _: (w - gradient(w, batch), None)  # noqa: E731
        return jax.lax.scan(body, weights, None, length=length)[0]

    args = (
        jax.ShapeDtypeStruct((16, 8), FLOAT, sharding=whole),
        jax.ShapeDtypeStruct((32, 16), FLOAT, sharding=rows),
    )
    text = jax.jit(step, out_shardings=whole).lower(*args).compile().as_text()
    runs = max(length, 1)
    assert roofline.count_collectives(text) == {"all-reduce": (runs, runs * 16 * 8 * 4)}


def test_what_libtpu_writes_is_read() -> None:
    # One that goes on beside computing: in the text twice, one chain. And a loop.
    text = """HloModule step
%begin (p: bf16[8,32]) -> bf16[32,32] {
  ROOT %g = bf16[32,32]{1,0:T(8,128)} all-gather(%p), channel_id=7, frontend_attributes={chain_id="0"}
}
%end (p: bf16[8,32]) -> bf16[32,32] {
  ROOT %g2 = bf16[32,32]{1,0:T(8,128)} all-gather(%p), channel_id=7, frontend_attributes={chain_id="0"}
}
%less (p: (s32[], f32[8])) -> pred[] {
  %n = s32[]{:T(128)} constant(50)
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %r = f32[8]{0} all-reduce(%q), channel_id=9, to_apply=%add
}
ENTRY %main (p: bf16[8,32]) -> bf16[32,32] {
  %w = (s32[], f32[8]) while(%t), condition=%less, body=%body
  %a = bf16[32,32] fusion(%p), kind=kCustom, calls=%begin
  %b = (f32[4,8], f32[4,8]) reduce-scatter-start(%q), channel_id=8, to_apply=%add
  ROOT %c = bf16[32,32] fusion(%p), kind=kCustom, calls=%end
}
"""
    assert roofline.count_collectives(text) == {
        "all-gather": (1, 2 * 32 * 32),
        "all-reduce": (50, 50 * 4 * 8),
        "reduce-scatter": (1, 4 * 4 * 8),
    }


def test_a_channel_of_several_and_a_reduction_that_is_scattered_are_told_apart() -> (
    None
):
    # As libtpu 0.0.42 writes the gradients of `fsdp`: all of them channel 1, each an
    # all-reduce of which a chip keeps its part.
    text = """HloModule step
%all-reduce-scatter.1 (p: bf16[32,8], q: bf16[64]) -> (bf16[8,8], bf16[16]) {
  %r = (bf16[32,8]{1,0:T(8,128)}, bf16[64]{0}) all-reduce(%p, %q), channel_id=1, to_apply=%add
  %s = bf16[8,8]{1,0:T(8,128)} dynamic-slice(%r0, %i, %z), dynamic_slice_sizes={8,8}
  %t = bf16[16]{0} dynamic-slice(%r1, %i), dynamic_slice_sizes={16}
  ROOT %u = (bf16[8,8]{1,0:T(8,128)}, bf16[16]{0}) tuple(%s, %t)
}
%all-reduce-scatter.2 (p: bf16[32,8]) -> bf16[8,8] {
  %r = bf16[32,8]{1,0:T(8,128)} all-reduce(%p), channel_id=1, to_apply=%add
  ROOT %s = bf16[8,8]{1,0:T(8,128)} dynamic-slice(%r, %i, %z), dynamic_slice_sizes={8,8}
}
ENTRY %main (p: bf16[32,8]) -> bf16[8,8] {
  %a = (bf16[8,8], bf16[16]) fusion(%p, %q), kind=kCustom, calls=%all-reduce-scatter.1
  %b = bf16[8,8] fusion(%p), kind=kCustom, calls=%all-reduce-scatter.2
  %c = f32[128]{0} all-reduce(%v), channel_id=1, to_apply=%add
  %d = f32[128]{0} all-reduce(%w), channel_id=1, to_apply=%add
  ROOT %e = bf16[8,8] add(%b, %b)
}
"""
    assert roofline.count_collectives(text) == {
        "all-reduce": (2, 2 * 4 * 128),
        "reduce-scatter": (2, 2 * (8 * 8 + 16) + 2 * 8 * 8),
    }
