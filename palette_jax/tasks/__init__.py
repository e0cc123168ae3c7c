"""The tasks, one file each."""

from palette_jax.tasks import (
    colorize,
    inpaint,
    jpeg,
    old_photo,
    paired,
    superres,
    uncrop,
)
from palette_jax.tasks.task import Degraded, Sides, Task, UserInputs

TASKS: dict[str, Task] = {
    module.TASK.name: module.TASK
    for module in (colorize, inpaint, uncrop, jpeg, superres, old_photo, paired)
}
"""By name, in the order in which users see them."""

__all__ = ["TASKS", "Degraded", "Sides", "Task", "UserInputs"]
