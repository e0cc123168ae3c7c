"""Laws that every sampler obeys; a network is replaced by what is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.tree_util import Partial

from palette_jax.diffusion import objective, samplers, sampling, schedules

TRAINED = schedules.linear_schedule(2000, 1e-6, 0.01)
CURVE = schedules.linear_schedule(1000, 1e-4, 0.09)
MAKERS = {
    "ddpm_large": samplers.ddpm,
    "ddpm_small": lambda schedule: samplers.ddpm(schedule, variance="small"),
    "ddim": samplers.ddim,
    "ddim_half": lambda schedule: samplers.ddim(schedule, eta=0.5),
    "dpmpp_2m": samplers.dpmpp_2m,
    "unipc_2": lambda schedule: samplers.unipc(schedule, order=2),
    "unipc_3": lambda schedule: samplers.unipc(schedule, order=3),
}
SOLVERS = ("ddim", "dpmpp_2m", "unipc_2", "unipc_3")


def _trimmed(num_steps: int, exponent: float = 1.0) -> schedules.NoiseSchedule:
    floor = float(TRAINED.gamma[-1])
    return schedules.respace(CURVE, num_steps, gamma_floor=floor, exponent=exponent)


def _oracle(y: Array, x: Array, y_t: Array, gamma: Array) -> Array:
    """The picture, whatever is shown."""
    return y


def _gaussian(mean: Array, variance: float, x: Array, y_t: Array, g: Array) -> Array:
    """The best prediction if pixels are independent normal numbers around a mean."""
    g = g[:, None, None, None]
    share = variance * jnp.sqrt(g) / (variance * g + 1 - g)
    return mean + share * (y_t - jnp.sqrt(g) * mean)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("num_steps", [1, 2, 20, 100])
def test_an_exact_predictor_gives_back_the_target(name: str, num_steps: int) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    y = jax.random.uniform(jax.random.key(1), (3, 4, 4, 3), minval=-1.0)
    ones = jnp.ones((3, 4, 4, 1))
    out = sampling.sample(
        keys, Partial(_oracle, y), y * 0, ones, MAKERS[name](_trimmed(num_steps))
    )
    np.testing.assert_allclose(out, y, atol=1e-5)


@pytest.mark.parametrize(
    # Sampling in n steps is off by O(1/n) in the variance for the methods of order 1;
    # the constants are those of this schedule, from the recursion in float64 below.
    "name",
    list(MAKERS),
)
def test_gaussian_data_comes_out_with_its_mean_and_variance(name: str) -> None:
    mean, variance, count = 0.3, 0.04, 4096
    sampler = MAKERS[name](_trimmed(400))
    shape = (count, 2, 2, 1)
    out = sampling.sample(
        jax.random.split(jax.random.key(2), count),
        Partial(_gaussian, jnp.float32(mean), variance),
        jnp.zeros(shape),
        jnp.ones(shape),
        sampler,
    )
    expected_mean, expected_variance = _moments(sampler, mean, variance)
    pixels = out.size
    # Five standard errors of a mean and of a variance.
    mean_error = 5 * np.sqrt(expected_variance / pixels)
    variance_error = 5 * expected_variance * np.sqrt(2 / pixels)
    assert float(out.mean()) == pytest.approx(expected_mean, abs=mean_error)
    assert float(out.var()) == pytest.approx(expected_variance, abs=variance_error)
    # And the recursion itself is near the truth, nearer with more steps.
    fine = MAKERS[name](_trimmed(4000))
    assert expected_variance == pytest.approx(variance, rel=0.1)
    assert _moments(fine, mean, variance)[1] == pytest.approx(variance, rel=0.012)


def _moments(
    sampler: samplers.Sampler, mean: float, variance: float
) -> tuple[float, float]:
    """Follows mean and covariance of all that a step is linear in, in float64."""
    size = sampler.step.shape[1]
    center, spread = np.zeros(size), np.zeros((size, size))
    spread[:2, :2] = 1.0  # y_t, and the corrected picture that starts equal to it.
    for g, v, step, correct, std in zip(*sampler, strict=True):
        share = variance * np.sqrt(g) / (variance * g + v)
        # First the network adds its estimate, then the rules combine all.
        ask, rules = np.zeros((size, size)), np.zeros((size, size))
        ask[0, 0] = ask[1, 1] = 1.0
        ask[2, 0] = share
        ask[3:, 2:-1] = np.eye(size - 3)
        rules[0], rules[1] = step, correct
        rules[2:, 2:] = np.eye(size - 2)
        offset = np.zeros(size)
        offset[2] = mean * (1 - share * np.sqrt(g))
        whole = rules @ ask
        center = whole @ center + rules @ offset
        spread = whole @ spread @ whole.T
        spread[0, 0] += std**2
    return float(center[0]), float(spread[0, 0])


@pytest.mark.parametrize(
    # The last jump, to the clean picture, has order 1 for all of them; with cubic
    # spacing it starts so near to it that the order of the other steps shows.
    ("name", "order"),
    [("ddim", 1), ("dpmpp_2m", 2), ("unipc_2", 2.5), ("unipc_3", 3)],
)
def test_the_error_falls_with_the_order_of_the_solver(name: str, order: float) -> None:
    def error(num_steps: int) -> float:
        sampler = MAKERS[name](_trimmed(num_steps, exponent=3.0))
        return abs(np.sqrt(_moments(sampler, 0.3, 0.04)[1]) - 0.2)

    measured = np.log2(error(40) / error(80))
    assert measured > order - 0.35


def test_with_quadratic_spacing_eight_steps_are_as_good_as_many_even_ones() -> None:
    def error(name: str, num_steps: int, exponent: float) -> float:
        sampler = MAKERS[name](_trimmed(num_steps, exponent))
        return abs(np.sqrt(_moments(sampler, 0.3, 0.04)[1]) - 0.2)

    for name in SOLVERS[1:]:
        assert error(name, 8, 2.0) < error(name, 8, 1.0)
        assert error(name, 8, 2.0) < error("ddim", 25, 1.0)


def test_one_step_of_an_exact_velocity_gives_the_picture() -> None:
    rng = np.random.default_rng(0)
    y, noise = (jnp.array(rng.normal(size=(2, 4, 4, 3)), jnp.float32) for _ in range(2))
    # The literal schedule starts at a gamma of 7e-21: a division by its root loses all.
    sampler = samplers.ddim(schedules.respace(CURVE, 1))

    def predict(x: Array, y_t: Array, gamma: Array) -> Array:
        g = gamma[:, None, None, None]
        velocity = jnp.sqrt(g) * noise - jnp.sqrt(1 - g) * y
        return objective.picture_from_velocity(velocity, y_t, gamma)

    keys = jax.random.split(jax.random.key(0), 2)
    out = sampling.sample(keys, predict, y * 0, jnp.ones((2, 4, 4, 1)), sampler)
    np.testing.assert_allclose(out, y, atol=1e-5)


def test_dpmpp_2m_is_its_algorithm_2() -> None:
    sampler = samplers.dpmpp_2m(_trimmed(9))
    alpha, sigma = np.sqrt(sampler.gamma), np.sqrt(sampler.var)
    log_snr = np.log(alpha / sigma)
    for i in range(1, 8):
        h, before = log_snr[i + 1] - log_snr[i], log_snr[i] - log_snr[i - 1]
        extra = h / (2 * before)  # Line 7: 1 / (2 r).
        to_picture = -alpha[i + 1] * np.expm1(-h)
        wanted = [sigma[i + 1] / sigma[i], 0.0]
        wanted += [to_picture * (1 + extra), -to_picture * extra, 0.0, 0.0]
        np.testing.assert_allclose(sampler.step[i], wanted, rtol=1e-9)


def test_ddim_with_eta_1_is_ancestral_sampling_with_the_small_variance() -> None:
    schedule = _trimmed(30)
    ddim = samplers.ddim(schedule, eta=1.0)
    for column, other in zip(
        ddim, samplers.ddpm(schedule, variance="small"), strict=True
    ):
        np.testing.assert_allclose(column, other, rtol=1e-9, atol=1e-12)


def test_the_papers_mean_is_its_algorithm_2_line_4() -> None:
    sampler = samplers.ddpm(CURVE)
    alpha = (CURVE.gamma / np.append(1.0, CURVE.gamma[:-1]))[::-1]
    # 1/sqrt(alpha) (y_t - (1 - alpha) / sqrt(1 - gamma) eps), written in y_t and y_0.
    from_eps = -(1 - alpha) / np.sqrt(sampler.var) / np.sqrt(alpha)
    from_y_0 = -from_eps * np.sqrt(sampler.gamma / sampler.var)
    from_y_t = 1 / np.sqrt(alpha) + from_eps / np.sqrt(sampler.var)
    np.testing.assert_allclose(sampler.step[:, 2], from_y_0, rtol=1e-6, atol=1e-13)
    np.testing.assert_allclose(sampler.step[:, 0], from_y_t, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(sampler.std[:-1], np.sqrt(1 - alpha)[:-1], rtol=1e-9)
    assert sampler.std[-1] == 0


@pytest.mark.parametrize("name", MAKERS)
def test_known_pixels_are_kept_to_the_bit(name: str) -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
    mask = jnp.zeros((2, 4, 4, 1)).at[:, 1:3, 1:3].set(1)
    seen: list[Array] = []
    out = sampling.sample(
        keys,
        lambda x, y_t, gamma: 0.5 * y_t,
        x,
        mask,
        MAKERS[name](_trimmed(5)),
        callback=lambda step, y_0: seen.append(y_0),
    )
    known = np.broadcast_to(mask == 0, x.shape)
    for picture in (*seen, out):  # In previews too.
        np.testing.assert_array_equal(np.asarray(picture)[known], np.asarray(x)[known])
    assert not np.any(np.asarray(out)[~known] == np.asarray(x)[~known])


@pytest.mark.parametrize("name", MAKERS)
def test_the_network_sees_the_clean_pixels_outside_the_mask(name: str) -> None:
    x = jnp.full((1, 4, 4, 1), 0.25)
    mask = jnp.zeros((1, 4, 4, 1)).at[:, :2].set(1)

    def predict(x: Array, y_t: Array, gamma: Array) -> Array:
        # All NaN, should a known pixel of y_t ever differ from x.
        return jnp.where(((mask == 0) & (y_t != x)).any(), jnp.nan, 0 * y_t)

    keys = jax.random.split(jax.random.key(0), 1)
    sampler = MAKERS[name](_trimmed(5))
    out = sampling.sample(keys, predict, x, mask, sampler, clip=True)
    assert bool(jnp.isfinite(out).all())


def test_a_picture_is_the_same_alone_and_in_a_batch() -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(jax.random.key(1), (4, 4, 4, 3))
    mask = jnp.ones((4, 4, 4, 1))
    predict = Partial(_gaussian, jnp.float32(0.1), 0.5)
    sampler = samplers.ddpm(_trimmed(6))
    together = sampling.sample(keys, predict, x, mask, sampler)
    for i in range(4):
        one = slice(i, i + 1)
        alone = sampling.sample(keys[one], predict, x[one], mask[one], sampler)
        np.testing.assert_array_equal(alone, together[one])


def test_every_noise_of_every_picture_is_drawn_for_itself() -> None:
    # Each step keeps the noisy picture and adds noise: the differences are the noises.
    stays = np.zeros((3, 6))
    stays[:, 0] = 1.0
    level = np.full(3, 0.5)
    sampler = samplers.Sampler(level, level, stays, 0 * stays, np.ones(3))
    seen: list[Array] = []
    out = sampling.sample(
        jax.random.split(jax.random.key(0), 2),
        lambda x, y_t, gamma: y_t,
        jnp.zeros((2, 16, 16, 3)),
        jnp.ones((2, 16, 16, 1)),
        sampler,
        callback=lambda step, y_0: seen.append(y_0),
    )
    noises = np.diff(np.stack([0 * out, *seen, out]), axis=0).reshape(8, -1)
    correlation = np.corrcoef(noises) - np.eye(8)
    assert abs(correlation).max() < 0.2  # More than five standard errors.
    np.testing.assert_allclose(noises.std(1), 1, atol=0.15)


def test_estimates_are_clipped_on_request_and_are_what_the_callback_sees() -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    x, mask = jnp.zeros((2, 4, 4, 3)), jnp.ones((2, 4, 4, 1))
    y = jax.random.uniform(jax.random.key(1), x.shape, minval=-2.0, maxval=2.0)
    for clip, wanted in ((False, y), (True, jnp.clip(y, -1, 1))):
        seen: list[Array] = []
        out = sampling.sample(
            keys,
            Partial(_oracle, y),
            x,
            mask,
            samplers.ddpm(_trimmed(6)),
            clip=clip,
            callback=lambda step, y_0, seen=seen: seen.append(y_0),
        )
        for picture in (*seen, out):
            np.testing.assert_allclose(picture, wanted, atol=1e-5)
        assert len(seen) == 6


def test_the_callback_sees_every_step_and_changes_nothing() -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    x, mask = jnp.zeros((2, 4, 4, 3)), jnp.ones((2, 4, 4, 1))
    predict = Partial(_gaussian, jnp.float32(0.1), 0.5)
    for sampler in (samplers.ddpm(_trimmed(10)), samplers.unipc(_trimmed(10), order=3)):
        whole = sampling.sample(keys, predict, x, mask, sampler)
        done: list[int] = []
        watched = sampling.sample(
            keys,
            predict,
            x,
            mask,
            sampler,
            callback=lambda step, y_0, done=done: done.append(step),
        )
        np.testing.assert_allclose(watched, whole, rtol=1e-5, atol=1e-6)
        assert done == list(range(1, 11))
