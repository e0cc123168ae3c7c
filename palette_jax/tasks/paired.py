"""Paired pictures: any task that is told by two folders."""

from palette_jax.tasks.task import Task, as_it_is

TASK = Task(
    name="paired",
    title="Translate",
    sentence="Does what the model learnt from pairs of pictures.",
    degrade=as_it_is,
    degradation=lambda options: "pairs",
    brings_colour=True,
)
