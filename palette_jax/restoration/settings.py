"""The settings of a restoration, stored in each result."""

import dataclasses
import json
from typing import Any, Literal

from palette_jax.errors import UserError
from palette_jax.tasks import TASKS, Sides

# With fewer steps, the paper's large variance leaves noise in the picture.
FEWEST_DDPM_STEPS = 250
SAMPLERS = ("ddpm", "ddim", "dpmpp_2m", "unipc_2", "unipc_3")
MAX_STEPS = 1_000_000  # Rows of a table.
MAX_SAMPLES = 10_000  # All are kept until the last.
LARGE = ("auto", "tiles", "shrink")

# The presets of sampler and steps: `fast`, the default; `paper`, as published.
# By the distance to the result of many steps (docs/results.md).
QUALITY_PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"sampler": "unipc_2", "num_steps": 8, "schedule": "trimmed"},
    "balanced": {"sampler": "unipc_2", "num_steps": 16, "schedule": "trimmed"},
    "paper": {"sampler": "ddpm", "num_steps": 1000, "schedule": "paper"},
}


_NOWHERE = Sides()


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a restoration.

    Attributes:
      task: a name out of `palette_jax.tasks`.
      seed: of the first sample; the next has seed + 1, and so on.
      quality: a name out of `QUALITY_PRESETS`.
      sampler: a name out of `SAMPLERS`, in place of the preset's.
      num_steps: in place of the preset's.
      extend: for `uncrop`, the extension of each side.
      keep_luminance: for `colorize`, whether the result has the input's luma.
      large: how to restore a picture larger than the network's size. `tiles` keeps its
        size, in overlapping tiles; `shrink` restores a small copy (of the hole and its
        surroundings, if there is a hole) and enlarges the painted part; `auto` shrinks
        for `colorize`, and for holes too wide for the network.

    Raises:
      UserError: for an invalid value.
    """

    task: str
    seed: int = 0
    num_samples: int = 1
    quality: str = "fast"
    sampler: str | None = None
    num_steps: int | None = None
    extend: Sides = _NOWHERE
    keep_luminance: bool = False
    large: Literal["auto", "tiles", "shrink"] = "auto"

    def __post_init__(self) -> None:
        """Raises for invalid values."""
        _one_of("task", self.task, tuple(TASKS))
        _one_of("quality", self.quality, tuple(QUALITY_PRESETS))
        _one_of("large", self.large, LARGE)
        if self.sampler is not None:
            _one_of("sampler", self.sampler, SAMPLERS)
        for name, value, most in (
            ("num_samples", self.num_samples, MAX_SAMPLES),
            ("num_steps", self.steps["num_steps"], MAX_STEPS),
        ):
            if not isinstance(value, int) or not 1 <= value <= most:
                raise UserError(
                    f"expected {name} >= 1 and <= {most:,}, a whole number, got"
                    f" {value!r}"
                )
        largest = 2**32 - self.num_samples  # Larger seeds would restart at 0.
        if not isinstance(self.seed, int) or not 0 <= self.seed <= largest:
            raise UserError(f"expected a seed from 0 to {largest}, got {self.seed}")
        if not all(0 <= share <= 16 for share in self.extend):  # Also refuses NaN.
            raise UserError(
                "expected each side extended by 0 to 16 times the picture, got"
                f" {tuple(self.extend)}; write 0.5 or 50% for half of it"
            )
        if TASKS[self.task].extends and max(self.extend) == 0:
            raise UserError(
                "expected a side to extend with task uncrop, got none; set the side and"
                " its extension"
            )

    @property
    def seeds(self) -> list[int]:
        """The seed of each sample."""
        return [self.seed + i for i in range(self.num_samples)]

    def alone(self) -> list["Settings"]:
        """Returns for each sample the settings that reproduce it alone."""
        return [
            dataclasses.replace(self, seed=seed, num_samples=1) for seed in self.seeds
        ]

    def warnings(self) -> list[str]:
        """Returns warnings about the sampler's steps."""
        sampler, count = self.steps["sampler"], self.steps["num_steps"]
        if sampler != "ddpm" or count >= FEWEST_DDPM_STEPS:
            return []
        return [
            f"ddpm with {count} steps leaves colour noise; take --sampler=unipc_2, or"
            f" {FEWEST_DDPM_STEPS} steps or more"
        ]

    @property
    def steps(self) -> dict[str, Any]:
        """The sampler, its number of steps and its schedule."""
        steps = dict(QUALITY_PRESETS[self.quality])
        if self.sampler is not None:
            steps["sampler"] = self.sampler
        if self.num_steps is not None:
            steps["num_steps"] = self.num_steps
        return steps

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: Any) -> "Settings":
        """Returns the settings that `to_json` wrote.

        Raises:
          UserError: for other values.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        try:
            extend = Sides(*map(float, values.get("extend", ())))
            given: dict[str, Any] = {**values, "extend": extend}
            return cls(**{key: given[key] for key in given if key in known})
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"expected settings of a restoration, got {values}"
            ) from error


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UserError(f"expected {name} out of {', '.join(valid)}, got {value!r}")
