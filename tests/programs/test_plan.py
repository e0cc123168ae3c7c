"""--mode=plan: what it says of a machine that need not exist."""

import importlib.util
import pathlib
import re
import sys
from collections.abc import Callable

import jax
import ml_collections
import pytest

from palette_jax import parallel
from palette_jax.config import build
from palette_jax.configs import uncrop
from palette_jax.errors import UserError
from palette_jax.planning import roofline, steps, topology
from palette_jax.planning.load import Load, advice, largest, measure
from palette_jax.training.state import make_state
from tests.programs.conftest import TINY

CONFIG = f"--config={pathlib.Path(uncrop.__file__)}:tiny"
HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None


def _config(**groups: dict) -> ml_collections.ConfigDict:
    config = uncrop.get_config("tiny").unlock()
    config.data.image_size = 8
    config.model.base_features = 8
    config.model.feature_multipliers = (1, 2)
    config.model.attn_resolutions = (4,)
    config.train.batch_size = config.eval.batch_size = 8
    config.sample.num_steps = 3
    for group, changes in groups.items():
        config[group].update(changes)
    return config


def _compiled(config: ml_collections.ConfigDict) -> steps.Compiled:
    cpu = topology.find("cpu")
    return steps.compile_step(steps.training_step(config, cpu), cpu)


def test_a_plan_for_this_machine_says_all(
    main: Callable, tmp_path: pathlib.Path
) -> None:
    result = main("--mode=plan", "--topology=cpu", CONFIG, *TINY, folder=tmp_path)
    assert result.code == 0, result.output
    for words in (
        "4 x CPU, measured",
        "parameters: 53,",
        "arguments",
        "temporaries",
        "aliased",
        "all-reduce",
        "TFLOP",
        "roofline",
        "images/s",
        "4 steps at the roofline",
        "chip-hours",
        "sampling: batch 4, 2 steps of unipc_2",
    ):
        assert words in result.output, words
    assert not list(tmp_path.glob("*/*")), "a plan writes nothing"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5e", ["v5e:4x4", "gpu:80GB", "cpu"]),
        ("v9z:4x4", ["v5e:4x4", "'v9z:4x4'"]),
        ("v4:4x4", ["v4:2x2x4"]),
        ("gpu:81GB", ["gpu:80GB", "'gpu:81GB'"]),
        ("", ["expected --topology out of cpu"]),
    ],
)
def test_an_unknown_machine_is_refused_with_those_known(
    name: str, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        topology.find(name)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_missing_compiler_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(UserError, match=r"palette-jax\[tpu\]"):
        topology.find("v5e:4x4")


def test_rates_are_known_by_what_jax_calls_a_device() -> None:
    rates = {
        kind: topology.peak_flops(kind)
        for kind in ("TPU v5 lite", "TPU v5", "TPU v6 lite", "NVIDIA L40S", "cpu")
    }
    assert rates == {
        "TPU v5 lite": 197e12,
        "TPU v5": 459e12,
        "TPU v6 lite": 918e12,
        "NVIDIA L40S": 362e12,
        "cpu": None,
    }


@pytest.mark.skipif(
    not HAS_LIBTPU,
    reason="expected the package libtpu, which compiles for TPUs without them; install"
    " the extra: pip install 'palette-jax[tpu]'",
)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chips"),
    [("v5e:2x2", 4), ("v4:2x2x1", 4), ("v6e:1x1", 1), ("2*v5e:2x2", 8)],
)
def test_the_step_compiles_for_a_tpu_that_is_not_there(name: str, chips: int) -> None:
    machine = topology.find(name)
    assert len(machine.devices) == chips
    step = steps.sampling_step(_config(), machine)
    found = steps.compile_step(step, machine)
    assert found.memory["arguments"] >= roofline.tree_bytes(step.arguments)
    assert found.needed < machine.chip.memory


def test_other_options_of_the_compiler_are_another_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    cpu = topology.find("cpu")
    step = steps.sampling_step(_config(), cpu)
    for options in ({}, {}, {"xla_cpu_enable_fast_math": True}):
        steps.compile_step(step._replace(options=options), cpu)
    plans = list((tmp_path / "plans").iterdir())
    assert len(plans) == 2
    for plan in plans:
        plan.write_text(plan.read_text()[:20])  # As after a kill, or on a full disk.
    steps.compile_step(step._replace(options={}), cpu)


def test_arguments_are_the_state_and_the_batch() -> None:
    config = _config()
    params = jax.jit(lambda: build.init_params(jax.random.key(0), config))()
    state = make_state(params, build.make_optimizer(config))
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    batch_bytes = 8 * 8 * 8 * (3 + 3 + 1)
    found = _compiled(config)
    assert found.memory["arguments"] == state_bytes + batch_bytes // 4
    # What is donated takes no second place.
    assert found.memory["aliased"] == pytest.approx(state_bytes, abs=64)


@pytest.mark.slow
def test_fsdp_splits_the_state_and_pmap_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "MIN_SHARDED", 1)
    whole, split = _compiled(_config()), _compiled(_config(parallel={"fsdp": 4}))
    assert split.memory["arguments"] < 0.4 * whole.memory["arguments"]
    assert "all-gather" in split.collectives
    assert "all-gather" not in whole.collectives
    mapped = _compiled(_config(parallel={"compile": "pmap"}))
    assert mapped.memory["arguments"] == whole.memory["arguments"]
    assert mapped.flops == pytest.approx(whole.flops, rel=0.05)


def test_pmap_and_jit_count_the_same_work() -> None:
    cpu = topology.find("cpu")
    jitted, mapped = (
        roofline.count_work(
            steps.training_step(_config(parallel={"compile": how}), cpu).traced.jaxpr
        )
        for how in ("jit", "pmap")
    )
    assert mapped.flops == jitted.flops


def test_the_estimate_for_a_gpu_is_near_what_a_compiler_says() -> None:
    config = _config(train={"batch_size": 64})
    gpu, cpu = topology.find("gpu:80GB"), topology.find("cpu")
    one = topology.Topology("cpu", cpu.chip, cpu.devices[:1], True)
    estimated = roofline.peak_bytes(steps.training_step(config, gpu).traced.jaxpr)
    found = steps.compile_step(steps.training_step(config, one), one)
    assert 0.5 < estimated / found.needed < 2


@pytest.mark.slow
def test_where_it_does_not_fit_a_flag_is_named_and_the_largest_batch_found(
    main: Callable, tmp_path: pathlib.Path
) -> None:
    args = ("--mode=plan", "--topology=gpu:24GB", CONFIG, *TINY)
    args += ("--search_batch", f"--config.train.batch_size={2**20}")
    result = main(*args, folder=tmp_path)
    assert result.code == 1 and "AN ESTIMATE" in result.output, result.output
    assert "does not fit: try --config.model.remat" in result.output
    best = int(re.search(r"^  --config.train.batch_size=(\d+)", result.output, re.M)[1])
    tried = {
        int(batch): float(gib)
        for batch, gib in re.findall(r"^  (\d+): ([\d.]+) GiB", result.output, re.M)
    }
    limit = 0.95 * 24e9 / 2**30
    assert tried[best] <= limit
    too_large = min(batch for batch, gib in tried.items() if gib > limit)
    assert best < too_large <= 1.125 * best


@pytest.mark.parametrize("state", [0.0, 10.0, 99.0])
@pytest.mark.parametrize("power", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("room", [50.0, 100.0, 3e6])
def test_the_search_ends_an_eighth_below_what_does_not_fit(
    state: float, power: float, room: float
) -> None:
    asked = []

    def needed(count: int) -> float:
        asked.append(count)
        return state + 2 * count**power

    best = largest(needed, room)
    if not best:
        assert needed(1) > room
        return
    assert needed(best) <= room
    assert needed(best + max(1, best // 8)) > room
    assert len(asked) < 25


@pytest.mark.parametrize("compile_by", ["jit", "pmap"])
@pytest.mark.parametrize("state_share", [0.1, 0.9])
def test_the_advice_can_be_followed_to_its_end(
    compile_by: str, state_share: float
) -> None:
    config = _config(train={"batch_size": 64}, parallel={"compile": compile_by})
    load = Load({"arguments": state_share}, 1.0, 0, 0, "", 0, "")
    followed = []
    while "no flag is left" not in (said := advice(config, 8, load)):
        for key, value in re.findall(r"--config\.([\w.]+)(?:=(\d+))?", said):
            group, name = key.split(".")
            config[group][name] = int(value) if value else True
            followed.append(name)
        build.check(config, num_devices=8)  # Nothing is named that would be refused.
        assert len(followed) < 40
    order = ["remat", "accumulate", "fsdp", "batch_size"]
    if compile_by == "pmap":
        order.remove("fsdp")
    elif state_share > 0.5:
        order = ["fsdp", "remat", "accumulate", "batch_size"]
    assert [name for name in dict.fromkeys(followed)] == order


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory. Used 22.5G of 15.75G hbm.",
            22.5 * 2**30,
        ),
        ("RESOURCE_EXHAUSTED: Used 512.0M of 256.0M hbm", 2**29),
        ("RESOURCE_EXHAUSTED: allocating 3 bytes (1.5K) failed", 1536),
        ("RESOURCE_EXHAUSTED: Used 2T of 1T", 2**41),
        ("RESOURCE_EXHAUSTED: no number", 0),
        ("INVALID_ARGUMENT: Used 22.5G of 15.75G hbm", 0),
    ],
)
def test_what_a_compiler_lacks_is_read_in_its_unit(message: str, size: float) -> None:
    assert steps._needed(message) == size


_CHIP = topology.Chip("slow", flops=1e12, bandwidth=1e9, memory=1e9)


@pytest.mark.parametrize(
    ("flops", "traffic", "counted", "seconds", "bound"),
    [
        (6e12, 5e9, (6e12, 5e9), 6, "computing"),
        (6e12, 7e9, (6e12, 7e9), 7, "memory traffic"),
        (1e12, 7e9, (4e12, 3e9), 4, "computing"),  # A loop was taken for one run.
        (9e12, 7e9, (4e12, 3e9), 4, "computing"),
        (6e12, 1e9, (4e12, 3e9), 4, "computing"),  # Less than the arguments have.
    ],
)
def test_a_step_takes_as_long_as_the_longer_of_computing_and_moving(
    flops: float, traffic: float, counted: tuple, seconds: float, bound: str
) -> None:
    arguments = (jax.ShapeDtypeStruct((2**29,), "float32"),)
    load = measure(
        steps.Step(None, arguments, {}),
        roofline.Work(4e12, 3e9),
        steps.Compiled({"arguments": 2**31}, 2.0**31, flops, traffic, {}, 0.0),
        topology.Topology("cpu", _CHIP, jax.devices(), True),
    )
    assert (load.flops, load.traffic) == counted
    assert (load.seconds, load.bound) == (seconds, bound)


@pytest.mark.parametrize("remat", [False, True])
def test_the_best_time_is_that_of_the_step_without_what_is_computed_twice(
    monkeypatch: pytest.MonkeyPatch, remat: bool
) -> None:
    config = _config(train={"batch_size": 8})
    here = topology.Topology("cpu", _CHIP, jax.devices(), True)
    step = steps.training_step(config, here)
    config.model.remat = remat
    monkeypatch.setattr(steps, "peak_flops", lambda kind: 1e12)
    best = (steps.best_seconds(config) or 0) * 1e12 * jax.device_count()
    assert best == pytest.approx(roofline.count_work(step.traced.jaxpr).flops, rel=0.15)
