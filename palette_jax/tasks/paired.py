"""Paired pictures: any task that two folders define."""

from palette_jax.tasks.task import Task, as_it_is

TASK = Task(
    name="paired",
    title="Translate",
    sentence="Converts a picture as the model learned from pairs of pictures.",
    degrade=as_it_is,
    degradation=lambda options: "pairs",
    brings_colour=True,
)
