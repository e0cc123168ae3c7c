"""Adam, its warm-up and clipping, and the averaged weights, against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from palette_jax.training import optimizer


def _moves(
    adam: optax.GradientTransformation, gradients: list[dict]
) -> list[dict[str, np.ndarray]]:
    """Returns by how much each gradient in turn moves the weights."""
    params = jax.tree.map(jnp.ones_like, gradients[0])  # The paper decays none.
    opt_state, moves = adam.init(params), []
    for gradient in gradients:
        update, opt_state = adam.update(gradient, opt_state, params)
        moves.append(jax.device_get(update))
    return moves


def _adam(gradients: np.ndarray, rate: float, b1: float, b2: float) -> np.ndarray:
    """Kingma & Ba (2015), algorithm 1, written down once more in float64."""
    m, v, moves = 0.0, 0.0, []
    for n, g in enumerate(gradients.astype(np.float64), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        moves.append(-rate * m / (1 - b1**n) / (np.sqrt(v / (1 - b2**n)) + 1e-8))
    return np.stack(moves)


def test_the_first_step_is_the_rate_against_the_sign_of_the_gradient() -> None:
    gradient = {"w": jnp.array([1e-3, -2.0, 3e4]), "b": jnp.array(-0.1)}
    (move,) = _moves(optimizer.make_optimizer(1e-3, 0), [gradient])
    for name, g in gradient.items():
        np.testing.assert_allclose(move[name], -1e-3 * np.sign(g), rtol=1e-4)


@pytest.mark.parametrize("warmup", [0, 1, 5, 100])
def test_the_rate_rises_in_a_line_and_stays(warmup: int) -> None:
    # A constant gradient moves Adam by the rate, whatever its decays are.
    steps = [{"w": jnp.float32(0.3)}] * 12
    moves = _moves(optimizer.make_optimizer(0.02, warmup), steps)
    rates = [-float(move["w"]) for move in moves]
    expected = [0.02 * min(n / max(warmup, 1), 1) for n in range(1, 13)]
    np.testing.assert_allclose(rates, expected, rtol=1e-4)


def test_it_is_adam() -> None:
    rng = np.random.default_rng(0)
    gradients = (rng.normal(size=(30, 5)) * 10.0 ** rng.integers(-3, 3, 5)).astype("f4")
    adam = optimizer.make_optimizer(0.01, 0, b1=0.8, b2=0.99)
    moves = _moves(adam, [{"w": jnp.array(g)} for g in gradients])
    got = np.stack([move["w"] for move in moves])
    expected = _adam(gradients, 0.01, 0.8, 0.99)
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("muon", [False, True])
def test_clipping_scales_a_gradient_to_the_norm_over_all_weights(muon: bool) -> None:
    # Neither sees the scale of its first gradient: so look at the second.
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=(2, 3, 3)).astype("f4")
    gradients *= np.array([40.0, 0.1], "f4")[:, None, None]
    clipped = gradients.copy()
    clipped[0] /= np.linalg.norm(clipped[0])
    assert np.linalg.norm(clipped[1]) < 1

    def moves(gradients: np.ndarray, clip_norm: float | None) -> np.ndarray:
        rule = optimizer.make_optimizer(0.01, 0, clip_norm=clip_norm, muon=muon)
        parts = [{"a": jnp.array(g[:2]), "b": jnp.array(g[2])} for g in gradients]
        return np.stack([np.vstack([m["a"], m["b"]]) for m in _moves(rule, parts)])

    expected = moves(clipped, None)
    np.testing.assert_allclose(moves(gradients, 1.0), expected, rtol=1e-3, atol=1e-6)
    assert np.abs(expected[1] - moves(gradients, None)[1]).max() > 1e-3


def test_the_average_forgets_where_it_began_as_warm_up_says() -> None:
    # (1 + t) / (10 + t), multiplied over n steps, is n! 9! / (n + 9)!.
    ema, params = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
    for t in range(12):
        decay = optimizer.ema_decay_at(jnp.int32(t), 0.9999)
        ema = optimizer.update_ema(ema, params, decay)
        n = t + 1
        left = math.factorial(n) * math.factorial(9) / math.factorial(n + 9)
        np.testing.assert_allclose(ema["w"], 1 - left, rtol=1e-5)


def test_the_average_warms_up_and_then_moves_slowly() -> None:
    steps = (0, 10, 10**4, 10**6)
    decays = [float(optimizer.ema_decay_at(jnp.int32(n), 0.999)) for n in steps]
    assert decays == pytest.approx([0.1, 0.55, 0.999, 0.999])
    ema = {"w": jnp.float32(0)}
    for _ in range(10):
        ema = optimizer.update_ema(ema, {"w": jnp.float32(1)}, jnp.float32(0.9))
    assert float(ema["w"]) == pytest.approx(1 - 0.9**10, rel=1e-5)


def test_weights_that_do_not_move_are_their_own_average_to_the_bit() -> None:
    params = {"w": jax.random.normal(jax.random.key(0), (1000,))}
    ema = optimizer.update_ema(params, params, jnp.float32(0.9999))
    np.testing.assert_array_equal(ema["w"], params["w"])


def test_the_rate_falls_in_a_line_at_the_end() -> None:
    steps = [{"w": jnp.float32(0.3)}] * 12
    adam = optimizer.make_optimizer(0.02, 2, num_steps=10, decay_steps=4)
    rates = [-float(move["w"]) for move in _moves(adam, steps)]
    # A run that is given more steps once it is complete stays where it is.
    shares = [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    np.testing.assert_allclose(rates, [0.02 * s for s in shares], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("shape", [(3, 3, 8, 24), (40, 10)])
def test_muon_moves_a_kernel_by_an_orthogonal_matrix(shape: tuple[int, ...]) -> None:
    gradient = jax.random.normal(jax.random.key(0), shape)
    tree = {"block": {"kernel": gradient, "bias": jnp.array([2.0, -3.0])}}
    (move,) = _moves(optimizer.make_optimizer(1e-2, 0, muon=True), [tree])
    # All singular values are near one number, so that each entry moves as with Adam:
    # by 0.2 of the rate in the mean square (Liu et al. 2025, equation 4).
    matrix = np.asarray(move["block"]["kernel"]).reshape(-1, shape[-1])
    values = np.linalg.svd(matrix, compute_uv=False)
    expected = 1e-2 * 0.2 * math.sqrt(max(matrix.shape))
    assert 0.65 * expected < values.min() <= values.max() < 1.25 * expected
    # Nesterov's momentum makes the first step of Adam half as long again.
    np.testing.assert_allclose(move["block"]["bias"], [-1.47e-2, 1.47e-2], rtol=0.01)


@pytest.mark.parametrize("name", ["conv_in", "conv_out"])
def test_muon_leaves_the_layers_at_the_pixels_to_adam(name: str) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    gradients = [{name: {"kernel": jax.random.normal(k, (3, 3, 6, 8))}} for k in keys]
    rule = optimizer.make_optimizer(1e-2, 0, b1=0.8, b2=0.95, muon=True)
    nadam = optax.nadam(1e-2, b1=0.8, b2=0.95)
    for move, wanted in zip(
        _moves(rule, gradients), _moves(nadam, gradients), strict=True
    ):
        got, expected = move[name]["kernel"], wanted[name]["kernel"]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)
