"""Builds the training state, step and held-out loss from a ConfigDict."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array

from palette_jax import parallel
from palette_jax.config import build, build_restorer, identity
from palette_jax.config.values import ConfigError
from palette_jax.diffusion import distillation, objective
from palette_jax.diffusion.schedules import NoiseSchedule
from palette_jax.restoration.batch import predictor
from palette_jax.training.state import TrainState, make_state
from palette_jax.training.step import StepFn, make_train_step
from palette_jax.types import Params

_LOSSES = {
    "denoise": objective.denoising_loss,
    "velocity": objective.velocity_loss,
    "regress": objective.regression_loss,
}


def load_teacher(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> tuple[tuple[Params, ...], int]:
    """Returns the weights of a student's teacher, split over the devices, and a hash.

    Raises:
      ConfigError: if the weights are of another network.
    """
    if not config.distill.steps:
        return (), 0
    theirs, params, _ = build_restorer.load_weights(config.distill.teacher)
    wrong = identity.changes(identity.network(theirs), identity.network(config))
    if wrong:
        raise ConfigError(
            f"expected the network of the teacher {config.distill.teacher}, got"
            f" another: {'; '.join(wrong)}; a student must have the same values"
        )
    split = jax.device_put(params, parallel.param_shardings(mesh, params))
    return (split,), build_restorer.crc32(params)


def abstract_state(
    config: ml_collections.ConfigDict,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> tuple[TrainState, Any]:
    """Returns the shapes of a run's state with their shardings, and the shardings."""
    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(
        lambda key: make_state(build.init_params(key, config), optimizer), key
    )
    shardings = parallel.param_shardings(mesh, shapes)
    return parallel.with_shardings(shapes, shardings), shardings


def init_state(
    config: ml_collections.ConfigDict,
    optimizer: optax.GradientTransformation,
    shardings: Any,
    *,
    teacher: tuple[Params, ...] = (),
) -> TrainState:
    """Returns the state before the first step, drawn or with a teacher's weights."""
    if teacher:
        # A copy: the step overwrites the state's buffers but needs the teacher's.
        start = jax.jit(
            lambda params: make_state(jax.tree.map(jnp.copy, params), optimizer),
            out_shardings=shardings,
        )
        return start(*teacher)
    # Optimizing hundreds of small draws takes far longer than running them unoptimized.
    on_cpu = jax.default_backend() == "cpu"
    options: Any = {"xla_backend_optimization_level": 0} if on_cpu else None
    init = jax.jit(
        lambda key: make_state(build.init_params(key, config), optimizer),
        out_shardings=shardings,
    )
    key = jax.random.key(config.seed)
    return init.lower(key).compile(compiler_options=options)(key)


def compile_step(
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    shardings: Any,
    *,
    teacher: tuple[Params, ...] = (),
) -> parallel.Step:
    """Returns the training step, whose batch is this host's share."""
    pmapped = config.parallel.compile == "pmap"
    step = make_step(config, axis_name=parallel.PMAP_AXIS if pmapped else None)
    if pmapped:
        return parallel.pmap_step(step, mesh)
    compiled = parallel.jit_step(step, mesh, shardings)
    return lambda state, batch: compiled(
        state, parallel.to_global(mesh, batch), *teacher
    )


def make_loss(
    config: ml_collections.ConfigDict,
) -> tuple[objective.ObjectiveFn, NoiseSchedule]:
    """Returns the training loss and its noise levels.

    The loss of a student also takes the weights of its teacher, after the levels.
    """
    kind = config.diffusion.objective
    if not config.distill.steps:
        return _LOSSES[kind], build.make_schedule(config)
    bind, floor = build.make_predictor(config), build.schedule_end(config)

    def loss(
        keys: Array,
        network: Callable[..., Array],
        batch: Any,
        schedule: NoiseSchedule,
        teacher: Params,
        *,
        norm: Any,
    ) -> Any:
        student = predictor(
            lambda _, *args: network(*args),
            {},
            objective=kind,
            gamma_floor=floor,
            patch_size=config.model.patch_size,
        )
        return distillation.distillation_loss(
            keys,
            student,
            batch,
            schedule,
            teacher=bind(teacher),
            num_segments=config.distill.steps,
            norm=norm,
        )

    return loss, build.sampling_schedule(config, config.distill.teacher_steps)


def make_step(
    config: ml_collections.ConfigDict,
    *,
    optimizer: optax.GradientTransformation | None = None,
    axis_name: str | None = None,
    platform: str | None = None,
) -> StepFn:
    """Builds the training step, not yet compiled, for this or another platform.

    `optimizer` replaces the config's; `axis_name` is that of `jax.pmap`.
    """
    loss, schedule = make_loss(config)
    return make_train_step(
        jax.random.key(config.seed),
        build.make_network(config),
        optimizer or build.make_optimizer(config),
        schedule,
        loss=loss,
        norm=config.diffusion.loss_norm,
        ema_decay=config.optim.ema_decay,
        accumulate=config.optim.accumulate,
        axis_name=axis_name,
        platform=platform,
    )


def make_held_out_loss(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> Callable[..., tuple[Array, Array]]:
    """Returns a function that sums the losses of a batch and counts its pictures.

    Its arguments are the weights, a batch and, for a student, the teacher's weights. A
    batch has `id`, which seeds the noise, and `valid` beside `x`, `y`, `hole`.
    """
    loss, schedule = make_loss(config)
    losses = functools.partial(
        _held_out_losses,
        build.make_network(config),
        schedule,
        loss,
        config.diffusion.loss_norm,
    )
    return jax.jit(
        parallel.in_mesh(losses, mesh), compiler_options=parallel.compiler_options(mesh)
    )


def _held_out_losses(
    network: nn.Module,
    schedule: NoiseSchedule,
    loss: objective.ObjectiveFn,
    norm: Literal["l1", "l2"],
    params: Params,
    batch: dict[str, Array],
    *teacher: Params,
) -> tuple[Array, Array]:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), batch["id"])

    def apply(x: Array, y_t: Array, gamma: Array) -> Array:
        output: Any = network.apply({"params": params}, x, y_t, gamma)
        return output

    pictures: Any = {name: batch[name] for name in ("x", "y", "hole")}
    losses, _ = loss(keys, apply, pictures, schedule, *teacher, norm=norm)
    return jnp.where(batch["valid"], losses, 0).sum(), batch["valid"].sum()
