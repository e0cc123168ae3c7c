"""Kills a run of two processes again and again, and looks at what is left of it."""

import contextlib
import dataclasses
import math
import pathlib
import random
import re
import signal
import time
from collections.abc import Callable

import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from palette_jax.training import checkpoints
from tests.distributed.group import TINY, Group, run
from tests.states import assert_same_bits, newest_state

INTERVAL = 5  # Steps between two checkpoints.
STEPS_PER_KILL = 15
START_UP, STEP, SAVE = PLACES = ("start-up", "a step", "a save")
# What a run says in start-up.
_MILESTONES = (
    "waiting for",
    "have joined",
    "parameters|resuming from",
    "compiling the",
)


@dataclasses.dataclass(frozen=True)
class Kill:
    """A kill as it was drawn.

    Attributes:
      place: what the run is to be doing.
      share: of start-up or of a save, at which it comes.
      steps: beyond the checkpoint, after which a step is killed.
      victim: the process that is killed.
      gap: seconds until the other one is; None leaves it to end by itself.
    """

    place: str
    share: float
    steps: int
    victim: int
    gap: float | None


def draw_kills(seed: int, count: int, *, alone: bool) -> list[Kill]:
    """Draws kills, as many of each place; some leave the other process `alone`."""
    draw = random.Random(seed)
    places = [PLACES[n % len(PLACES)] for n in range(count)]
    draw.shuffle(places)
    return [
        Kill(
            place=place,
            share=draw.random(),
            steps=draw.randint(INTERVAL + 1, 3 * INTERVAL),
            victim=draw.randrange(2),
            gap=None if alone and n % 4 == 3 else draw.uniform(0, 0.3),
        )
        for n, place in enumerate(places)
    ]


def crash(
    folder: pathlib.Path, kills: list[Kill], *, say: Callable[[str], None] = print
) -> list[str]:
    """Runs once undisturbed and once with the kills; both must end with the same bits.

    Returns:
      What each kill hit, in words of `PLACES`.

    Raises:
      AssertionError: if anything is lost that should not be.
    """
    num_steps = STEPS_PER_KILL * len(kills)
    args = (
        *TINY,
        f"--config.train.num_steps={num_steps}",
        f"--config.train.checkpoint_every={INTERVAL}",
        f"--config.train.preview_every={num_steps}",
    )
    calm, killed = folder / "undisturbed", folder / "killed"
    save = _seconds_of_save(calm, args)
    say(f"undisturbed: {num_steps} steps, a save takes {save:.2f} s")
    places, restored = [], 0
    for number, kill in enumerate(kills, start=1):
        group = Group(killed, 2, *args)
        _wait(group, kill, restored, save)
        places.append(_end(group, kill))
        newest = _look(group, restored)
        said = f"kill {number}: in {places[-1]}, process {kill.victim} first, "
        said += "the other ended by itself" if kill.gap is None else "then the other"
        say(f"{said}; reached {_reached(group, restored)}, kept {newest}")
        restored = newest
    finished = run(killed, 2, *args)
    if restored:
        assert f"resuming from step {restored} " in finished.output()
    assert_same_bits(newest_state(killed / "run"), newest_state(calm / "run"))
    assert _curve(killed) == _curve(calm)
    say(f"finished: step {num_steps}, every bit and every curve as if undisturbed")
    return places


def _seconds_of_save(folder: pathlib.Path, args: tuple[str, ...]) -> float:
    """Runs undisturbed; returns the seconds that its first save takes."""
    group = Group(folder, 2, *args)
    while group.is_running and not _unfinished(group):
        time.sleep(0.002)
    began = time.monotonic()
    while group.is_running and _unfinished(group):
        time.sleep(0.002)
    ended = time.monotonic()
    assert group.finish() == [0, 0], group.output()
    return ended - began


def _wait(group: Group, kill: Kill, restored: int, save: float) -> None:
    """Waits for the moment of a kill."""
    if kill.place == START_UP:
        late, milestone = math.modf(kill.share * len(_MILESTONES))
        group.wait_for(_MILESTONES[int(milestone)])
        end = time.monotonic() + late
        while time.monotonic() < end and not _has_begun(group):
            time.sleep(0.002)
    elif kill.place == STEP:
        group.wait_for(rf"step {restored + kill.steps}/")
        time.sleep(0.1 * kill.share)
    else:
        group.wait_for(rf"step {restored + 1}/")
        while group.is_running and not _unfinished(group):
            time.sleep(0.002)
        time.sleep(kill.share * save)


def _end(group: Group, kill: Kill) -> str:
    """Kills one process, and the other if it is not to end by itself."""
    assert group.is_running, f"ended before it was killed: {group.output()}"
    group.signal(kill.victim, signal.SIGKILL)
    if kill.gap is not None:
        time.sleep(kill.gap)
        with contextlib.suppress(ProcessLookupError):  # It may have ended by itself.
            group.signal(1 - kill.victim, signal.SIGKILL)
    codes = group.finish(timeout=300)
    assert codes[kill.victim] == -signal.SIGKILL, codes
    assert codes[1 - kill.victim] not in (0, 75), codes
    if not _has_begun(group):
        return START_UP
    return SAVE if _unfinished(group) else STEP


def _look(group: Group, restored: int) -> int:
    """Checks what a kill has left; returns the newest checkpoint, 0 without any."""
    went_on = re.search(r"resuming from step (\d+)", group.output())
    assert not went_on or int(went_on[1]) == restored, "it did not take the newest"
    steps = checkpoints.committed_steps(_checkpoints(group))
    newest = steps[0] if steps else 0
    assert newest >= restored, f"checkpoint {restored} is lost"
    if steps:
        found = checkpoints.verify(_checkpoints(group))
        assert found == [(step, None) for step in steps], found
    # While one is being saved, training goes on.
    saving = [step for step in _unfinished(group) if step > newest]
    reached = min([_reached(group, restored), *saving])
    assert reached - newest <= INTERVAL, f"lost {newest} to {reached}"
    return newest


def _has_begun(group: Group) -> bool:
    return re.search(r" step \d+/", group.output()) is not None


def _reached(group: Group, restored: int) -> int:
    steps = re.findall(r" step (\d+)/", group.output())
    return int(steps[-1]) if steps else restored


def _checkpoints(group: Group) -> pathlib.Path:
    return group.folder / "run" / "checkpoints"


def _unfinished(group: Group) -> list[int]:
    """Returns the steps that are being saved or deleted."""
    committed = checkpoints.committed_steps(_checkpoints(group))
    names = [path.name.split(".")[0] for path in _checkpoints(group).glob("*")]
    steps = [int(name) for name in names if name.isdigit()]
    return [step for step in steps if step not in committed]


def _curve(folder: pathlib.Path) -> list[tuple[int, float]]:
    """Returns the losses as TensorBoard reads them."""
    events = EventAccumulator(str(folder / "run"), size_guidance={"tensors": 0})
    return [
        (event.step, float(tf.make_ndarray(event.tensor_proto)))
        for event in events.Reload().Tensors("loss")
    ]
